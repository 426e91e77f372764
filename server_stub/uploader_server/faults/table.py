"""The table of faults: what can go wrong on purpose, where, and with which parameters.

`--list-faults`, the errors about a wrong rule and the tables of docs/server.md are made from it.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploader_server.analysis.stages import STAGES
from uploader_server.config import parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

REQUESTS: dict[str, tuple[str, str]] = {
    "any": ("*", "*"),
    "health": ("GET", "/health"),
    "validate": ("POST", "/api/upload/validate"),
    "session": ("POST", "/api/upload/session"),
    "finish": ("POST", "/api/upload/session/*/finish"),
    "batch": ("POST", "/api/upload/batch"),
    "progress": ("GET", "/api/upload/progress/*"),
    "cancel": ("POST", "/api/upload/cancel/*"),
    "delete": ("DELETE", "/api/upload/file/*"),
    "options": ("OPTIONS", "*"),
    "create": ("POST", "/api/upload/files*"),
    "head": ("HEAD", "/api/upload/files/*"),
    "patch": ("PATCH", "/api/upload/files/*"),
    "terminate": ("DELETE", "/api/upload/files/*"),
    "pack": ("POST", "/api/upload/packs"),
    "pack-answer": ("GET", "/api/upload/packs/*"),
    "lookup": ("POST", "/api/upload/lookup"),
    "stored": ("GET", "/uploads/*"),
    "stored-head": ("HEAD", "/uploads/*"),
    "analyze": ("POST", "/api/ai/*"),
    "analysis": ("GET", "/api/ai/analysis/*"),
}
"""The kinds of requests by their names: method and path, each a glob. Socket.IO is none of them."""
EVENTS = {
    "events": "*",
    "upload-progress": "upload-progress",
    "analysis-progress": "analysis:progress",
    "analysis-error": "analysis:error",
}
"""The names of events in a rule, and on the wire (a glob)."""
SOCKETS = ("realtime", "websocket", "polling")
"""Both transports of Socket.IO, or one of them."""


class Where(enum.Enum):
    """What the second field of a rule names; the value is how help texts show it."""

    REQUEST = "REQUEST"
    EVENT = "EVENT"
    SOCKET = "SOCKET"
    FILE = "GLOB"
    STAGE = "STAGE"
    NOTHING = ""


WHERE_TEXTS = {
    Where.REQUEST: f"{', '.join(REQUESTS)}; or a method and a path with wildcards: GET /api/upload/*",
    Where.EVENT: ", ".join(EVENTS),
    Where.SOCKET: ", ".join(SOCKETS),
    Where.FILE: "a file name or relative path with wildcards: *.mp4",
    Where.STAGE: ", ".join(STAGES),
}
COUNTED = (Where.REQUEST, Where.EVENT)
"""Those whose occasions are counted, so that `#N` may follow."""
WHICH_TEXT = "every one; #3 the third, #2-4, #3- from the third on, #/5 every fifth"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a fault. `convert` raises ValueError, saying what a value must be."""

    name: str
    shown: str
    """Its value as help texts show it."""
    convert: Callable[[str], Any]
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Fault:
    """One kind of fault. The first parameter may be written without its name."""

    kind: str
    where: Where
    text: str
    example: str
    parameters: tuple[Parameter, ...] = ()

    @property
    def form(self) -> str:
        """How a rule of this kind is written."""
        pieces = [self.kind, self.where.value]
        if self.where in COUNTED:
            pieces[1] += "[#WHICH]"
        form = ":".join(filter(None, pieces))
        for number, parameter in enumerate(self.parameters):
            written = parameter.shown if number == 0 else f"{parameter.name}={parameter.shown}"
            written = f"{',' if number else ':'}{written}"
            form += written if parameter.required else f"[{written}]"
        return form


