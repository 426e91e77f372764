"""One upload of the real machine, with the real words of tus and of the IETF's draft, against models of servers.

A file has six bytes, which are sent in three chunks; the content of every upload is known, so "confirmed" can be
compared with what the server has.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy
from functools import cache
from typing import Any, NamedTuple

from model.exploring import Budget, Move
from model.pack_world import new_tries
from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.capabilities import Capabilities
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.confirmation import UNCERTAIN, KnownBy, Reading, UploadState, read_state
from uploader_cli.core.plan import ENDLESS
from uploader_cli.core.record import Record
from uploader_cli.core.terms import Terms
from uploader_cli.transfer.answers import Answer
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.projections import is_forgotten
from uploader_cli.transfer.protocols import dialect, upload
from uploader_cli.transfer.protocols.ietf_dialect import IetfDialect
from uploader_cli.transfer.protocols.machine import (
    Append,
    Begin,
    Call,
    Came,
    Create,
    Done,
    Failed,
    GaveUp,
    Locate,
    Named,
    NewKey,
    Position,
    Read,
    ReadBack,
    ReadLast,
    Ready,
    Recall,
    Recalled,
    Retry,
    Told,
    Waited,
    Wanted,
)
from uploader_cli.transfer.protocols.tus_dialect import TusDialect

ENDPOINT = "https://up.example/files/"
CONTENT = "abcdef"
CHUNK = 2
MOST_REQUESTS = 60
TUS = {"Tus-Resumable": "1.0.0"}
PROBLEM = {"Content-Type": "application/problem+json"}
SECRET = "secret-of-a-session"


class Case(NamedTuple):
    """A server and a file. `kind`: bundled, finishes (late, and may fail), forgets (what it has stored), ietf."""

    kind: str
    file: str
    resends: bool = False

    @property
    def content(self) -> str:
        return "" if self.file == "empty" else CONTENT

    @property
    def is_ours(self) -> bool:
        return self.kind == "bundled"


class Held(Record, frozen=True):
    """An upload on a server: open, stored, failed, or finishing: it is stored when nobody looks."""

    url: str
    key: str
    length: int | None
    data: str = ""
    state: str = "open"

    @property
    def is_full(self) -> bool:
        return self.length is not None and len(self.data) == self.length


class Server(Record, frozen=True):
    """`held` are uploads, `stored` the contents of files with the URLs of their uploads."""

    held: tuple[Held, ...] = ()
    stored: tuple[tuple[str, str], ...] = ()
    made: int = 0

    def at(self, url: str) -> Held | None:
        return next((one for one in self.held if one.url == url), None)

    def holding(self, one: Held) -> Server:
        return replace(self, held=(*(other for other in self.held if other.url != one.url), one))

    def without(self, url: str) -> Server:
        return replace(self, held=tuple(one for one in self.held if one.url != url))

    def deleted(self, url: str) -> Server:
        return replace(self.without(url), stored=tuple(one for one in self.stored if one[0] != url))

    def storing(self, one: Held, *, forgets: bool) -> Server:
        stored = replace(self, stored=(*self.stored, (one.url, one.data)))
        return stored.without(one.url) if forgets else stored.holding(replace(one, state="stored"))


class Entry(Record, frozen=True):
    """What the journal has of the file. `claimed`: an earlier run may have sent its key."""

    key: str = ""
    kept: upload.Kept = upload.Kept()
    replaced: tuple[str, ...] = ()
    claimed: bool = False
    receipt: bool = False


class World(Record, frozen=True):
    """Everything. `mark` is the offset that the next progress exceeds; `end` is how the file ended in this run."""

    case: Case
    server: Server = Server()
    entry: Entry = Entry()
    state: upload.Upload | None = None
    wanted: Wanted | None = None
    tries: Tries | None = None
    mark: int = -1
    known: dialect.Known = dialect.Known()
    end: str = ""
    error: errors.UploaderError | None = None
    faults: tuple[str, ...] = ()
    said: tuple[bool, ...] = ()  # whether creations with bytes were answered as new
    warned: bool = False  # that the file may be stored twice
    keys: int = 0
    requests: int = 0
    runs: int = 1


# --- what is agreed


@cache
def terms_of(case: Case) -> Terms:
    if case.is_ours:
        extensions = frozenset(("creation", "checksum", "termination", "creation-defer-length", "creation-with-upload"))
        return Terms(tus=Capabilities(ENDPOINT, extensions, frozenset(("crc32c",))), checksum="crc32c")
    if case.kind == "ietf":
        tus = Capabilities.of_ietf(ENDPOINT, None, 10 if case.file == "small" else None)
    else:
        extensions = frozenset(("creation", "termination", "creation-defer-length", "creation-with-upload"))
        tus = Capabilities(ENDPOINT, extensions)
    is_ietf = case.kind == "ietf"
    foreign: dict[str, Any] = {
        "sessions": False,
        "keys": False,
        "tells_stored": False,
        "strict": False,
        "trusts_checksums": False,
    }
    return Terms(tus=tus, may_forget=is_ietf, **foreign)


@cache
def dialect_of(case: Case) -> dialect.Dialect:
    server = dialect.Server(ENDPOINT, terms_of(case), option="--tus-endpoint")
    return IetfDialect(server) if case.kind == "ietf" else TusDialect(server)


def begin_run(world: World) -> World:
    """Claim the file, and build the machine from what the journal has of it."""
    case, entry = world.case, world.entry
    world = replace(world, known=dialect.Known(), faults=(), requests=0, error=None, end="")
    world = replace(world, said=() if case.file == "first" else (True,))
    if entry.receipt:
        return replace(world, state=None, wanted=None, end="present")
    if not entry.key:
        world = replace(world, entry=replace(entry, key=f"k{world.keys + 1}", kept=upload.Kept()), keys=world.keys + 1)
    claimed, terms = entry.claimed, terms_of(case)
    kept = world.entry.kept
    if kept.url is None:
        kept = replace(kept, sent_until=None)
    if terms.sessions:  # the key is used instead of the URL
        kept = replace(kept, url=None)
    size = ENDLESS if case.file == "stream" else len(case.content)
    assert terms.tus is not None
    task = upload.Task(
        terms,
        terms.tus,
        "a",
        checksum=terms.checksum,
        stream=case.file == "stream",
        resumes=claimed,
        resends=case.resends,
    )
    world = replace(world, entry=replace(world.entry, claimed=True), tries=FRESH, mark=-1)
    return fed(replace(world, state=upload.begin(upload.Upload(task, world.entry.key, size), kept)), Begin())


def first_world(case: Case) -> World:
    return begin_run(World(case))


def killed(world: World) -> World:
    """Kill the client, and begin another run that resumes it. A stream can't be sent again.

    No entry is written for a creation with all bytes: a server without keys may store its file twice
    (docs/tus-servers.md, "When a file counts as stored").
    """
    server, kept = world.server, world.entry.kept
    if world.case.file == "stream":
        return replace(world, state=None, wanted=None, tries=None, end="gone")
    for one in server.held:
        if one.state == "finishing":
            server = server.storing(one, forgets=world.case.kind == "forgets")
    blind = bool(server.stored) and kept.url is None and kept.ending not in UNCERTAIN
    blind = blind and not terms_of(world.case).keys
    return begin_run(replace(world, server=server, warned=world.warned or blind, runs=world.runs + 1))


FRESH = new_tries()  # copied before each use
FIELDS = [name for name in upload.Upload.__struct_fields__ if name not in ("terms", "capabilities", "name", "warnings")]


def key_of(world: World) -> Hashable:
    tries, state = world.tries, world.state
    used = tries and [value for value in vars(tries).values() if isinstance(value, int | float)]
    inside = state and [getattr(state, name) for name in FIELDS]
    first = world.faults if world.runs == 1 and len(world.faults) < 2 else None  # what `check_end` looks at
    rest = world.wanted, world.mark, world.known, world.end, world.error, first, world.said, world.warned, world.keys
    return world.server, world.entry, repr((rest, inside, used))


# --- the server


Given = Answer | errors.UploaderError


class Outcome(NamedTuple):
    """The class of an answer, what it costs, the server then, and the answer, or the failure in its place."""

    name: str
    faults: int
    server: Server
    came: Given
    sent: int | None = None  # bytes of the body; None: all


def answered(case: Case, status: int, headers: dict[str, str] | None = None, *, gateway: bool = False) -> Answer:
    own = {} if gateway else PROBLEM if case.kind == "ietf" and status >= 400 else {} if case.kind == "ietf" else TUS
    retry = {"Retry-After": "200"} if status == 429 else {}
    return Answer(status, {**own, **retry, **(headers or {})}, None, ENDPOINT)


def position(case: Case, status: int, one: Held) -> Answer:
    headers = {"Upload-Offset": str(len(one.data))}
    if status == 201:
        headers["Location"] = one.url
    if case.kind == "ietf":
        headers["Upload-Complete"] = "?1" if one.state == "stored" else "?0"
    if status == 200:
        headers |= {"Upload-Defer-Length": "1"} if one.length is None else {"Upload-Length": str(one.length)}
    return answered(case, status, headers)


def processed(case: Case, server: Server, call: Call, data: str) -> tuple[Server, Answer, Held | None]:
    """Return what a server does without a fault: it, its answer, and the upload that is full and not finished."""
    match call:
        case Create() as new:
            key = new.metadata.get("uploadKey", "")
            one = next((held for held in server.held if case.is_ours and held.key == key), None)
            if one is not None:
                return server, position(case, 201, one), None
            one = Held(f"{ENDPOINT}{server.made + 1}", key, new.length, data)
            server = replace(server.holding(one), made=server.made + 1)
            is_full = one.is_full and (bool(data) or case.is_ours)
            return server, position(case, 201, one), one if is_full else None
        case Append():
            one = server.at(call.url)
            if one is None:
                return server, answered(case, 404), None
            length = call.length if one.length is None else one.length
            if call.offset != len(one.data):
                return server, answered(case, 409), None
            one = replace(one, data=one.data + data, length=length)
            if case.kind == "ietf":
                ends = call.length is not None and call.offset + call.size == call.length
                return server.holding(one), position(case, 204, one), one if ends and one.state == "open" else None
            return server.holding(one), position(case, 204, one), one if one.is_full and one.state == "open" else None
        case Locate(url):
            one = server.at(url)
            return server, answered(case, 404) if one is None else position(case, 200, one), None


def served(case: Case, server: Server, call: Call, data: str) -> tuple[Server, Answer]:
    """Return a server that does, and finishes, what it is asked, and its answer."""
    done, answer, full = processed(case, server, call, data)
    if full is None:
        return done, answer
    stored = done.storing(full, forgets=case.kind in ("forgets", "ietf"))
    return stored, position(case, answer.status, replace(full, state="stored"))


REFUSED = {
    "400": (400, False),
    "401": (401, False),
    "403": (403, False),
    "403 gateway": (403, True),
    "404": (404, False),
    "409": (409, False),
    "413": (413, False),
    "423": (423, False),
    "429": (429, False),
    "460": (460, False),
    "500 before": (500, False),
    "502 before": (502, True),
}
"""Answers before anything is done, and whether a gateway gives them."""
ASKED = ("401", "403 gateway", "423", "429", "500 before", "502 before")
"""Those that also a question for the offset may get."""


def outcomes(world: World, call: Call, data: str, faults: int) -> Iterator[Outcome]:
    """Yield what can come of a request, without `faults` only what comes of it usually."""
    case, server = world.case, world.server
    lost = errors.ConnectionLost("lost", body_sent=True)
    late = errors.TimedOut("late", body_sent=True)
    done, _, full = processed(case, server, call, data)
    good, answer = served(case, server, call, data)
    yield Outcome("ok", 0, good, answer)
    if not faults:
        return
    asks = isinstance(call, Locate)
    for name, (status, gateway) in REFUSED.items():
        name = "no route" if status == 404 and isinstance(call, Create) else name
        if (not asks or name in ASKED) and (name != "460" or isinstance(call, Append)):
            yield Outcome(name, 1, server, answered(case, status, gateway=gateway))
    yield Outcome("not reached", 1, server, errors.ConnectFailed("no"), 0)
    yield Outcome("lost before", 1, server, lost)
    yield Outcome("late, and not done", 1, server, late)
    if not asks:
        yield Outcome("lost after", 1, good, lost)
        yield Outcome("late, and done", 1, good, late)
        yield Outcome("502 after", 1, good, answered(case, 502, gateway=True))
        if full is None or case.is_ours:
            yield Outcome("500 after", 1, good, answered(case, 500))
    for kept in range(len(data)) if not case.is_ours else [0] if data else []:  # a chunk with a checksum is one
        part, _, _ = processed(case, server, call, data[:kept])
        name = "cut, a part is kept" if kept else "cut, nothing is kept"
        yield Outcome(name, 1, part, errors.ConnectionLost("cut", body_sent=False), kept)
    if isinstance(call, Append) and (full is None or case.is_ours):
        wrong = {**answer.headers, "Upload-Offset": str(call.offset + len(data) + 1)}
        yield Outcome("a wrong offset", 1, good, Answer(answer.status, wrong, None, ENDPOINT))
    if isinstance(call, Append) and len(data) > 1 and not case.is_ours:
        part, early, _ = processed(case, server, call, data[:1])
        yield Outcome("answered early", 1, part, early, 1)
    if isinstance(call, Create) and len(data) > 1 and case.kind == "ietf":
        yield Outcome("answered early", 1, server, answered(case, 201), 1)
    if full is not None and not case.is_ours:
        failed = done.holding(replace(full, state="open" if case.kind == "ietf" else "failed"))
        yield Outcome("finish refuses", 1, failed, answered(case, 400))
        yield Outcome("finish fails", 1, failed, answered(case, 500))
        yield Outcome("finish hangs and fails", 1, failed, late)
        yield Outcome("finish fails behind a gateway", 1, failed, answered(case, 504, gateway=True))
        yield Outcome("finish is lost and fails", 1, failed, lost)
        if case.kind != "ietf":
            unfinished = done.holding(replace(full, state="finishing"))
            yield Outcome("finish is late", 1, unfinished, late)
    yield from happened(world, call, data)


def happened(world: World, call: Call, data: str) -> Iterator[Outcome]:
    """Yield what comes of a request if something has happened to the upload before."""
    case, server = world.case, world.server
    one = None if isinstance(call, Create) else server.at(call.url)
    if one is None or one.state != "open":
        return
    others = {"expired": server.without(one.url)}
    if one.data and "x" not in one.data:
        others["a byte is lost"] = server.holding(replace(one, data=one.data[:-1]))
    reach = world.state.reach if world.state is not None else 0
    is_foreign = not terms_of(case).sessions  # a session has a secret, which strangers don't know
    if is_foreign and len(one.data) <= reach < len(case.content) and one.length is not None:
        others["a stranger writes"] = server.holding(replace(one, data=one.data.ljust(reach + 1, "x")))
    for name, then in others.items():
        after, answer, full = processed(case, then, call, data)
        if full is None:
            yield Outcome(name, 1, after, answer)


# --- the client


RECOVERABLE = {"401", "404", "409", "423", "429", "460", "500 before", "500 after", "502 before", "502 after"}
RECOVERABLE |= {"not reached", "lost before", "lost after", "late, and done", "late, and not done"}
RECOVERABLE |= {"a wrong offset", "answered early"}
RECOVERABLE |= {"cut, nothing is kept", "cut, a part is kept", "a byte is lost", "expired", "a stranger writes"}
"""After one of these the same run stores the file, or can't know."""


