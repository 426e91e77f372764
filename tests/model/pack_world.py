"""Packs of the real machine against a model of the bundled server, the pacer's real decisions, and a small journal."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy
from functools import cache
from json import loads
from typing import Any

from model.exploring import Budget, Move
from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.packs import PackOffer
from uploader_cli.core.plan import LocalFile
from uploader_cli.core.presence import ClaimState
from uploader_cli.core.record import Record
from uploader_cli.core.sizes import PackSize
from uploader_cli.settings import Settings
from uploader_cli.transfer.answers import Answer, judged
from uploader_cli.transfer.budget import RateBudget
from uploader_cli.transfer.journal.reading import Claim, PendingUpload, pack_position
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Pacer, Stop, Tries
from uploader_cli.transfer.pack_job import packs_of
from uploader_cli.transfer.projections import is_forgotten
from uploader_cli.transfer.protocols import pack
from uploader_cli.transfer.protocols.machine import (
    Answered,
    Ask,
    Begin,
    Came,
    End,
    Failed,
    GaveUp,
    How,
    Named,
    NewKey,
    Renew,
    Renewed,
    Retry,
    Waited,
    Wanted,
)
from uploader_cli.transfer.results import FileResult

ENDPOINT = "https://up.example/api/upload/packs"
RETRIES = 1
MOST_REQUESTS = 60
POST = Ask("POST", ENDPOINT, "", pack.PACK_ERRORS)
GET = Ask("GET", ENDPOINT, "", pack.PACK_ERRORS, answers=pack.KNOWN)
"""What is a refusal of a request, and what an answer to it, does not depend on anything else."""
SIZE = PackSize(PackOffer(ENDPOINT, 100, 1 << 20, 1 << 20), "auto", 1)


class Kept(Record, frozen=True):
    """The answer that the server keeps for the key of a pack: the session, the digests, the state of each file."""

    session: str
    digests: tuple[str, ...]
    states: tuple[str, ...]


class PackServer(Record, frozen=True):
    """`copies` are stored files: path, digest, and the run that has sent each.

    `busy` is the key of the pack whose answer is not there yet, `ended` are sessions, `always` is the class of answer
    that the server gives from now on.
    """

    copies: tuple[tuple[str, str, int], ...] = ()
    kept: tuple[tuple[str, Kept], ...] = ()
    busy: str = ""
    ended: tuple[str, ...] = ()
    always: str = ""

    def has(self, file: LocalFile) -> bool:
        return any(one[:2] == (file.relative_path, digest_of(file)) for one in self.copies)


class Entry(Record, frozen=True):
    """What the journal has of a file: the key and position of its pack, or a receipt."""

    key: str = ""
    index: int = 0
    stored: bool = False


class Job(Record, frozen=True):
    files: tuple[LocalFile, ...]
    claims: tuple[tuple[str, int] | None, ...]
    sent_before: bool = False
    tries: int = 0
    singly: bool = False


class World(Record, frozen=True):
    """Everything: the server, the journal, and the run of the client. `state` None: the next job begins."""

    server: PackServer
    journal: tuple[Entry, ...]
    files: tuple[LocalFile, ...]
    session: str
    jobs: tuple[Job, ...] = ()
    earlier: tuple[str, ...] = ()
    state: pack.PackState | None = None
    wanted: Wanted | None = None
    tries: Tries | None = None
    ended: tuple[str, ...] = ()
    renewed: bool = False
    doubt: bool = False  # whether the server may have the pack
    asked: tuple[str, ...] = ()  # the sessions in which its answer was requested since
    faults: tuple[str, ...] = ()  # of this run
    method: str = ""  # that of the last request
    keys: int = 0
    sessions: int = 1
    requests: int = 0
    runs: int = 1
    over: bool = False


def digest_of(file: LocalFile) -> str:
    return f"digest of {file.relative_path}"


def first_world(names: str) -> World:
    files = tuple(LocalFile(n, f"/{name}", name, 1, 1) for n, name in enumerate(names))
    journal = tuple(Entry() for _ in files)
    return begin_run(World(PackServer(), journal, files, "s1"))


def begin_run(world: World) -> World:
    """Claim the files that have no receipt which the server confirms, and group them as a run does."""
    entries, claimed, keys = list(world.journal), [], world.keys
    for file in world.files:
        entry = entries[file.file]
        if entry.stored and world.server.has(file):
            continue
        if entry.stored or not entry.key:
            entries[file.file] = entry = Entry(f"k{keys + 1}", file.file)
            claimed.append((file, Claim(ClaimState.NEW, PendingUpload(f"{entry.key}:{entry.index}"))))
        else:
            claimed.append((file, Claim(ClaimState.RESUME, PendingUpload(f"{entry.key}:{entry.index}"))))
    jobs = tuple(
        Job(
            tuple(file for file, _ in group),
            tuple(pack_position(claim) for _, claim in group),
            all(claim.state is ClaimState.RESUME for _, claim in group),
        )
        for group in packs_of(claimed, SIZE)
        if isinstance(group, list)
    )
    ended = tuple("" if any(file is one for one, _ in claimed) else "present" for file in world.files)
    return replace(world, journal=tuple(entries), jobs=jobs, ended=ended, keys=keys + 1, state=None, wanted=None)


def killed(world: World, missing: int = 0) -> World:
    """Kill the client, and begin another run that resumes it; `missing` receipts of the last ones are lost."""
    journal, lost = list(world.journal), missing
    for number in reversed(range(len(journal))):
        if lost and journal[number].stored:
            journal[number], lost = replace(journal[number], stored=False), lost - 1
    return begin_run(
        replace(
            world,
            journal=tuple(journal),
            earlier=(*world.earlier, world.session),
            session=f"s{world.sessions + 1}",
            sessions=world.sessions + 1,
            renewed=False,
            requests=0,
            faults=(),
            server=replace(world.server, always=""),
            runs=world.runs + 1,
            over=False,
        )
    )


def new_tries(retries: int = RETRIES) -> Tries:
    stop = Stop()
    stop.sleep = lambda seconds: None  # type: ignore[method-assign]
    settings = Settings(server=ENDPOINT, retries=retries)
    pacer = Pacer(stop, RateBudget(), settings, lambda _event: None, refresh=lambda: True, clock=lambda: 0.0)
    pacer.budget.answered = True
    return Tries(pacer, pacer.retries, sleep=lambda _seconds: None)


def key_of(world: World) -> Hashable:
    tries = world.tries
    used = tries and [value for value in vars(tries).values() if isinstance(value, int | float)]
    return repr((replace(world, tries=None, requests=0), used))


# --- the server


def post(server: PackServer, ask: Ask, run: int, *, refuses: str = "") -> tuple[PackServer, Kept | None]:
    """Store a pack, unless its key has an answer already. `refuses`: the state of the first file instead."""
    assert ask.body is not None
    key, manifest = ask.headers["Idempotency-Key"], loads(ask.body.manifest)
    digests = tuple(file["sha256"] for file in manifest["files"])
    known = dict(server.kept).get(key)
    if known is not None:
        return server, known if known.digests == digests else None
    states, copies = [], list(server.copies)
    for number, file in enumerate(manifest["files"]):
        one = file["relativePath"], file["sha256"]
        if refuses and not number:
            states.append(refuses)
            continue
        there = any(copy[:2] == one for copy in copies)
        states.append("existing" if there else "stored")
        if not there:
            copies.append((*one, run))
    kept = Kept(ask.session, digests, tuple(states))
    return replace(server, copies=tuple(sorted(copies)), kept=(*server.kept, (key, kept)), busy=""), kept


def files_in(ask: Ask) -> int:
    """Return the number of files in a pack."""
    assert ask.body is not None
    return len(loads(ask.body.manifest)["files"])


def body_of(kept: Kept) -> dict[str, object]:
    said: dict[str, dict[str, object]] = {
        "stored": {"status": "stored", "id": "id", "location": "there"},
        "existing": {"status": "stored", "id": "id", "location": "there", "existing": True},
        "refused": {"status": "failed", "error": "INVALID", "message": "no"},
        "later": {"status": "failed", "error": "BUSY", "message": "later", "retryable": True},
    }
    return {"files": [said[state] for state in kept.states]}


def answer(status: int, code: str = "", body: object = None) -> Answer:
    said = {"error": code, "message": "no"} if code else body
    headers = {"Retry-After": "200"} if status in (409, 429) else {}
    return Answer(status, headers, said, ENDPOINT, plain="" if said is not None else "a gateway")


@cache
def refusal(status: int, code: str, method: str) -> Came:
    """Return what comes of a refusal, for all worlds."""
    return told(answer(status, code), POST if method == "POST" else GET)


def told(given: Answer, ask: Ask) -> Came:
    try:
        judged(given, ask)
    except errors.UploaderError as error:
        return Failed(error, sent=True)
    return Answered(given.status, given.body)


REFUSALS = {
    "401": (401, ""),
    "403": (403, ""),
    "404": (404, ""),
    "405": (405, ""),
    "408": (408, ""),
    "413": (413, ""),
    "422": (422, ""),
    "KEY_REUSED": (422, "KEY_REUSED"),
    "429": (429, ""),
    "PACK_IN_PROGRESS": (409, "PACK_IN_PROGRESS"),
    "500 before": (500, "INTERNAL"),
    "502 before": (502, ""),
    "503 before": (503, ""),
    "SESSION_NOT_FOUND": (404, "SESSION_NOT_FOUND"),
    "SESSION_ENDED": (409, "SESSION_ENDED"),
    "NOT_YOURS": (403, "NOT_YOURS"),
}
"""Answers before anything is done."""
SESSION_LOST = ("SESSION_NOT_FOUND", "SESSION_ENDED")
DOUBTFUL = ("lost after", "lost before", "late", "PACK_IN_PROGRESS")
"""After these the server may have the whole pack, and its answer costs no bytes."""
FETCH_REFUSALS = [name for name in REFUSALS if name not in ("404", "405", "408", "413", "422", "KEY_REUSED")]
"""Those that also a request for an answer may get; 404 says that there is none."""


RECOVERABLE = {*REFUSALS, "500 after", "502 after", "lost after", "lost before", "cut", "not reached", "late", "lost"}
RECOVERABLE |= {"cut as too large", "one later", "forgotten", "of other files"}
RECOVERABLE -= {"401", "403", "422"}
"""After one of these the same run stores all files. (Of 401 the second one ends the run.)"""
REPLACED = {"404", "405", "408", "413", "500 before", "500 after", "502 before", "502 after", "503 before"}
REPLACED |= {"cut as too large"}
"""After these it does so however often they come: the files are sent in smaller packs, or without."""


def to_post(world: World, ask: Ask) -> Iterator[tuple[str, int, PackServer, Came]]:
    """Yield what can come of a request with a pack: the class of answer, faults, the server then, what comes."""
    server, run = world.server, world.runs
    key = ask.headers["Idempotency-Key"]
    assert ask.body is not None
    assert files_in(ask), "a pack without files"
    done, kept = post(server, ask, run)
    if kept is None:  # the first files of a pack are left of an earlier run: the journal does not say how many it had
        digests = tuple(file["sha256"] for file in loads(ask.body.manifest)["files"])
        assert dict(server.kept)[key].digests[: len(digests)] == digests, "the key of a pack is used for other files"
        yield "the key of more files", 0, server, refusal(422, "KEY_REUSED", "POST")
        return
    good = answer(200, body=body_of(kept))
    yield "ok", 0, done, told(good, ask)
    for name, (status, code) in REFUSALS.items():
        ended = (*server.ended, ask.session) if name in SESSION_LOST else server.ended
        yield name, 1, replace(server, ended=ended), refusal(status, code, ask.method)
    for name, status in (("500 after", 500), ("502 after", 502)):
        yield name, 1, done, refusal(status, "INTERNAL" if status == 500 else "", ask.method)
    yield "lost after", 1, done, Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "lost before", 1, server, Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "cut", 1, server, Failed(errors.ConnectionLost("cut", body_sent=False), sent=False)
    if files_in(ask) > 1:
        yield "cut as too large", 1, server, Failed(errors.ConnectionLost("cut", body_sent=False), sent=False)
    yield "not reached", 1, server, Failed(errors.ConnectFailed("no"), sent=False)
    yield "late", 1, replace(done, busy=key), Failed(errors.TimedOut("late", body_sent=True), sent=True)
    yield "no files in it", 1, done, told(answer(200, body={"files": []}), ask)
    for how in ("refused", "later"):
        then, kept = post(server, ask, run, refuses=how)
        if kept is not None and how in kept.states:
            yield f"one {how}", 1, then, told(answer(200, body=body_of(kept)), ask)


def to_get(world: World, ask: Ask) -> Iterator[tuple[str, int, PackServer, Came]]:
    """Yield what can come of a request for the answer to a pack."""
    server, key = world.server, ask.url.rpartition("/")[2]
    kept = dict(server.kept).get(key)
    if server.busy == key:
        yield "still in progress", 1, server, refusal(409, "PACK_IN_PROGRESS", ask.method)
        server = replace(server, busy="")
    if kept is None:
        yield "none", 0, server, refusal(404, "NOT_FOUND", ask.method)
    elif kept.session != ask.session:
        yield "of another session", 0, server, refusal(403, "NOT_YOURS", ask.method)
    else:
        yield "ok", 0, server, told(answer(200, body=body_of(kept)), ask)
        forgotten = tuple(one for one in server.kept if one[0] != key)
        yield "forgotten", 1, replace(server, kept=forgotten), refusal(404, "NOT_FOUND", ask.method)
        yield "of other files", 1, server, told(answer(200, body={"files": []}), ask)
    for name in FETCH_REFUSALS:
        ended = (*server.ended, ask.session) if name in SESSION_LOST else server.ended
        yield name, 1, replace(server, ended=ended), refusal(*REFUSALS[name], ask.method)
    yield "lost", 1, server, Failed(errors.ConnectionLost("lost", body_sent=True), sent=True)
    yield "late", 1, server, Failed(errors.TimedOut("late", body_sent=True), sent=True)


def coming(world: World, ask: Ask, left: Budget) -> Iterator[tuple[str, int, PackServer, Came]]:
    """Yield what can come of a request; a fault may also come always from now on."""
    if ask.method == "POST" and ask.session in world.server.ended:
        yield "an ended session", 0, world.server, refusal(404, "SESSION_NOT_FOUND", ask.method)
        return
    possible = list((to_post if ask.method == "POST" else to_get)(world, ask))
    if not left.faults and not world.server.always:
        possible = [one for one in possible if not one[1]]
    always = world.server.always
    if always in {name for name, *_ in possible}:
        yield from ((name, 0, server, came) for name, _, server, came in possible if name == always)
        return
    yield from possible
    if not always:
        for name, faults, server, came in possible:
            if faults:
                yield f"{name}, always", 1, replace(server, always=name), came


# --- the client


def moves(world: World, left: Budget) -> Iterator[Move[World]]:
    """Yield all that can happen next: the driver's step, or an answer of each class, or a kill."""
    assert world.requests <= MOST_REQUESTS, "the run does not end"
    if world.over:
        check_end(world)
        return
    if world.state is None:
        yield from next_job(world)
        return
    wanted = world.wanted
    match wanted:
        case Ask():
            yield from asked(world, wanted, left)
        case Retry(error):
            yield waited(world, error)
        case NewKey():
            key, entries = f"k{world.keys + 1}", list(world.journal)
            for index, file in enumerate(world.state.files):
                entries[file.file] = Entry(key, index)
            named = replace(world, doubt=False, keys=world.keys + 1, journal=tuple(entries), tries=new_tries())
            yield told_machine(named, Named(key), "new key")
        case Renew(_, error):
            if world.renewed:
                yield told_machine(world, Renewed("", error), "no other session")
                return
            session = f"s{world.sessions + 1}"
            again = replace(
                world, session=session, asked=(), sessions=world.sessions + 1, renewed=True, tries=new_tries()
            )
            yield told_machine(again, Renewed(session, error), "another session")
        case End():
            move = ended(world, wanted)
            yield move
            stored = sum(result.error is None for result in wanted.results)
            for missing in range(stored + 1 if left.kills else 0):
                yield Move(f"kill, and {missing} receipts are lost", killed(move.world, missing), kills=1)


