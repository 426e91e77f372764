"""The limits last seen on each server: a dry run's knowledge, never a reason to fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.plan import ASSUMED, Limits
from uploader_cli.transfer import limits_cache
from uploader_cli.transfer.limits_cache import MOST, recall, remember

if TYPE_CHECKING:
    from pathlib import Path

HERE, THERE = "http://here:1", "http://there:1"
OPEN = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory of its own, which is not there yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert limits_cache.state_dir().is_relative_to(tmp_path)
    return limits_cache.state_dir() / "limits.json"


def test_nothing_is_known_at_first() -> None:
    assert recall(HERE) is None


@pytest.mark.parametrize("limits", [ASSUMED, OPEN], ids=["reference", "bundled"])
def test_limits_come_back_as_they_were(limits: Limits) -> None:
    remember(HERE, limits)
    assert recall(HERE) == limits
    assert recall(THERE) is None


def test_each_server_has_its_own_and_the_newest_counts() -> None:
    remember(HERE, ASSUMED)
    remember(THERE, OPEN)
    remember(HERE, replace(ASSUMED, max_files=5))
    assert recall(HERE) == replace(ASSUMED, max_files=5)
    assert recall(THERE) == OPEN


def test_what_is_known_already_is_not_written_again(state: Path) -> None:
    remember(HERE, ASSUMED)
    before = state.stat().st_ino
    remember(HERE, ASSUMED)
    assert state.stat().st_ino == before


def test_the_oldest_servers_are_forgotten() -> None:
    for number in range(MOST + 2):
        remember(f"http://{number}", ASSUMED)
    assert recall("http://0") is None
    assert recall("http://1") is None
    assert recall("http://2") == recall(f"http://{MOST + 1}") == ASSUMED


@pytest.mark.parametrize(
    "spoiled", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"http://here:1": 7}', b'{"http://here:1": {"maxFiles": 0}}']
)
def test_a_spoiled_file_is_no_knowledge_and_is_put_right(state: Path, spoiled: bytes) -> None:
    state.parent.mkdir(parents=True)
    state.write_bytes(spoiled)
    assert recall(HERE) is None
    remember(HERE, ASSUMED)
    assert recall(HERE) == ASSUMED


def test_a_state_directory_that_cannot_be_made_costs_the_knowledge_only(state: Path) -> None:
    state.parent.parent.mkdir(parents=True)
    state.parent.write_text("a file where the directory should be")
    remember(HERE, ASSUMED)
    assert recall(HERE) is None


def test_a_write_that_fails_leaves_nothing_behind(state: Path) -> None:
    state.mkdir(parents=True)  # nothing can be renamed onto a directory
    remember(HERE, ASSUMED)
    assert recall(HERE) is None
    assert [path.name for path in state.parent.iterdir()] == [state.name]
