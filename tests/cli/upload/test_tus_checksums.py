"""A tus server that announces checksums gets one wrong checksum in a run, which shows whether it compares them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from command import uploader
from tus_services import FIRST, Announcing

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"0.bin": 1, "a.bin": 9000, "b.bin": 10, "c.bin": 3, "d.bin": 0, "e.bin": 5000}
OPTIONS = ("-j", "2", "--chunk-size", "4K", "--json")


@pytest.mark.parametrize("refusal", [460, 400, None, 403, 409, 412, 500])
def test_one_wrong_checksum_shows_whether_the_server_compares_them(refusal: int | None, tmp_path: Path) -> None:
    """The bytes are right in any case; where no refusal shows that it is compared the files are not verified."""
    (tmp_path / "files").mkdir()
    for name, size in SIZES.items():
        (tmp_path / "files" / name).write_bytes((FIRST * 1000)[:size])
    with Announcing(refusal) as service:
        done = uploader("upload", "files", "--tus-endpoint", service.url, *OPTIONS, home=tmp_path)
        again = uploader("upload", "files", "--no-resume", "--tus-endpoint", service.url, *OPTIONS, home=tmp_path)
        stored = sorted(bytes(upload.content) for upload in service.uploads.values())
    assert done.code == again.code == 0, done.err
    assert stored == sorted(path.read_bytes() for path in [*(tmp_path / "files").iterdir()] * 2)
    assert len(service.wrong) == 2, "one in each run"
    assert max(service.wrong) <= 4096
    compares = refusal in (460, 400)
    assert {event["verified"] for event in done.of("file.completed") if event["size"]} == {compares}
    assert [event["code"] for event in done.of("warning")] == ([] if compares else ["unverifiable"])
    assert not done.of("file.retry")


def test_preset_and_piped_input(tmp_path: Path) -> None:
    """A preset is trusted. Standard input is proven with a part of its first chunk."""
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[preset.mine]\nchecksum = "sha1"\n')
    (tmp_path / "a.bin").write_bytes(FIRST)
    with Announcing() as service:
        done = uploader("upload", "a.bin", "--preset", "mine", "--tus-endpoint", service.url, "--json", home=tmp_path)
        assert (done.code, service.wrong) == (0, []), done.err
        assert done.of("file.completed")[0]["verified"]
        reader, writer = os.pipe()
        os.write(writer, b"x" * 10_000)
        os.close(writer)
        with open(reader, "rb") as source:
            command = ("upload", "-", "--name", "b", "--tus-endpoint", service.url, *OPTIONS)
            done = uploader(*command, home=tmp_path, stdin=source)
        assert (done.code, len(service.wrong)) == (0, 1), done.err
        assert done.of("file.completed")[0]["verified"]
        assert [bytes(upload.content) for upload in service.uploads.values()] == [FIRST, b"x" * 10_000]
