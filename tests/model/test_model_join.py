"""Everything that can happen when the parts of a file are joined, with the real machine and the pacer's decisions."""

from __future__ import annotations

import pytest
from model import join_world
from model.exploring import Budget, explore


@pytest.mark.parametrize("resends", [False, True])
@pytest.mark.parametrize("terms", [join_world.FOREIGN, join_world.BUNDLED], ids=["foreign", "bundled"])
def test_joining_survives_three_faults_and_two_kills_at_any_step(terms: join_world.Terms, resends: bool) -> None:
    """The moves check what must always hold; here it is checked that every state was met."""
    found = explore(join_world.first_world(terms, resends=resends), join_world.moves, join_world.key_of, Budget(3, 2))
    print(f"\n{found}")
    asked = {"POST again"} if terms is join_world.FOREIGN else {"POST by the key"}
    assert {state for state, _ in found.pairs} == {"POST", "HEAD of the file", "HEAD of a part"} | asked