def waited(world: World, error: errors.UploaderError) -> Move[World]:
    tries = copy(world.tries)
    assert tries is not None
    if tries.waited_out(error):
        return told_machine(replace(world, tries=tries), Waited(), "again")
    if ends_run(error):
        ends = tuple(end or "not tried" for end in world.ended)
        return Move("end of the run", replace(world, state=None, jobs=(), ended=ends))
    return told_machine(world, GaveUp(error), "given up")


def told_machine(world: World, came: Came, label: str) -> Move[World]:
    assert world.state is not None
    state, wanted = pack.step(world.state, came)
    return Move(label, replace(world, state=state, wanted=wanted))


def next_job(world: World) -> Iterator[Move[World]]:
    if not world.jobs:
        yield Move("end of the run", replace(world, over=True))
        return
    job, *rest = world.jobs
    world = replace(world, jobs=tuple(rest))
    if job.singly:  # by tus, which finds an equal file
        server, ends = world.server, list(world.ended)
        entries = list(world.journal)
        for file in job.files:
            one = file.relative_path, digest_of(file), world.runs
            if not server.has(file):
                server = replace(server, copies=tuple(sorted([*server.copies, one])))
            entries[file.file], ends[file.file] = Entry(stored=True), "stored"
        yield Move("by tus", replace(world, server=server, journal=tuple(entries), ended=tuple(ends)))
        return
    yield begun(world, job, job.files)
    ends = list(world.ended)
    ends[job.files[0].file] = "failed"
    changed = replace(world, ended=tuple(ends), faults=(*world.faults, "unreadable"))
    yield begun(changed, job, job.files[1:])._replace(label="the first file can't be read", faults=1)