def moves(world: World, left: Budget) -> Iterator[Move[World]]:
    """Yield all that can happen next: the driver's step, or an answer of each class, or a kill."""
    assert world.requests <= MOST_REQUESTS, "the run does not end"
    if world.end:
        check_end(world)
        return
    wanted, state = world.wanted, world.state
    assert state is not None
    match wanted:
        case Create():
            yield from asked(world, replace(wanted, metadata={"uploadKey": wanted.key}, path="a"), left)
        case Locate():
            yield from asked(world, wanted, left)
        case Append():
            checksum = "crc32c AAAA" if state.task.checksum else None
            yield from asked(world, replace(wanted, checksum=checksum), left)
        case ReadLast(found):
            is_there = any(url == found.url for url, _ in world.server.stored)
            said = Reading.STORED if is_there else Reading.MISSING
            means = read_state([said], tells=False) or UploadState.UNKNOWN
            yield Move("read", fed(world, ReadBack(means)), pair=("ReadLast", said.name.lower()))
            silent = fed(world, ReadBack(UploadState.UNKNOWN))
            yield Move("no reading", silent, faults=1, pair=("ReadLast", "silent"))
            lost = fed(world, Failed(errors.ConnectionLost("lost", body_sent=True)))
            yield Move("the reading is lost", lost, faults=1, pair=("ReadLast", "lost"))
        case Done():
            over = ended(world, wanted)
            yield Move("end", over)
            if left.kills:
                yield Move("kill before the receipt", killed(world), kills=1)
            if left.kills and over.entry.receipt:
                yield Move("kill, and the receipt is lost", killed(replace(over, entry=world.entry)), kills=1)


