"""The server is killed or terminated at random moments of the request that completes an upload.

The stored files are looked at before the restart, after it and before any request, and after the client has finished.
"""

from __future__ import annotations

import itertools
import random
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import pytest
from server.crash.stopping import kill_near_the_end, server_on, stop_during_slow_call
from server.crash.uploads import CHECKED, KINDS

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = [
    (kind, durability, checked, number)
    for kind, durability in itertools.product(KINDS, ("fsync", "none"))
    for checked in CHECKED.get(kind, [True, False])
    for number in (signal.SIGKILL, signal.SIGTERM)
]
KILLS = -(-1000 // len(EVERYTHING))
"""Kills of each combination in the long form: 1,000 in all."""


def findings(root: Path, kind: str, durability: str, checked: bool, number: int, kills: int, seed: int) -> list[str]:
    with server_on(root, durability) as server:
        make, chance = partial(KINDS[kind], checked=checked), random.Random(seed)
        return kill_near_the_end(server, make, number, kills, chance).findings


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(
    ("kind", "durability"),
    [
        ("batch", "none"),
        pytest.param("tus", "fsync", marks=pytest.mark.thorough),
        pytest.param("join", "none", marks=pytest.mark.thorough),
    ],
)
def test_server_killed_near_the_last_request_keeps_only_complete_files(
    tmp_path: Path, kind: str, durability: str, number: int
) -> None:
    checked, kills = CHECKED.get(kind, [True])[0], 6 if number == signal.SIGKILL else 2
    assert findings(tmp_path, kind, durability, checked, number, kills, 1) == []


@pytest.mark.acceptance
@pytest.mark.parametrize(("kind", "durability", "checked", "number"), EVERYTHING)
def test_one_thousand_kills_near_the_last_request_keep_only_complete_files(
    tmp_path: Path, kind: str, durability: str, checked: bool, number: int
) -> None:
    assert findings(tmp_path, kind, durability, checked, number, KILLS, 2) == []


SLOW = 20.0
"""Seconds that a call takes; a server that waits for it is found."""
FLUSHES = ("fsync", "fdatasync", "syncfs")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("names", "at"),
    [
        (FLUSHES, 2),
        *(pytest.param(FLUSHES, at, marks=pytest.mark.acceptance) for at in (1, 3, 4, 5)),
        *(pytest.param(("commit",), at, marks=pytest.mark.acceptance) for at in (1, 2, 3)),
    ],
)
def test_server_stopped_during_a_slow_flush_ends_and_keeps_only_complete_files(
    tmp_path: Path, names: tuple[str, ...], at: int
) -> None:
    """It ends within three seconds, and the upload can be finished after a restart."""

    def stop(kind: str) -> tuple[float, list[str]]:
        with server_on(tmp_path / kind, "fsync", patient=False) as server:
            make = partial(KINDS[kind], checked=True)
            took, stored = stop_during_slow_call(server, make, SLOW, names=list(names), at=at)
        return took, stored.findings

    with ThreadPoolExecutor(len(KINDS)) as pool:
        ends = dict(zip(KINDS, pool.map(stop, KINDS), strict=True))
    assert {kind: found for kind, (_, found) in ends.items() if found} == {}
    assert {kind: took for kind, (took, _) in ends.items() if took > SLOW / 2} == {}
    assert any(took for took, _ in ends.values()) or at > 2