def begun(world: World, job: Job, files: tuple[LocalFile, ...]) -> Move[World]:
    """Begin the machine with the files of a job that were read."""
    if not files:
        return Move("no file can be read", replace(world, state=None))
    digests = tuple(digest_of(file) for file in files)
    state = pack.PackState(
        ENDPOINT, world.session, files, digests, earlier=world.earlier, tries=job.tries, retries=RETRIES
    )
    if job.claims:
        state = pack.begin(state, job.claims, sent_before=job.sent_before)
    return told_machine(
        replace(world, state=state, tries=new_tries(), doubt=state.sent_before, asked=()), Begin(), "job"
    )


def asked(world: World, ask: Ask, left: Budget) -> Iterator[Move[World]]:
    state = world.state
    assert state is not None
    assert "secret" not in repr(state)
    kind = f"{ask.method}{' again' if state.in_doubt else ' resumed' if state.sent_before else ''}"
    assert ask.method == "POST" or world.doubt, "a request for the answer to a pack that was never sent"
    if ask.method == "POST" and world.doubt:
        kept = dict(world.server.kept).get(state.key)
        known = kept is not None and kept.session in {*world.earlier, world.session} - {*world.asked}
        assert not known, "a pack is sent again, and its answer was not requested"
    world = replace(world, requests=world.requests + 1, method=ask.method)
    yield Move("kill before the request", killed(world), kills=1)
    came: Came
    for name, faults, server, came in coming(world, ask, left):
        pair = (kind, name.removesuffix(", always"))
        doubtful = ask.method == "POST" and pair[1] in DOUBTFUL
        hears = ask.method == "GET" and isinstance(came, Answered)
        then = replace(
            world,
            server=server,
            doubt=doubtful or (world.doubt and pair[1] not in ("none", "forgotten")),
            asked=() if doubtful else (*world.asked, ask.session) if hears else world.asked,
            faults=(*world.faults, name) if faults else world.faults,
        )
        if name == "ok" and ask.method == "POST":
            yield Move("kill before the answer", killed(then), kills=1, pair=(kind, "kill"))
        next_state, wanted = pack.step(state, came)
        yield Move(name, replace(then, state=next_state, wanted=wanted), faults, pair=pair)


