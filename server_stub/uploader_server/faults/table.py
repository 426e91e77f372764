"""The table of faults with their targets and parameters.

`--list-faults`, the error messages for rules and the tables of docs/server.md are generated from it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uploader_server.analysis.stages import STAGES
from uploader_server.config import parse_number, parse_seconds, parse_size

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
"""Request names in rules: globs of method and path. They exclude Socket.IO."""
EVENTS = {
    "events": "*",
    "upload-progress": "upload-progress",
    "analysis-progress": "analysis:progress",
    "analysis-error": "analysis:error",
}
"""Event names in rules: globs of names on the wire."""
SOCKETS = ("realtime", "websocket", "polling")
"""Names of both Socket.IO transports, or of one."""


class Where(enum.Enum):
    """What the second field of a rule selects; the value is its name in help texts."""

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
"""Fields that may be followed by `#WHICH`."""
WHICH_TEXT = "#3 the third, #2-4 the second to fourth, #3- from the third on, #/5 every fifth; all if omitted"


@dataclass(frozen=True)
class Parameter:
    """A parameter of a fault. `convert` raises ValueError with the expected form."""

    name: str
    shown: str
    """Its value in help texts."""
    convert: Callable[[str], Any]
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Fault:
    """One kind of fault. The name of the first parameter may be omitted."""

    kind: str
    where: Where
    text: str
    example: str
    parameters: tuple[Parameter, ...] = ()

    @property
    def form(self) -> str:
        """The syntax of a rule of this kind."""
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


def _status(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 200 <= int(text) <= 599:
        raise ValueError(f"{text!r} is not an HTTP status from 200 to 599")
    return int(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


def _words(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return convert


def _at(default: int = 0) -> Parameter:
    return Parameter("at", "BYTES", _size, default)


_SIDE = Parameter("side", "request|answer", _words("request", "answer"), "request")
_GZIP = Parameter("gzip", "yes|no", _words("yes", "no"), "no")
_R, _E, _S = Where.REQUEST, Where.EVENT, Where.SOCKET
_FOR_SECONDS = Parameter("seconds", "S", parse_seconds, required=True)

_TABLE = (
    Fault(
        "status",
        _R,
        "responds with CODE `before` reading the body, after the `body`, or after the request was processed (`work`)",
        "status:patch#2:503,retry-after=2",
        (
            Parameter("code", "CODE", _status, required=True),
            Parameter("retry-after", "S", _integer),
            Parameter("when", "before|body|work", _words("before", "body", "work"), "before"),
        ),
    ),
    Fault("cut", _R, "closes the connection after this many bytes of the body", "cut:patch#1:64K", (_at(), _SIDE)),
    Fault("reset", _R, "like cut, with a TCP reset", "reset:batch#1:64K", (_at(),)),
    Fault("lose", _R, "processes the request, then closes the connection without a response", "lose:create#1"),
    Fault(
        "stall",
        _R,
        "waits `before` processing, `in` the body after this many bytes, or `after` processing",
        "stall:patch#1:in,seconds=5,at=64K",
        (
            Parameter("when", "before|in|after", _words("before", "in", "after"), required=True),
            Parameter("seconds", "S", parse_seconds, required=True),
            _at(),
        ),
    ),
    Fault(
        "slow",
        _R,
        "limits request and response bodies to this many bytes per second",
        "slow:patch:512K",
        (Parameter("rate", "BYTES", parse_size, required=True),),
    ),
    Fault("flip", _R, "flips one bit of the byte at this position of the body", "flip:patch#1:1000", (_at(), _SIDE)),
    Fault(
        "disk-full", _R, "simulates a full disk after this many bytes of the body", "disk-full:patch#1:64K", (_at(),)
    ),
    Fault(
        "offset",
        _R,
        "adds this many bytes (or subtracts, if negative) to Upload-Offset of the response",
        "offset:head#1:-1000",
        (Parameter("bytes", "N", _integer, required=True),),
    ),
    Fault("truncated", _R, "sends only the first half of the response body", "truncated:session#1"),
    Fault(
        "gigantic",
        _R,
        "responds with a body of this size",
        "gigantic:health:1G,gzip=yes",
        (Parameter("size", "BYTES", _size, 64 << 20), _GZIP),
    ),
    Fault(
        "endless",
        _R,
        "responds with an endless body at this many bytes per second",
        "endless:health:1",
        (Parameter("rate", "BYTES", parse_size, 1 << 20),),
    ),
    Fault(
        "html",
        _R,
        "responds with a web page, as a proxy or another server would",
        "html:session:200",
        (Parameter("code", "CODE", _status, 200),),
    ),
    Fault("empty", _R, "sends an empty response body", "empty:session#1"),
    Fault(
        "types",
        _R,
        "changes the types of values in the JSON of the response, of all or of one key",
        "types:session#1:sessionId",
        (Parameter("key", "KEY", str, ""),),
    ),
    Fault(
        "restart",
        _R,
        "restarts the server after this many bytes of the body, without a response. The new server keeps `all` state,"
        " only the stored `files`, or `nothing`; it starts after `down` seconds",
        "restart:patch#3:files,down=2",
        (
            Parameter("memory", "all|files|nothing", _words("all", "files", "nothing"), "all"),
            _at(),
            Parameter("down", "S", parse_number, 0.0),
        ),
    ),
    Fault("event-missing", _E, "is not sent", "event-missing:upload-progress#2-4"),
    Fault("event-doubled", _E, "is sent twice", "event-doubled:upload-progress"),
    Fault("event-swapped", _E, "is sent after the next one", "event-swapped:upload-progress#/2"),
    Fault("event-late", _E, "is sent this many seconds later", "event-late:upload-progress#1:3", (_FOR_SECONDS,)),
    Fault("event-foreign", _E, "is followed by one of another session", "event-foreign:upload-progress"),
    Fault(
        "event-types",
        _E,
        "has changed types of values, of all or of one key",
        "event-types:upload-progress:totalProgress",
        (Parameter("key", "KEY", str, ""),),
    ),
    Fault("socket-off", _S, "answers 404, as if there were no Socket.IO", "socket-off:websocket"),
    Fault("socket-refuse", _S, "refuses every connection at once (403)", "socket-refuse:realtime"),
    Fault("socket-hang", _S, "accepts connections and never answers", "socket-hang:websocket"),
    Fault(
        "socket-freeze",
        _S,
        "drops all messages in both directions, this many seconds after the first connection; connections stay open",
        "socket-freeze:realtime:2",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-kick",
        _S,
        "cuts live connections at this interval in seconds; new ones are accepted",
        "socket-kick:realtime:3",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-flap",
        _S,
        "alternates S seconds up and S seconds down from the first connection on; going down cuts live connections",
        "socket-flap:realtime:4",
        (_FOR_SECONDS,),
    ),
    Fault(
        "socket-kill-after",
        _S,
        "cuts connections S seconds after the first one, and refuses new ones from then on",
        "socket-kill-after:realtime:4",
        (_FOR_SECONDS,),
    ),
    Fault(
        "latency",
        Where.NOTHING,
        "delays every request and every websocket message by this many milliseconds",
        "latency:50",
        (Parameter("ms", "MS", parse_number, required=True),),
    ),
    Fault("fail-file", Where.FILE, "matching files fail inside a 200 response", "fail-file:*.tmp"),
    Fault(
        "analysis-silent",
        Where.NOTHING,
        "analyses send no events; their status shows the progress",
        "analysis-silent",
    ),
    Fault("analysis-hang", Where.NOTHING, "analyses stop in their first stage and get no response", "analysis-hang"),
    Fault("analysis-fail", Where.STAGE, "the stage fails with 503 (retryable)", "analysis-fail:report"),
    Fault("analysis-refuse", Where.STAGE, "the stage fails with 422 (permanent)", "analysis-refuse:plan"),
)
FAULTS = {fault.kind: fault for fault in _TABLE}
"""Faults by kind."""


def listing() -> str:
    """Return the output of `--list-faults`."""
    lines = ["A rule is KIND[:WHERE][:PARAMETERS]; --fault may be repeated, and rules are independent.", ""]
    for fault in FAULTS.values():
        lines += [f"  {fault.form}", f"      {fault.text}", f"      --fault '{fault.example}'", ""]
    lines += [f"{where.value}: {text}" for where, text in WHERE_TEXTS.items()]
    lines += [f"WHICH: {WHICH_TEXT}", "BYTES: 1000, 64K (64 KiB), 8M; S: seconds", ""]
    return "\n".join(lines)


def markdown() -> str:
    """Return the tables of docs/server.md."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    lines = ["| rule | effect | example |", "|---|---|---|"]
    lines += [f"| `{cell(fault.form)}` | {cell(fault.text)} | `{fault.example}` |" for fault in FAULTS.values()]
    lines += ["", "| field | values |", "|---|---|"]
    lines += [f"| `{where.value}` | {cell(text)} |" for where, text in WHERE_TEXTS.items()]
    lines += [f"| `WHICH` | {WHICH_TEXT} |", ""]
    return "\n".join(lines)