def _size(text: str) -> int:
    return 0 if text == "0" else parse_size(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is no number of at least 0")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if value == 0:
        raise ValueError("it must be more than 0 seconds")
    return value


def _rate(text: str) -> int:
    return parse_size(text)


def _status(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 200 <= int(text) <= 599:
        raise ValueError(f"{text!r} is no HTTP status from 200 to 599")
    return int(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is no whole number") from None


def _words(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}")
        return text

    return convert


def _at(default: int = 0) -> Parameter:
    return Parameter("at", "BYTES", _size, default)


_SIDE = Parameter("side", "request|answer", _words("request", "answer"), "request")
_GZIP = Parameter("gzip", "yes|no", _words("yes", "no"), "no")
_R, _E, _S = Where.REQUEST, Where.EVENT, Where.SOCKET
_FOR_SECONDS = Parameter("seconds", "S", _seconds, required=True)

_TABLE = (
    Fault(
        "status",
        _R,
        "answers with CODE: `before` the body is read, after the `body`, or after the work was done (`work`)",
        "status:patch#2:503,retry-after=2",
        (
            Parameter("code", "CODE", _status, required=True),
            Parameter("retry-after", "S", _integer),
            Parameter("when", "before|body|work", _words("before", "body", "work"), "before"),
        ),
    ),
    Fault("cut", _R, "closes the connection after so many bytes of the body", "cut:patch#1:64K", (_at(), _SIDE)),
    Fault("reset", _R, "the same with a TCP reset", "reset:batch#1:64K", (_at(),)),
    Fault("lose", _R, "does the work and closes the connection instead of answering", "lose:create#1"),
    Fault(
        "stall",
        _R,
        "waits `before` the work, `in` the body after so many bytes, or `after` the work",
        "stall:patch#1:in,seconds=5,at=64K",
        (
            Parameter("when", "before|in|after", _words("before", "in", "after"), required=True),
            Parameter("seconds", "S", _seconds, required=True),
            _at(),
        ),
    ),
    Fault(
        "slow",
        _R,
        "reads the body, and sends the answer's, with so many bytes a second",
        "slow:patch:512K",
        (Parameter("rate", "BYTES", _rate, required=True),),
    ),
    Fault("flip", _R, "changes one bit of the byte at this position of the body", "flip:patch#1:1000", (_at(), _SIDE)),
    Fault("disk-full", _R, "the disk is full after so many bytes of the body", "disk-full:patch#1:64K", (_at(),)),
    Fault(
        "offset",
        _R,
        "adds so many bytes, or takes them off, in the answer's Upload-Offset",
        "offset:head#1:-1000",
        (Parameter("bytes", "N", _integer, required=True),),
    ),
    Fault("truncated", _R, "answers with the first half of the answer's body", "truncated:session#1"),
    Fault(
        "gigantic",
        _R,
        "answers with a body of this size",
        "gigantic:health:1G,gzip=yes",
        (Parameter("size", "BYTES", _size, 64 << 20), _GZIP),
    ),
    Fault(
        "endless",
        _R,
        "answers with a body that never ends, of so many bytes a second",
        "endless:health:1",
        (Parameter("rate", "BYTES", _rate, 1 << 20),),
    ),
    Fault(
        "html",
        _R,
        "answers with a web page, as a wrong server or a proxy does",
        "html:session:200",
        (Parameter("code", "CODE", _status, 200),),
    ),
    Fault("empty", _R, "leaves out the answer's body", "empty:session#1"),
    Fault(
        "types",
        _R,
        "has values of other types in the answer's JSON, everywhere or for one key",
        "types:session#1:sessionId",
        (Parameter("key", "KEY", str, ""),),
    ),
    Fault(
        "restart",
        _R,
        "restarts the server after so many bytes of the body; the request is not answered. The new server knows `all`"
        " that the old one did, the stored `files` alone, or `nothing`; for `down` seconds there is none",
        "restart:patch#3:files,down=2",
        (
            Parameter("memory", "all|files|nothing", _words("all", "files", "nothing"), "all"),
            _at(),
            Parameter("down", "S", _number, 0.0),
        ),
    ),
    Fault("event-missing", _E, "is not sent", "event-missing:upload-progress#2-4"),
    Fault("event-doubled", _E, "is sent twice", "event-doubled:upload-progress"),
    Fault("event-swapped", _E, "is sent after the one that follows it", "event-swapped:upload-progress#/2"),
    Fault("event-late", _E, "is sent so much later", "event-late:upload-progress#1:3", (_FOR_SECONDS,)),
    Fault("event-foreign", _E, "is followed by one of another session", "event-foreign:upload-progress"),
    Fault(
        "event-types",
        _E,
        "has values of other types, everywhere or for one key",
        "event-types:upload-progress:totalProgress",
        (Parameter("key", "KEY", str, ""),),
    ),
    Fault("socket-off", _S, "answers 404, as if there were no Socket.IO", "socket-off:websocket"),
    Fault("socket-refuse", _S, "refuses every connection at once (403)", "socket-refuse:realtime"),
    Fault("socket-hang", _S, "accepts connections and never answers", "socket-hang:websocket"),
    Fault(
        "socket-freeze",
        _S,
        "lets nothing through either way, so many seconds after the first connection; nothing is closed",
        "socket-freeze:realtime:2",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-kick",
        _S,
        "cuts live connections every so many seconds; new ones are welcome",
        "socket-kick:realtime:3",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-flap",
        _S,
        "from the first connection on: S seconds up, S seconds down, and so on; going down cuts what is live",
        "socket-flap:realtime:4",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-kill-after",
        _S,
        "cuts the connection S seconds after the first one, and refuses new ones from then on",
        "socket-kill-after:realtime:4",
        (_FOR_SECONDS,),
    ),
    Fault(
        "latency",
        Where.NOTHING,
        "every request, and every message of a websocket, takes so many milliseconds more",
        "latency:50",
        (Parameter("ms", "MS", _number, required=True),),
    ),
    Fault(
        "fail-file", Where.FILE, "files with such names fail within an answer that is otherwise good", "fail-file:*.tmp"
    ),
    Fault(
        "analysis-silent",
        Where.NOTHING,
        "analyses send no event; their status tells how far they are",
        "analysis-silent",
    ),
    Fault("analysis-hang", Where.NOTHING, "analyses stop in their first stage and are never answered", "analysis-hang"),
    Fault(
        "analysis-fail", Where.STAGE, "that stage fails with 503, and may succeed another time", "analysis-fail:report"
    ),
    Fault("analysis-refuse", Where.STAGE, "that stage fails with 422, for good", "analysis-refuse:plan"),
)
FAULTS = {fault.kind: fault for fault in _TABLE}
"""Every fault by its kind."""


def listing() -> str:
    """What `--list-faults` prints."""
    lines = ["A rule is KIND[:WHERE][:PARAMETERS]; --fault may be repeated, and every rule acts by itself.", ""]
    for fault in FAULTS.values():
        lines += [f"  {fault.form}", f"      {fault.text}", f"      --fault '{fault.example}'", ""]
    lines += [f"{where.value}: {text}" for where, text in WHERE_TEXTS.items()]
    lines += [f"WHICH: {WHICH_TEXT}", "BYTES: 1000, 64K (64 KiB), 8M; S: seconds", ""]
    return "\n".join(lines)


def markdown() -> str:
    """The tables of docs/server.md."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    lines = ["| rule | what goes wrong | example |", "|---|---|---|"]
    lines += [f"| `{cell(fault.form)}` | {cell(fault.text)} | `{fault.example}` |" for fault in FAULTS.values()]
    lines += ["", "| field | what it may be |", "|---|---|"]
    lines += [f"| `{where.value}` | {cell(text)} |" for where, text in WHERE_TEXTS.items()]
    lines += [f"| `WHICH` | {WHICH_TEXT} |", ""]
    return "\n".join(lines)