def ended(world: World, end: End) -> Move[World]:
    """Write receipts and queue jobs, as `PackJob` and the steps after it do."""
    entries, ends, jobs = list(world.journal), list(world.ended), list(world.jobs)
    if any(result.error is None for result in end.results):
        assert end.fetched == (world.method == "GET"), "the session counts these files, or another one does"
    for result in end.results:
        check_result(world, result)
        number = result.file.file
        assert not ends[number], "a file has two ends"
        ends[number] = "stored" if result.error is None else "failed"
        if result.error is None:
            entries[number] = replace(entries[number], stored=True)
        elif is_forgotten(result.error):
            entries[number] = Entry()
    later = list[Any]()
    for again in end.again:
        middle = len(again.files) // 2
        match again.how:
            case How.SINGLY:
                assert world.state is None or world.server.busy != world.state.key, "the server is storing it"
                jobs.insert(0, Job(again.files, (), singly=True))
            case How.HALVED:
                jobs[:0] = [Job(again.files[:middle], ()), Job(again.files[middle:], ())]
            case How.LATER:
                later += again.files
    if later:
        assert world.state is not None
        jobs.insert(0, Job(tuple(later), (), tries=world.state.tries + end.again[-1].counts))
    ended_world = replace(
        world, journal=tuple(entries), ended=tuple(ends), jobs=tuple(jobs), state=None, wanted=None, tries=None
    )
    return Move("end of the job", ended_world)


