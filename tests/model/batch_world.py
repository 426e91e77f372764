"""Batches of the real machine against models of the bundled server and of the reference backend, and a journal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy
from typing import Literal

from model.exploring import Budget, Move
from model.pack_world import RETRIES, answer, new_tries, told
from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.events import FileStatus, SessionProgress, Transport
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.record import Record
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.protocols import batch
from uploader_cli.transfer.protocols.machine import (
    Ask,
    Begin,
    BodyOut,
    Came,
    End,
    Failed,
    Find,
    Found,
    GaveUp,
    Hear,
    Heard,
    How,
    Look,
    Queried,
    Query,
    Renew,
    Renewed,
    Retry,
    Wait,
    Waited,
    Wanted,
)
from uploader_cli.transfer.results import FileResult

ENDPOINT = "https://up.example/api/upload/batch"
MOST_REQUESTS = 10 + 12 * RETRIES

Answered = tuple[str, int, tuple[str, ...], Came]
"""The class of an answer, its faults, the files that the server stores, and what comes."""


class World(Record, frozen=True):
    """Everything. `copies` are the stored files by name, `journal` says of each: open, uncertain or stored.

    `paths`: the bundled server, which keeps paths and stores no equal file twice, and not the reference backend.
    `groups` are the next requests.
    """

    files: tuple[LocalFile, ...]
    paths: bool
    journal: tuple[str, ...]
    copies: tuple[str, ...] = ()
    groups: tuple[tuple[LocalFile, ...], ...] = ()
    state: batch.BatchState | None = None
    wanted: Wanted | None = None
    tries: Tries | None = None
    ended: tuple[str, ...] = ()
    session: int = 1
    renewed: bool = False
    silenced: bool = False  # whether the server did not tell once what it has
    faults: tuple[str, ...] = ()
    requests: int = 0
    runs: int = 1
    over: bool = False


def first_world(names: str, *, paths: bool) -> World:
    files = tuple(LocalFile(n, f"/{name}", name, 1, 1) for n, name in enumerate(names))
    return begin_run(World(files, paths, ("open",) * len(files)))


def begin_run(world: World) -> World:
    """Claim the files; ask about those whose outcome is uncertain, as a run does."""
    journal, ended = list(world.journal), [""] * len(world.files)
    for number, file in enumerate(world.files):
        if journal[number] == "uncertain" and world.paths:
            journal[number] = "stored" if file.name in world.copies else "open"
        ended[number] = {"stored": "present", "uncertain": "unknown", "open": ""}[journal[number]]
    left = tuple(file for file, end in zip(world.files, ended, strict=True) if not end)
    groups = (left,) if left else ()
    begun = replace(world, journal=tuple(journal), ended=tuple(ended), groups=groups, state=None, wanted=None)
    return replace(begun, tries=None, renewed=False, requests=0, faults=(), over=False)


def killed(world: World) -> World:
    """Kill the client, and begin another run that resumes it."""
    return begin_run(replace(world, session=world.session + 1, runs=world.runs + 1))


def key_of(world: World) -> Hashable:
    tries = world.tries
    used = tries and [value for value in vars(tries).values() if isinstance(value, int | float)]
    return repr((replace(world, tries=None, requests=0), used))


# --- the server


def body_of(files: tuple[LocalFile, ...], refused: str = "") -> dict[str, object]:
    return {
        "files": [
            {"originalName": file.name, "status": "failed" if file.name == refused else "completed", "id": file.name}
            for file in files
        ]
    }


REFUSED = {
    "400": (400, ""),
    "403": (403, ""),
    "401": (401, ""),
    "408": (408, ""),
    "413": (413, ""),
    "429": (429, ""),
    "503": (503, ""),
    "SESSION_NOT_FOUND": (404, "SESSION_NOT_FOUND"),
}
"""Answers after which nothing is stored."""
UNCLEAR = {"422": (422, ""), "500": (500, "UPLOAD_FAILED"), "502": (502, "")}
"""Answers that the reference backend and gateways give before and after it has stored the files."""

RECOVERABLE = {"400", "408", "413", "422 before", "503", "SESSION_NOT_FOUND", "cut", "not reached", "lost before"}
"""After one of these the same run stores all files, but those of which nobody can say that it has not."""


def to_post(ask: Ask) -> Iterator[Answered]:
    """Yield what can come of a request."""
    files = ask.files
    names = tuple(file.name for file in files)
    yield "ok", 0, names, told(answer(200, body=body_of(files)), ask)
    yield "one failed", 1, names[1:], told(answer(200, body=body_of(files, names[0])), ask)
    yield "one missing", 1, names, told(answer(200, body=body_of(files[1:])), ask)
    yield "no list", 1, names, told(answer(200, body={"success": True}), ask)
    for name, (status, code) in REFUSED.items():
        yield name, 1, (), told(answer(status, code), ask)
    for name, (status, code) in UNCLEAR.items():
        yield f"{name} before", 1, (), told(answer(status, code), ask)
        yield f"{name} after", 1, names, told(answer(status, code), ask)
        yield f"{name} in the middle", 1, names[:1], told(answer(status, code), ask)
    yield "lost before", 1, (), Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "lost after", 1, names, Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "lost in the middle", 1, names[:1], Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "cut", 1, (), Failed(errors.ConnectionLost("cut", body_sent=False), sent=False)
    yield "not reached", 1, (), Failed(errors.ConnectFailed("no"), sent=False)
    yield (
        "unreadable",
        1,
        (),
        Failed(errors.FileError("changed", path=files[0].path, code=FailureCode.CHANGED), sent=False),
    )


# --- the client


def moves(world: World, left: Budget) -> Iterator[Move[World]]:
    """Yield all that can happen next: the driver's step, or an answer of each class, or a kill."""
    assert world.requests <= MOST_REQUESTS, "the run does not end"
    if world.over:
        check_end(world)
        return
    if world.state is None:
        yield next_group(world)
        return
    match world.wanted:
        case Ask():
            yield from posted(world, world.wanted)
        case Renew(_, error):
            session = 0 if world.renewed else world.session + 1
            came = Renewed(f"s{session}" if session else "", error)
            then = replace(world, session=session or world.session, renewed=True, tries=new_tries())
            yield Move("no other session" if world.renewed else "another session", fed(then, came))
        case Wait():
            yield Move("kill while waiting", killed(world), kills=1)
            yield Move("waited", fed(world, Waited()))
        case Retry(error):
            yield Move("again, or not", waited(world, error))
        case Hear() | Query() | Find():
            yield from looked(world, world.wanted)
        case End():
            yield Move("end of the request", ended(world, world.wanted))
            yield Move("kill before the receipts", killed(world), kills=1)


