"""Random rules of `--fault`: each kind of `--list-faults`, with parameters that keep a round to seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uploader_server.simulation.table import FAULTS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

ALWAYS = ("health", "session", "any")
TUS = (
    *ALWAYS,
    "finish",
    "create",
    "create",
    "patch",
    "patch",
    "head",
    "options",
    "pack",
    "pack",
    "pack-answer",
    "lookup",
)
BATCH = (*ALWAYS, "batch", "batch", "batch", "progress", "lookup")
REFUSALS = (400, 401, 403, 404, 408, 409, 410, 413, 423, 460, 500, 500, 502, 503, 503, 504, 507, 429, 200, 204)
NEVER_STORED = (401, 429, 503)
"""Refusals of a batch before its files are processed (docs/protocol.md, sections 3.12 and 3.15)."""
WHICH = ("#1", "#1", "#1", "#2", "#1-3", "#2-4", "#/2", "#/3", "")
EVENTS = ("events", "upload-progress")
SOCKETS = ("realtime", "websocket", "polling")


def random_rule(chance: random.Random, *, batch: bool, verify: bool, shared: bool, analyze: bool) -> str:
    """Return a rule.

    Flipped bits that nothing checks are left out: they damage files (docs/reliability.md). On a `shared` server
    restarts keep all state; no restart of a batch round loses files, which the next run would send twice.
    """
    kinds = [kind for kind in FAULTS if analyze or not kind.startswith("analysis")]
    kind = chance.choice([*kinds, *["status", "cut", "reset", "lose", "stall"] * 2])
    if kind not in _RULES:
        return f"{kind}:{_request(chance, batch, verify)}"
    return f"{kind}:{_RULES[kind](chance, batch, verify, shared)}".rstrip(":")


def _request(chance: random.Random, batch: bool, verify: bool) -> str:
    kinds = [*(BATCH if batch else TUS), *(["stored", "stored-head"] if verify else [])]
    return chance.choice(kinds) + chance.choice(WHICH)


def _few(place: str) -> str:
    """Return a WHICH of three requests at most: each makes the client wait for a second."""
    request, _, which = place.partition("#")
    return place if which and "/" not in which else f"{request}#1-3"


def _at(chance: random.Random) -> str:
    return str(chance.choice([0, 1, 100, 5000, 65536, 300_000]))


def _status(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    code = chance.choice(REFUSALS)
    place, retry = _request(chance, batch, verify), ""
    when = chance.choice(["before", "body", "work"])
    if code in (429, 503, 507):
        place, retry = _few(place), ",retry-after=1"
    if batch and code in NEVER_STORED:
        when = "body"
    return f"{place}:{code}{retry},when={when}"


def _cut(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    side = chance.choice(["request", "answer"])
    return f"{_request(chance, batch, verify)}:{_at(chance)},side={side}"


def _with_place(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    return f"{_request(chance, batch, verify)}:{_at(chance)}"


def _disk_full(chance: random.Random, batch: bool, *_: bool) -> str:
    """Return a rule for requests whose bodies are written to the disk."""
    kinds = ("batch",) if batch else ("create", "patch", "pack")
    return f"{_few(chance.choice(kinds) + chance.choice(WHICH))}:{_at(chance)}"


def _stall(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    seconds = chance.choice([0.3, 1, 2])
    when = chance.choice(["before", "after", f"in,at={_at(chance)}"])
    when, _, at = when.partition(",")
    return f"{_few(_request(chance, batch, verify))}:{when},seconds={seconds}{',' if at else ''}{at}"


def _slow(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    return f"{_request(chance, batch, verify)}:{chance.choice(['256K', '1M', '4M'])}"


def _flip(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    if batch:
        return f"{chance.choice(['health', 'session', 'batch', 'progress', 'lookup'])}#1:{_at(chance)},side=answer"
    side = chance.choice(["request", "answer"])
    return f"{_request(chance, batch, verify)}:{_at(chance)},side={side}"


def _restart(chance: random.Random, batch: bool, _verify: bool, shared: bool) -> str:
    kinds = ("batch", "session") if batch else ("create", "patch", "pack", "session", "finish", "lookup")
    memory = "all" if shared else chance.choice(["all", "all", "files", "files" if batch else "nothing"])
    return (
        f"{chance.choice(kinds)}#{chance.randint(1, 4)}:{memory},at={_at(chance)},down={chance.choice([0, 0.5, 1.5])}"
    )


def _event(chance: random.Random, *_: bool) -> str:
    return chance.choice(EVENTS) + chance.choice(WHICH)


def _socket(chance: random.Random, *_: bool) -> str:
    return chance.choice(SOCKETS)


def _timed(chance: random.Random, *_: bool) -> str:
    return f"{chance.choice(SOCKETS)}:{chance.choice([0.2, 1, 3])}"


def _size(chance: random.Random, batch: bool, verify: bool, _shared: bool) -> str:
    return f"{_request(chance, batch, verify)}:{chance.choice(['1M', '40M'])},gzip={chance.choice(['yes', 'no'])}"


def _offset(chance: random.Random, *_: bool) -> str:
    return f"{chance.choice(['head', 'patch', 'create'])}{chance.choice(WHICH)}:{chance.choice([-1000, -1, 1, 7777])}"


_STAGES = ("upload", "model-analysis", "report")
_RULES: dict[str, Callable[..., str]] = {
    "status": _status,
    "cut": _cut,
    "reset": _with_place,
    "disk-full": _disk_full,
    "stall": _stall,
    "slow": _slow,
    "flip": _flip,
    "offset": _offset,
    "gigantic": _size,
    "endless": lambda chance, batch, verify, _: f"{_request(chance, batch, verify)}:16M",
    "html": lambda chance, batch, verify, _: f"{_request(chance, batch, verify)}:{chance.choice([200, 404, 502])}",
    "restart": _restart,
    "event-missing": _event,
    "event-doubled": _event,
    "event-swapped": _event,
    "event-late": lambda chance, *_: f"{_event(chance)}:{chance.choice([0.2, 2])}",
    "event-foreign": _event,
    "event-types": lambda chance, *_: f"{_event(chance)}{chance.choice(['', ':totalProgress', ':sessionId'])}",
    "socket-off": _socket,
    "socket-refuse": _socket,
    "socket-hang": _socket,
    "socket-freeze": _timed,
    "socket-kick": _timed,
    "socket-flap": _timed,
    "socket-kill-after": _timed,
    "latency": lambda chance, *_: str(chance.choice([5, 20, 60])),
    "fail-file": lambda chance, *_: chance.choice(["*0.bin", "*.mp4", "small/*", "*odd*", "large-1.bin"]),
    "analysis-silent": lambda *_: "",
    "analysis-hang": lambda *_: "",
    "analysis-fail": lambda chance, *_: chance.choice(_STAGES),
    "analysis-refuse": lambda chance, *_: chance.choice(_STAGES),
}
"""What follows the kind. Kinds that are not here take a request and nothing else."""