def check_result(world: World, result: FileResult) -> None:
    if result.error is None:
        assert world.server.has(result.file), "confirmed, and not on the server"
        assert result.checksum == digest_of(result.file)
        by = next(run for path, _, run in world.server.copies if path == result.file.relative_path)
        assert not result.new or by == world.runs, "new, and an earlier run has sent it"


def check_end(world: World) -> None:
    """Each file has one end; and a run without faults stores what is left, once."""
    assert all(world.ended), "a file has no end"
    once = len(world.faults) < 2 and {*world.faults} <= RECOVERABLE
    once &= world.runs == 1 or world.faults != ("KEY_REUSED",)  # the first files of a pack had another key already
    if once or {fault.removesuffix(", always") for fault in world.faults} <= REPLACED:
        assert {*world.ended} <= {"stored", "present"}, "a fault that passes makes a file fail"
    for file, end in zip(world.files, world.ended, strict=True):
        assert end not in ("stored", "present") or world.server.has(file)
    if world.runs < 9:
        last = replace(killed(world), runs=9)
        while not last.over:
            last = next(move.world for move in moves(last, Budget(0, 0)) if not move.faults and not move.kills)
        assert set(last.ended) <= {"stored", "present"}, "a later run does not store what is left"
        assert len(last.server.copies) == len(world.files), "a file is stored twice"
