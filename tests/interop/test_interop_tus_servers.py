"""`uploader` uploads to tus servers of npm and PyPI, each with its default settings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from command import ended, read_confirmed, start, uploader
from interop.partners import PartnerServer, make

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


@pytest.mark.cases("upload", "empty", "unicode", "checksum")
def test_small_files_are_stored_with_their_names(
    partner: PartnerServer, tmp_path: Path, record_property: RecordProperty
) -> None:
    sent = make(tmp_path / "small", SMALL)
    done = uploader("upload", "small", "--tus-endpoint", partner.endpoint, "--json", home=tmp_path)
    assert done.code == 0, done.err
    assert len(done.of("file.completed")) == len(SMALL) == 20
    assert sent <= partner.stored()
    verified = {event["verified"] for event in done.of("file.completed") if event["size"]}
    assert len(verified) == 1
    record_property("checksum", "✓" if verified == {True} else "none")


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