def next_group(world: World) -> Move[World]:
    if not world.groups:
        return Move("end of the run", replace(world, over=True))
    group, *rest = world.groups
    state = batch.BatchState(ENDPOINT, f"s{world.session}", "personal", group, paths=world.paths)
    begun = replace(world, state=state, groups=tuple(rest), tries=new_tries())
    return Move("request", fed(begun, Begin()))


def fed(world: World, came: Came) -> World:
    """Tell the machine what came, and journal what is certain, and what is not."""
    assert world.state is not None
    state, wanted = batch.step(world.state, came)
    journal = list(world.journal)
    for number in state.unsure ^ world.state.unsure:
        journal[number] = "uncertain" if number in state.unsure else "open"
    return replace(world, state=state, wanted=wanted, journal=tuple(journal))


def waited(world: World, error: errors.UploaderError) -> World:
    state, tries = world.state, copy(world.tries)
    assert state is not None
    assert tries is not None
    if tries.waited_out(error):
        return fed(replace(world, tries=tries), Waited())
    if not ends_run(error):
        return fed(world, GaveUp(error))
    _, end = batch.step(state, GaveUp(error))
    assert isinstance(end, End)
    end = End(tuple(result for result in end.results if result.error is not error))
    over = ended(replace(world, groups=()), end)
    return replace(over, ended=tuple(one or "not tried" for one in over.ended))


def posted(world: World, ask: Ask) -> Iterator[Move[World]]:
    assert "secret" not in repr(world.state)
    assert ask.files, "a request without files"
    assert ask.session == f"s{world.session}", "a request in another session"
    assert all(world.journal[file.file] == "open" for file in ask.files), "a request while its outcome is uncertain"
    assert fed(world, BodyOut()).wanted == ask, "another request than the one that is being sent"
    world = replace(world, requests=world.requests + 1)
    yield Move("kill before the request", killed(world), kills=1)
    for name, faults, stored, came in to_post(ask):
        copies = list(world.copies)
        for one in stored:
            if not (world.paths and one in copies):
                copies.append(one)
        is_out = not isinstance(came, Failed) or came.sent
        then = replace(
            fed(world, BodyOut()) if is_out else world,
            copies=tuple(sorted(copies)),
            faults=(*world.faults, name) if faults else world.faults,
        )
        yield Move(f"kill before {name}", killed(then), faults=faults, kills=1)
        yield Move(name, fed(then, came), faults, pair=("paths" if world.paths else "names", name))


