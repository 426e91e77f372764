"""Everything that can happen to a batch of three files, with the real machine and the pacer's real decisions."""

from __future__ import annotations

import pytest
from model import batch_world
from model.exploring import Budget, Found, explore

from uploader_cli.transfer.protocols import batch


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LONGEST", 3)
    monkeypatch.setattr(batch, "UNANSWERED_QUERIES", 2)


def explored(faults: int, kills: int, *, paths: bool) -> Found:
    start = batch_world.first_world("abc", paths=paths)
    found = explore(start, batch_world.moves, batch_world.key_of, Budget(faults, kills))
    print(f"\n{faults} faults, {kills} kills: {found}")
    return found


@pytest.mark.parametrize("paths", [True, False], ids=["bundled", "reference"])
def test_batch_survives_two_faults_and_a_kill_at_any_step(paths: bool) -> None:
    """The moves check what must always hold; here it is checked that every class of answer was met."""
    met = {name for _, name in explored(2, 1, paths=paths).pairs}
    asked = {"found", "no answer"} if paths else {"nothing was said", "said", "progress", "no progress", "limited"}
    assert asked < met
    assert len(met - asked) == 27


@pytest.mark.acceptance
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("paths", [True, False], ids=["bundled", "reference"])
def test_batch_survives_three_faults_and_two_kills_at_any_step(paths: bool) -> None:
    """It takes minutes."""
    explored(3, 2, paths=paths)