def prepared(world: World, offset: int) -> Ready:
    """Return the next chunk; the end of a stream is found when nothing more comes."""
    case, size = world.case, len(world.case.content)
    length = min(CHUNK, size - offset)
    if case.file == "stream":
        return Ready(length, size if not length else ENDLESS)
    in_one = case.file in ("small", "first", "empty") and (case.kind != "ietf" or case.file == "small")
    known = terms_of(case).keys or world.said == (True,)
    return Ready(length, size, (size if known else size - (size > 0)) if in_one else None)


def asked(world: World, call: Call, left: Budget) -> Iterator[Move[World]]:
    """Send one request; the requests that follow an answer without an offset meet no fault."""
    case = world.case
    data, completes = "", False
    if not isinstance(call, Locate):
        start = call.offset if isinstance(call, Append) else 0
        data, completes = case.content[start : start + call.size], call.completes
    assert SECRET not in repr(world.entry)
    kind = f"{type(call).__name__}{' the end' if completes else ''}"
    world = replace(world, requests=world.requests + 1)
    if left.kills:
        yield Move("kill before the request", killed(world), kills=1)
    for name, faults, server, came, sent in outcomes(world, call, data, left.faults):
        then = replace(world, server=server, faults=(*world.faults, name) if faults else world.faults)
        if left.kills:
            yield Move(f"kill before the answer: {name}", killed(then), faults=faults, kills=1)
        after = heard(then, call, came, data, len(data) if sent is None else sent)
        yield Move(f"{type(call).__name__} {name}", after, faults, pair=(kind, name))