def looked(world: World, wanted: Look) -> Iterator[Move[World]]:
    """Yield what the server says: nothing, or what it has; a server that does not answer is a fault."""
    where = "paths" if world.paths else "names"
    has = {file.name for file in world.files if file.name in world.copies}
    match wanted:
        case Find(files):
            there = tuple[FileResult | Literal[False], ...](
                FileResult(file) if file.name in has else False for file in files
            )
            yield Move("found", fed(world, Found(there)), pair=(where, "found"))
            silent = fed(replace(world, silenced=True), Found((None,) * len(files)))
            yield Move("no answer", silent, faults=1, pair=(where, "no answer"))
        case Hear(_, names):
            nothing = (None,) * len(names)
            yield Move("nothing was said", fed(world, Heard(nothing)), pair=(where, "nothing was said"))
            said = tuple(FileStatus(name, "completed") if name in has else None for name in names)
            if said != nothing:
                yield Move("said", fed(world, Heard(said)), pair=(where, "said"))
        case Query(session):
            heard = tuple(FileStatus(name, "uploading", 50.0) for name in sorted(has))
            progress = SessionProgress(session, Transport.HTTP, 50.0, "uploading", files=heard) if heard else None
            yield Move("progress", fed(world, Queried(progress)), pair=(where, "progress"))
            if progress is not None:
                then = replace(world, silenced=True)
                yield Move("no progress", fed(then, Queried(None)), faults=1, pair=(where, "no progress"))
            limited = fed(replace(world, silenced=True), Queried(None, limited=True))
            yield Move("limited", limited, faults=1, pair=(where, "limited"))


def ended(world: World, end: End) -> World:
    """Write receipts and put files back, as `BatchJob` and the steps after it do."""
    journal, ends, groups = list(world.journal), list(world.ended), list(world.groups)
    for result in end.results:
        number = result.file.file
        assert not ends[number], "a file has two ends"
        if result.error is None:
            assert result.file.name in world.copies, "confirmed, and not on the server"
            journal[number], ends[number] = "stored", "stored"
        else:
            ends[number] = "unknown" if isinstance(result.error, errors.OutcomeUnknown) else "failed"
            if ends[number] == "unknown":
                assert journal[number] == "uncertain", "an unknown outcome that a later run does not know of"
    for again in end.again:
        middle = (len(again.files) + 1) // 2
        halves = [again.files[:middle], again.files[middle:]]
        groups[:0] = halves if again.how is How.HALVED else [again.files]
    over = replace(world, journal=tuple(journal), ended=tuple(ends), groups=tuple(groups))
    if any(isinstance(result.error, errors.SessionLost) for result in end.results):
        left = {file.file for group in groups for file in group}
        over = replace(over, groups=(), ended=tuple("failed" if n in left else e for n, e in enumerate(ends)))
    return replace(over, state=None, wanted=None, tries=None)


def check_end(world: World) -> None:
    """Each file has one end, none is stored twice, and a run without faults ends well what is left."""
    assert all(world.ended), "a file has no end"
    for file, end in zip(world.files, world.ended, strict=True):
        assert end not in ("stored", "present") or file.name in world.copies, "confirmed, and not on the server"
    if not {"one missing", "no list"} & {*world.faults}:
        kept = {one for one, end in zip(world.journal, world.ended, strict=True) if end == "failed"}
        assert "uncertain" not in kept, "a failed file is not sent again by a later run"
    if world.runs == 1 and len(world.faults) < 2 and {*world.faults} <= RECOVERABLE:
        assert {*world.ended} <= {"stored", "present", "unknown"}, "a fault that passes makes a file fail"
    if not world.silenced:
        assert len(set(world.copies)) == len(world.copies), "a file is stored twice"
    if world.runs < 9:
        last = replace(killed(world), runs=9)
        while not last.over:
            last = next(move.world for move in moves(last, Budget(0, 0)) if not move.faults and not move.kills)
        assert set(last.ended) <= {"stored", "present", "unknown"}, "a later run does not store what is left"
        assert not world.paths or "unknown" not in last.ended, "what can be asked for is unknown"
