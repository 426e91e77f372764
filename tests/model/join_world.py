"""The joining of parts by the real machine, against a model of a server, with the pacer's real decisions.

A run begins with the search for what an earlier one has left, sends the parts that are gone, and joins them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from copy import copy

from model.exploring import Budget, Move
from model.pack_world import new_tries
from msgspec.structs import replace

from uploader_cli import errors
from uploader_cli.core.codes import FailureCode
from uploader_cli.core.record import Record
from uploader_cli.core.terms import Terms
from uploader_cli.transfer.ledger import ends_run
from uploader_cli.transfer.pacer import Tries
from uploader_cli.transfer.protocols import join
from uploader_cli.transfer.protocols.machine import (
    Begin,
    Came,
    Create,
    Done,
    Failed,
    GaveUp,
    Locate,
    Position,
    Retry,
    Told,
    Waited,
    Wanted,
)
from uploader_cli.transfer.protocols.upload import Kept

SIZE = 20
PARTS = ("https://up.example/files/1", "https://up.example/files/2")
JOINED = "https://up.example/files/3"
ALL, NONE = (True, True), (False, False)
FOREIGN = Terms(sessions=False, keys=False, gets_keys=False, tells_stored=False, strict=False, parts=True)
BUNDLED = Terms(parts=True)
MOST_REQUESTS = 30
RETRIES = 3


class World(Record, frozen=True):
    """Everything: the server, with the `parts` that it has and `copies` of the file; the journal; and the client's run.

    `searches`: the run looks for what the server has. `mark` is the progress that renews the retries. `doubt` is the
    run whose request may have joined the parts, 0 without one; `tried` counts what it tried in a run.
    """

    terms: Terms
    resends: bool
    parts: tuple[bool, ...] = NONE
    copies: int = 0
    kept: Kept = Kept()
    state: join.Join | None = None
    wanted: Wanted | None = None
    tries: Tries | None = None
    mark: int = -1
    searches: bool = True
    run: int = 1
    doubt: int = 0
    tried: int = 0
    requests: int = 0
    faults: int = 0


FRESH = new_tries(RETRIES)  # copied before each use


def first_world(terms: Terms, *, resends: bool) -> World:
    return begin_run(World(terms, resends))


def begin_run(world: World) -> World:
    """Begin a run with a search. The first one has sent nothing before."""
    urls = PARTS if world.run > 1 else ("", "")
    return begin(replace(world, tried=0, requests=0, faults=0), urls, searches=True)


def begin(world: World, urls: tuple[str, ...], *, searches: bool) -> World:
    state = join.Join(world.terms, SIZE, urls, kept=world.kept, resends=world.resends)
    return tell(replace(world, state=state, tries=FRESH, mark=-1, searches=searches), Begin())


def killed(world: World, *, asked: bool = False) -> World:
    """Kill the client, and begin another run; `asked`: a request may be under way."""
    doubt = world.doubt or world.run if asked and not world.terms.tells_stored else world.doubt
    return begin_run(replace(world, run=world.run + 1, doubt=doubt))


def tell(world: World, came: Came) -> World:
    assert world.state is not None
    state, wanted = (join.search if world.searches else join.step)(world.state, came)
    assert not world.searches or state.kept == world.kept, "a search changes nothing in the journal"
    if state.progress > world.mark:
        world = replace(world, tries=FRESH, mark=state.progress)
    return replace(world, state=state, wanted=wanted, kept=state.kept)


def key_of(world: World) -> Hashable:
    used = world.tries and [value for value in vars(world.tries).values() if isinstance(value, int | float)]
    return repr((replace(world, tries=None, requests=0), used))


def refused(status: int, *, by_server: bool = True) -> errors.AnswerError:
    kinds: dict[int, type[errors.AnswerError]] = {
        401: errors.Unauthorized,
        403: errors.Unauthorized,
        404: errors.NotFound,
        409: errors.OffsetConflict,
        413: errors.TooLarge,
        423: errors.Locked,
        429: errors.RateLimited,
    }
    error = kinds.get(status, errors.ServerFault if status >= 500 else errors.AnswerError)("no", status=status)
    error.by_server = by_server
    return error


def to_join(world: World) -> Iterator[tuple[str, bool, bool, Came]]:
    """Yield what can come of the request: class, whether it joins the parts, whether that is uncertain, what comes."""
    yield "ok", True, False, Told(Position(JOINED, SIZE, {}))
    yield "wrong offset", False, False, Told(Position(JOINED, SIZE - 1, {}))
    yield "no offset", True, False, Told(Position(JOINED, None, {}))
    for status in (400, 401, 403, 404, 409, 413, 423, 429, 503):
        yield f"{status} before", False, False, Failed(refused(status))
    yield "403 of a gateway", False, False, Failed(refused(403, by_server=False))
    for name, done in (("after", True), ("before", False)):
        yield f"502 {name}", done, True, Failed(refused(502, by_server=False))
        yield f"lost {name}", done, True, Failed(errors.ConnectionLost("lost", body_sent=True))
    yield "late", True, True, Failed(errors.TimedOut("late", body_sent=True))
    yield "500 before", False, False, Failed(refused(500))
    yield "cut", False, False, Failed(errors.ConnectionLost("cut", body_sent=False))
    yield "not reached", False, False, Failed(errors.ConnectFailed("no"))


GONE = Failed(errors.UploadGone("no", status=404))


def to_locate(url: str, usual: Came) -> Iterator[tuple[str, Came]]:
    """Yield what can come of a question for an offset."""
    yield "ok", usual
    if url == JOINED:
        yield "another size", Told(Position(url, SIZE - 1, {}))
    for status in (403, 500, 502):
        yield f"{status}", Failed(refused(status, by_server=status != 502))
    proxy = refused(404, by_server=False)
    proxy.retryable = True  # as `dialect.not_of_server`
    yield "404 of a proxy", Failed(proxy)
    yield "gone", GONE
    yield "lost", Failed(errors.ConnectionLost("lost", body_sent=True))


def known(world: World, url: str) -> Came:
    """Return what the server says of an upload, without a fault."""
    if url == JOINED:
        return Told(Position(url, SIZE, {})) if world.copies else GONE
    return Told(Position(url, SIZE // 2, {})) if world.parts[PARTS.index(url)] else GONE


def moves(world: World, left: Budget) -> Iterator[Move[World]]:
    """Yield all that can happen next."""
    assert world.requests <= MOST_REQUESTS, "the run does not end"
    wanted = world.wanted
    match wanted:
        case Create() if world.searches:
            yield from finding(world)
        case Create(parts=urls):
            assert urls == PARTS
            yield from joining(world, left)
        case Locate(url):
            assert world.searches or url == JOINED
            yield Move("kill before the question", killed(world), kills=1)
            for name, came in to_locate(url, known(world, url)):
                then = replace(world, requests=world.requests + 1, faults=world.faults + (name != "ok"))
                if name == "gone" and url in PARTS:
                    first, second = then.parts
                    then = replace(then, parts=(first and url != PARTS[0], second and url != PARTS[1]))
                elif name in ("gone", "another size") and world.searches:  # the file may be stored by an earlier run
                    then = replace(then, doubt=world.doubt or world.run - 1)
                kind = f"HEAD of {'a part' if url in PARTS else 'the file'}"
                yield Move(name, tell(then, came), faults=int(name != "ok"), pair=(kind, name))
        case Retry(error):
            tries = copy(world.tries)
            assert tries is not None
            again = tries.waited_out(error)
            yield Move("wait", tell(replace(world, tries=tries), Waited() if again else GaveUp(error)))
        case Done(error=None) if world.searches:
            yield from searched(world, wanted.position)
        case Done():
            yield from ended(world, wanted)


def finding(world: World) -> Iterator[Move[World]]:
    """Create an upload by the key of one that the parts may have been joined to."""
    assert world.terms.keys, "only a key finds what is stored"
    assert world.run > 1, "nothing was sent before"
    assert world.parts == NONE, "parts are there that were not joined"
    yield Move("kill before the request", killed(world), kills=1)
    usual = Told(Position(JOINED, SIZE if world.copies else 0, {}))
    for name, came in to_locate("", usual):
        if name != "gone":
            then = replace(world, requests=world.requests + 1, faults=world.faults + (name != "ok"))
            yield Move(name, tell(then, came), faults=int(name != "ok"), pair=("POST by the key", name))


def searched(world: World, found: Position) -> Iterator[Move[World]]:
    """End with the file, or send the parts that are gone, and join them."""
    assert world.state is not None
    if found.offset == SIZE:
        assert world.copies, "confirmed, and not on the server"
        return
    assert not (world.terms.keys and world.copies), "it is stored, and sent again"
    if found.url:
        assert world.terms.keys, "an upload that was known is taken for a new one"
        world = replace(world, kept=Kept())  # with another key
    else:
        assert [offset or 0 for offset in world.state.offsets] == [SIZE // 2 * has for has in world.parts]
    if world.parts != ALL:
        yield Move("kill after a part", killed(replace(world, parts=(True, False))), kills=1)
    yield Move("the parts are sent", begin(replace(world, parts=ALL), PARTS, searches=False))


def joining(world: World, left: Budget) -> Iterator[Move[World]]:
    assert world.doubt in (0, world.run) or world.resends, "joined again after a run that may have joined it"
    if not world.terms.tells_stored:
        assert world.kept.ending == "lost", "a kill would leave nothing that tells of the request"
    yield Move("kill before the request", killed(world, asked=True), kills=1)
    assert world.tried < 2 or world.terms.tells_stored, "a third request may join the parts"
    kind = "POST again" if world.doubt else "POST"
    for name, done, uncertain, came in to_join(world):
        faults = int(name not in ("ok", "no offset"))
        if left.less(faults, 0) is None:
            continue
        doubt = 0 if world.terms.tells_stored else world.run if uncertain else world.doubt
        then = replace(
            world,
            copies=1 if world.terms.keys and (done or world.copies) else world.copies + done,
            requests=world.requests + 1,
            parts=NONE if world.terms.keys and (done or world.copies) else world.parts,
            faults=world.faults + faults,
            doubt=0 if not faults else doubt,
            tried=world.tried + (uncertain or name in ("500 before", "503 before")),
        )
        if done:
            yield Move("kill before the answer", killed(then, asked=True), kills=1, pair=(kind, "kill"))
        then = tell(then, came)
        if not world.terms.tells_stored and isinstance(then.wanted, Retry):
            check_failure(then, name, then.wanted.error)
        yield Move(name, then, faults, pair=(kind, name))


def check_failure(world: World, name: str, error: errors.UploaderError) -> None:
    """The second request that the server has at least tried to carry out is the last one; a refusal is none."""
    final = isinstance(error, errors.OutcomeUnknown | errors.NotFinished)
    assert final == (world.tried == 2), error
    if name == "403 before":
        assert not isinstance(error, errors.Unauthorized), "the token was good for the parts"


def ended(world: World, done: Done) -> Iterator[Move[World]]:
    """Check how the run has ended, and that a later one without faults ends well."""
    assert world.state is not None
    error = done.error
    if error is None:
        assert world.copies, "confirmed, and not on the server"
        yield Move("kill before the receipt", killed(world), kills=1)
        if not world.terms.keys:
            yield Move("kill after the parts are deleted", killed(replace(world, parts=NONE)), kills=1)
        return
    assert not isinstance(error, errors.UploadGone) or world.terms.tells_stored, "the join has succeeded"
    if error.code is FailureCode.INTEGRITY:  # it is joined, and other bytes are stored
        return
    unknown = isinstance(error, errors.OutcomeUnknown)
    if world.doubt and not world.terms.tells_stored:
        told = unknown or error.retryable or ends_run(error) or isinstance(error, errors.Unauthorized)
        assert told, f"{error!r}, and it may be stored"
        assert not world.state.forgets, "the journal forgets a file that may be stored"
    else:
        assert not unknown, "it is certain"
        assert world.faults, "it fails without a fault"
    kept = Kept() if world.state.forgets else world.kept
    last = killed(replace(world, kept=kept))
    while not isinstance(last.wanted, Done) or (last.searches and last.wanted.position.offset != SIZE):
        last = next(move.world for move in moves(last, Budget(0, 0)) if not move.kills)
    if last.wanted.error is None:
        assert last.copies
    else:
        assert isinstance(last.wanted.error, errors.OutcomeUnknown), last.wanted.error
        assert world.doubt, "nobody can tell whether it is stored"
        assert not world.resends
    yield from ()