def heard(world: World, call: Call, came: Given, data: str, sent: int) -> World:
    """Tell the machine what an answer says after `sent` bytes of `data`."""
    words, exchange = dialect_of(world.case), dialect.Exchange(call, posts=world.known.posts)
    try:
        if isinstance(came, errors.UploaderError):
            raise came
        while True:
            world = replace(world, known=words.learned(exchange, came, world.known))
            found = words.judged(exchange, came, world.known, sent)
            if isinstance(found, Position | dialect.Unusable):
                break
            exchange = found
            server, came = served(world.case, world.server, found.call, data if isinstance(found.call, Append) else "")
            world = replace(world, server=server)
        if isinstance(found, dialect.Unusable):
            raise found.error
    except errors.UploaderError as error:
        return fed(world, Failed(error, accepted=world.known.created))
    if isinstance(call, Create):
        world = replace(world, known=replace(world.known, created=True))
        return fed(world, Told(found, sent, sent >= call.size))
    return fed(world, Told(found, sent))


def fed(world: World, came: Came) -> World:
    """Tell the machine what came, and do what the driver does before the next request."""
    assert world.state is not None
    state, wanted = upload.step(world.state, came)
    told = any(code is WarningCode.MAY_BE_STORED for code, _ in state.warnings)
    entry, said = replace(world.entry, kept=state.kept), {*world.said, state.told_new} - {None}
    world = replace(world, state=state, wanted=wanted, entry=entry, warned=world.warned or told)
    world = replace(world, said=tuple(sorted(said)))
    if isinstance(wanted, Retry):
        tries = copy(world.tries)
        assert tries is not None
        try:
            again = tries.waited_out(wanted.error)
        except errors.UploaderError as error:
            return fed(replace(world, tries=tries), GaveUp(error))
        return fed(replace(world, tries=tries), Waited() if again else GaveUp(wanted.error))
    if state.progress > world.mark:
        world = replace(world, tries=FRESH, mark=state.progress)
    match wanted:
        case Read(offset):
            return fed(world, prepared(world, offset))
        case Recall():
            return fed(world, Recalled(stored=False))
        case NewKey(failed=failed):
            key, replaced = f"k{world.keys + 1}", (*entry.replaced, *([failed] if failed else []))
            entry = replace(entry, key=key, kept=upload.Kept(), replaced=replaced)
            return fed(replace(world, entry=entry, keys=world.keys + 1), Named(key))
    return world


