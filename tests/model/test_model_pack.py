"""Everything that can happen to a pack of three files, with the real machine and the pacer's real decisions.

`python -m pytest -n 0 -s tests/model` prints how much that is.
"""

from __future__ import annotations

import pytest
from model import pack_world
from model.exploring import Budget, Found, explore

NOT_MET = {
    ("POST", "the key of more files"): "a new key is of no other files",
    ("POST again", "the key of more files"): "the pack was sent under this key by the same run",
}
"""Pairs of a state and a class of answer that are never met, each with its reason."""


def explored(faults: int, kills: int) -> Found:
    found = explore(pack_world.first_world("abc"), pack_world.moves, pack_world.key_of, Budget(faults, kills))
    print(f"\n{faults} faults, {kills} kills: {found}")
    return found


def unmet(found: Found) -> set[tuple[str, str]]:
    """Return the pairs that were not met, of the classes that each method has met in any state."""
    classes = {method: {name for state, name in found.pairs if state.startswith(method)} for method in ("GET", "POST")}
    return {(state, name) for state, _ in found.pairs for name in classes[state.split()[0]]} - {*found.pairs}


def test_pack_survives_two_faults_and_a_kill_at_any_step() -> None:
    """The moves check what must always hold; here it is checked that every state was met."""
    states = {state for state, _ in explored(2, 1).pairs}
    assert states == {"POST", "POST again", "POST resumed", "GET again", "GET resumed"}


@pytest.mark.acceptance
@pytest.mark.timeout(7200)
def test_pack_survives_three_faults_and_two_kills_at_any_step() -> None:
    """It takes minutes."""
    found = explored(3, 2)
    assert unmet(found) == {*NOT_MET}
