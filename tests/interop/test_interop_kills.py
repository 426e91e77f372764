"""`uploader`, and tus servers of npm and PyPI, are killed while they work: no file counts as stored that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from command import ended, read_confirmed, start, uploader
from interop.partners import PartnerServer, make

if TYPE_CHECKING:
    from pathlib import Path

    from interop.table import RecordProperty

pytestmark = pytest.mark.kills

MIB = 1 << 20
SLOW = ("--limit-rate", "10M", "--chunk-size", "6M", "--json")
KILLS = (7, 13, 19)
"""Confirmed MiB of the large file at which something is killed."""


def sizes(prefix: str) -> dict[str, int]:
    """Return the sizes of a large file and some small ones."""
    return {f"{prefix} large.bin": 50_000_000, **{f"{prefix} {number}.bin": 1000 * number for number in range(20)}}


def name_of(event: dict[str, Any]) -> str:
    name: str = event["path"].rpartition("/")[2]
    return name


@pytest.mark.cases("kill client")
def test_resume_after_kills_of_the_client_stores_all_files(partner: PartnerServer, tmp_path: Path) -> None:
    sent = make(tmp_path / "client", sizes("client"))
    command: tuple[str, ...] = ("upload", "client", "--tus-endpoint", partner.endpoint, *SLOW)
    for confirmed in KILLS:
        process = start(*command, home=tmp_path)
        read_confirmed(process, confirmed * MIB)
        process.kill()
        process.communicate()
        command = ("resume", "--json")
    done = uploader("resume", "--json", "--limit-rate", "none", home=tmp_path)
    assert done.code == 0, done.err
    assert sent <= partner.stored()


@pytest.mark.cases("kill server")
def test_no_file_that_a_killed_server_spoiled_counts_as_verified(
    partner: PartnerServer, tmp_path: Path, record_property: RecordProperty
) -> None:
    """Only a server that is known for it spoils files. Where it can be read they fail as `integrity`.

    Its checksums count, as in a preset that says that they are compared.
    """
    sent = make(tmp_path / "server", sizes("server"))
    options = ("--tus-endpoint", partner.endpoint, "--wait-for-server", "60", *SLOW)
    process = start("upload", "server", *options, home=tmp_path, UPLOADER_CHECKSUM_COMPARED="yes")
    seen = ""
    for confirmed in KILLS:
        seen += read_confirmed(process, confirmed * MIB)
        partner.kill()
        partner.start()
    done = ended(process, seen)
    completed = {name_of(event): event["verified"] for event in done.of("file.completed")}
    failed = {name_of(event): event["code"] for event in done.of("file.failed")}
    right = {name for name, _ in sent & partner.stored()}
    assert completed.keys() | failed.keys() == {name for name, _ in sent}
    assert set(failed.values()) <= {"integrity"}, done.err
    assert {name for name, is_verified in completed.items() if is_verified} <= right
    spoiled = completed.keys() - right
    assert partner.partner.spoils or not (spoiled or failed)
    record_property("kill server", "spoiled, not verified" if spoiled else "spoiled, found" if failed else "✓")