def ended(world: World, done: Done) -> World:
    """Write the receipt, and delete uploads that were replaced, as `TusFile` and the steps after it do."""
    state, entry, case = world.state, world.entry, world.case
    assert state is not None
    over = replace(world, state=None, wanted=None, tries=None)
    if (error := done.error) is not None:
        is_over = is_forgotten(error) or state.forgets
        return replace(over, end="failed", error=error, entry=Entry() if is_over else entry)
    if state.known_by is KnownBy.NOTHING:
        return replace(over, end="unknown")
    content = dict(world.server.stored).get(done.position.url)
    if content is None and case.kind == "forgets":
        content = world.server.stored[-1][1] if world.server.stored else None
    compares = not terms_of(case).tells_stored and (state.continued or state.adopted)
    if content != case.content and compares and content is not None:
        return replace(over, end="failed", entry=Entry())  # it is compared, and differs
    if state.known_by is KnownBy.CREATION:  # told as such: the server refuses the only request after it
        assert not case.content
        content = case.content
    assert content == case.content, f"confirmed, and the server has {content!r}"
    server = world.server
    for url in entry.replaced:
        server = server.deleted(url) if url != done.position.url else server
    return replace(over, end="stored", server=server, entry=replace(entry, receipt=True))


def check_end(world: World) -> None:
    """A fault that passes fails no file; nothing is stored twice without a warning; a later run ends it well."""
    if world.end == "gone":
        return
    case, tells = world.case, terms_of(world.case).tells_stored
    copies = [content for _, content in world.server.stored]
    assert len(copies) < 2 or world.warned or case.resends, "a file is stored twice, and nobody was told"
    assert not tells or len(copies) < 2, "a file is stored twice"
    passes = RECOVERABLE - ({"expired", "a stranger writes"} if case.file == "stream" else set())
    if world.runs == 1 and len(world.faults) < 2 and {*world.faults} <= passes:
        assert world.end in ("stored", "present") or not tells, f"a fault that passes fails the file: {world.error}"
    if case.file != "stream":
        end, error = later_end(world)
        good = ("stored", "present") if tells else ("stored", "present", "unknown")
        assert end in good, f"a later run does not store what is left: {error}"


LATER = dict[str, tuple[str, str]]()


def later_end(world: World) -> tuple[str, str]:
    """Return how a run without faults ends that follows, and why."""
    known = repr((world.case, world.server, world.entry))
    if known not in LATER:
        last = killed(world)
        while not last.end:
            last = next(moves(last, Budget(0, 0))).world
        LATER[known] = last.end, str(last.error)
    return LATER[known]
