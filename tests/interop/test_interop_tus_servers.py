"""`uploader` uploads to tus servers of npm and PyPI, each with its default settings."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
import requests
from command import ended, read_confirmed, start, uploader
from interop.partners import PartnerServer, make, sha256
from rewriting import rewrite
from time_limits import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from interop.table import RecordProperty

pytestmark = pytest.mark.interop

SMALL = {
    **{f"{number}.bin": 1 << number for number in range(14)},
    "empty.bin": 0,
    "leer – é.txt": 0,
    "Grüße 東京.txt": 100,
    "العربية 🎈.bin": 4096,
    "a b+c&d=e%20.txt": 10,
    "2 MiB.bin": 2 << 20,
}
LARGE = 50_000_000


@pytest.mark.cases("upload", "empty", "unicode")
def test_small_files_are_stored_with_their_names(partner: PartnerServer, tmp_path: Path) -> None:
    """With checksums, if the server announces them; none is `verified` by those of a server without a preset."""
    sent = make(tmp_path / "small", SMALL)
    done = uploader("upload", "small", "--tus-endpoint", partner.endpoint, "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert len(done.of("file.completed")) == len(SMALL) == 20
    assert sent <= partner.stored()
    assert {event["verified"] for event in done.of("file.completed")} == {False}


@pytest.mark.cases("checksum")
def test_wrong_checksum_is_refused(partner: PartnerServer, record_property: RecordProperty) -> None:
    """What a preset with `checksum-compared` says of it. The chunk is right, and no wrong byte is stored."""
    tus = {"Tus-Resumable": "1.0.0"}
    known = requests.options(partner.endpoint, headers=tus, timeout=PATIENCE).headers
    algorithms = known.get("Tus-Checksum-Algorithm", "").replace(" ", "").split(",")
    record_property("checksum", "✓" if "sha1" in algorithms else "none")
    metadata = {"Upload-Metadata": f"filename {base64.b64encode(b'wrong.bin').decode()}"}
    created = requests.post(partner.endpoint, headers={**tus, **metadata, "Upload-Length": "9"}, timeout=PATIENCE)
    url = urljoin(partner.endpoint, created.headers["Location"])
    for algorithm in {"sha1", "sha256"} & set(algorithms):
        wrong = base64.b64encode(hashlib.new(algorithm, b"others").digest()).decode()
        of_chunk = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        headers = {**tus, **of_chunk, "Upload-Checksum": f"{algorithm} {wrong}"}
        assert requests.patch(url, b"right", headers=headers, timeout=PATIENCE).status_code == 460
        assert requests.head(url, headers=tus, timeout=PATIENCE).headers["Upload-Offset"] == "0"


@pytest.mark.feature("presets")
def test_small_and_empty_files_are_stored_with_the_preset(partner: PartnerServer, tmp_path: Path) -> None:
    if not (preset := partner.partner.preset):
        pytest.skip("no preset")
    sent = make(tmp_path / "preset", {"nothing.bin": 0, "something.bin": 1000})
    done = uploader("upload", "preset", "--tus-endpoint", partner.endpoint, "--preset", preset, home=tmp_path)
    assert done.code == 0, done.err
    assert sent <= partner.stored()


@pytest.mark.feature("then")
def test_other_bytes_under_the_same_name_size_and_time_are_stored_or_kept(
    partner: PartnerServer, tmp_path: Path
) -> None:
    """From another machine, without receipts: no file is deleted here whose bytes the server does not have."""
    names = ["one.bin", "two.bin", "three.bin"]
    homes = [tmp_path / "here", tmp_path / "there"]
    for home in homes:
        home.mkdir()
    files = homes[0] / "known"
    first = make(files, {f"known {name}": 3000 for name in names})
    options = ("--tus-endpoint", partner.endpoint, "-j", "1", "--json")
    here = uploader("upload", files, *options, home=homes[0])
    assert (here.code, here.finished["completed"]) == (0, 3), here.err
    for path in files.iterdir():
        rewrite(path, path.read_bytes()[::-1])
    other = {(path.name, sha256(path.read_bytes())) for path in files.iterdir()}
    uploader("upload", files, *options, "--then", "delete", "--then-unverified", home=homes[1])
    stored, kept = partner.stored(), {path.name for path in files.iterdir()}
    assert first <= stored
    assert {name for name, _ in other - stored} <= kept


@pytest.mark.cases("50 MB", "resume")
def test_large_file_is_resumed_after_an_interrupt(partner: PartnerServer, tmp_path: Path) -> None:
    sent = make(tmp_path / "large", {"large.bin": LARGE})
    options = ("--tus-endpoint", partner.endpoint, "--chunk-size", "6M", "--json")
    begun = start("upload", "large", *options, "--limit-rate", "10M", home=tmp_path)
    interrupted = ended(begun, read_confirmed(begun, 6 << 20), 2)
    assert interrupted.code == 130, interrupted.err
    done = uploader("resume", "--json", "--limit-rate", "none", home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("file.started")[0]["offset"] >= 6 << 20
    assert sent <= partner.stored()


@pytest.mark.cases("smoke")
def test_smoke_finds_the_known_flaws_only(
    partner: PartnerServer, tmp_path: Path, record_property: RecordProperty
) -> None:
    """`doctor` finds none: uploads work."""
    flaws = partner.partner.flaws
    smoke = uploader("smoke", "--tus-endpoint", partner.endpoint, "--json", home=tmp_path)
    doctor = uploader("doctor", "--tus-endpoint", partner.endpoint, home=tmp_path)
    *checks, verdict = map(json.loads, smoke.out.splitlines())
    verdicts = {check["id"]: check["verdict"] for check in checks}
    assert {name for name, found in verdicts.items() if found == "fail"} == flaws.keys(), smoke.out
    assert smoke.code == (4 if "tus-core" in flaws else 0)
    assert verdict["left"] == []
    assert doctor.code == 0, doctor.err
    record_property("smoke", ", ".join(flaws.values()) or "✓")
