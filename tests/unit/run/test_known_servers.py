"""The last known limits of each server: for dry runs, and never a reason to fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.packs import LookupOffer, PackOffer
from uploader_cli.core.plan import ASSUMED, Limits
from uploader_cli.core.terms import Offer
from uploader_cli.run.known_servers import MOST_SERVERS, KnownServer, recall, remember

if TYPE_CHECKING:
    from pathlib import Path

HERE, THERE = "http://here:1", "http://there:1"
REFERENCE = KnownServer(Offer(ASSUMED))
TUS = Capabilities(f"{HERE}/files/", extensions=frozenset({"creation"}), checksum_algorithms=frozenset({"sha1"}))
LIMITS = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)
OPEN = KnownServer(Offer(LIMITS, TUS))
LIMITED = KnownServer(Offer(LIMITS, TUS, PackOffer(f"{HERE}/packs", 7, 8, 9), LookupOffer("", 100)), chunk=1 << 20)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a state directory that does not exist yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "uploader" / "limits.json"


def test_limits_cache_is_empty_at_first() -> None:
    assert recall(HERE) is None


@pytest.mark.parametrize("seen", [REFERENCE, OPEN, LIMITED], ids=["reference", "bundled", "behind a proxy"])
def test_cached_limits_are_read_back(seen: KnownServer) -> None:
    remember(HERE, seen)
    assert recall(HERE) == seen
    assert recall(THERE) is None


def test_each_server_has_its_own_and_the_newest_counts() -> None:
    remember(HERE, REFERENCE)
    remember(THERE, KnownServer(Offer(LIMITS)))
    remember(HERE, OPEN)
    assert recall(HERE) == OPEN
    assert recall(THERE) == KnownServer(Offer(LIMITS))


def test_a_tus_endpoint_of_another_host_is_not_used() -> None:
    """The file may have been tampered with: the token would be sent to that host."""
    remember(THERE, OPEN)
    assert recall(THERE) == KnownServer(Offer(LIMITS))


def test_unchanged_limits_are_not_written(state: Path) -> None:
    remember(HERE, REFERENCE)
    before = state.stat().st_ino
    remember(HERE, REFERENCE)
    assert state.stat().st_ino == before


def test_the_oldest_servers_are_forgotten() -> None:
    for number in range(MOST_SERVERS + 2):
        remember(f"http://{number}", REFERENCE)
    assert recall("http://0") is None
    assert recall("http://1") is None
    assert recall("http://2") == recall(f"http://{MOST_SERVERS + 1}") == REFERENCE


@pytest.mark.parametrize(
    "spoiled", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"http://here:1": 7}', b'{"http://here:1": {"maxFiles": 0}}']
)
def test_corrupted_limits_cache_is_ignored_and_replaced(state: Path, spoiled: bytes) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(spoiled)
    assert recall(HERE) is None
    remember(HERE, REFERENCE)
    assert recall(HERE) == REFERENCE


def test_missing_state_directory_is_ignored(state: Path) -> None:
    state.parent.parent.mkdir(parents=True)
    state.parent.write_text("a file where the directory should be")
    remember(HERE, REFERENCE)
    assert recall(HERE) is None


def test_failed_write_leaves_no_file(state: Path) -> None:
    state.mkdir(parents=True)  # nothing can be renamed onto a directory
    remember(HERE, REFERENCE)
    assert recall(HERE) is None
    assert [path.name for path in state.parent.iterdir()] == [state.name]
