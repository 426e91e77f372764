"""Everything that can happen to one upload with tus or the IETF's protocol, with the real machine and its real words.

Strangers and restarts of the server are met before a request. Pairs of a request and a class of answer that are never
met have a reason in `NEVER`.
"""

from __future__ import annotations

from itertools import product

import pytest
from model import tus_world
from model.exploring import Budget, Found, explore
from model.tus_world import Case
from msgspec.structs import replace

from uploader_cli.transfer.protocols import upload
from uploader_cli.transfer.protocols.machine import Named, NewKey, Read

KINDS = ("bundled", "finishes", "forgets", "ietf")
CASES = [Case(kind, file) for file, kind in product(("chunks", "empty", "stream"), KINDS)]
"""With two faults and a kill; a file of three chunks, an empty one, and one of unknown length that can't be read again.
"""
AT_CREATION = [Case(kind, "small") for kind in KINDS] + [Case(kind, "first") for kind in ("finishes", "forgets")]
"""Files that go with the creation of their uploads, of the first one all but the last byte."""
RESENT = [Case(kind, file, resends=True) for kind in KINDS[1:] for file in ("chunks", "small")]

FINISH = {"finish refuses", "finish fails", "finish hangs and fails", "finish fails behind a gateway"}
FINISH |= {"finish is lost and fails", "finish is late"}
HAPPENED = {"expired", "a byte is lost", "a stranger writes"}
REFUSED = {"400", "403", "413", "409"}
DONE = {"500 after", "502 after", "lost after", "late, and done"}
CUT = {"cut, nothing is kept", "cut, a part is kept"}
OFFSET = {"a wrong offset", "answered early"}
NEVER = {
    "Create": FINISH | HAPPENED | OFFSET | {"404", "460"},  # no upload is there, and nothing is finished
    "Create the end": HAPPENED | OFFSET | {"404", "460"},  # no upload is there; a lost chunk is that of a PATCH
    "Append": FINISH | {"no route"},  # bytes are missing
    "Append the end": {"a stranger writes", "no route"},  # what was sent reaches to the end already
    "Locate": FINISH
    | REFUSED
    | DONE
    | CUT
    | OFFSET
    | {"404", "460", "no route"},  # it has no body, and changes nothing
}
"""Classes of answers that are no answers to a request."""


def explored(case: Case, faults: int, kills: int) -> Found:
    found = explore(tus_world.first_world(case), tus_world.moves, tus_world.key_of, Budget(faults, kills))
    print(f"\n{case.kind}, {case.file}: {faults} faults, {kills} kills: {found}")
    return found


def name_of(case: Case) -> str:
    return f"{case.kind}-{case.file}{'-resent' if case.resends else ''}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_upload_survives_two_faults_and_a_kill_at_any_step(case: Case) -> None:
    """The moves check what must always hold."""
    assert explored(case, 2, 1).worlds > 200


@pytest.mark.parametrize("case", [*AT_CREATION, *RESENT], ids=name_of)
def test_upload_at_creation_and_one_sent_again_survive_a_fault_and_a_kill(case: Case) -> None:
    assert explored(case, 1, 1).worlds > 50


def test_every_class_of_answer_is_met_in_every_state() -> None:
    cases = [Case(kind, file) for kind in ("bundled", "finishes") for file in ("chunks", "small", "first")]
    met = {pair for case in cases for pair in explored(case, 1, 1).pairs}
    requests = {pair for pair in met if pair[0] != "ReadLast"}
    never = set(product(NEVER, {name for _, name in requests})) - requests
    print(f"\nnever met: {sorted(never)}")
    assert never == {(request, name) for request, names in NEVER.items() for name in names}
    assert {name for state, name in met if state == "ReadLast"} == {"stored", "missing", "silent", "lost"}


@pytest.mark.acceptance
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("case", [*CASES, *AT_CREATION, *RESENT], ids=name_of)
def test_upload_survives_three_faults_and_two_kills_at_any_step(case: Case) -> None:
    """It takes minutes."""
    assert explored(case, 3, 2).worlds > 200


def test_upload_in_place_of_another_one_knows_nothing_of_it() -> None:
    """What was found out about the upload before it would make its bytes count as those of somebody else."""
    world = tus_world.first_world(CASES[0])
    assert world.state is not None
    told = {"adopted": True, "unchecked": True, "accepted": True, "declared": True, "continued": True, "reach": 9}
    before = replace(world.state, doing=NewKey(), restarts=2, **told)
    after, wanted = upload.step(before, Named("new"))
    assert (after.key, after.restarts, wanted) == ("new", 2, Read(0, creates=True))
    assert {name: getattr(after, name) for name in told} == dict.fromkeys(told, 0)
