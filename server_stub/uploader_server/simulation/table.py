"""The table of faults: source of `--list-faults`, the error messages for rules and the tables of docs/server.md."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from uploader_server.options import parse_duration, parse_number, parse_seconds, parse_size, parse_status
from uploader_server.simulation.stages import STAGES

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
EVENTS: dict[str, tuple[str, ...]] = {
    "events": ("*",),
    "upload-progress": ("upload-progress",),
    "analysis-progress": ("analysis:progress",),
    "analysis-error": ("analysis:error",),
}
"""Event names in rules: globs of names on the wire."""
GLOBS: dict[str, tuple[str, ...]] = {**REQUESTS, **EVENTS}
SOCKETS = ("realtime", "websocket", "polling")  # names of both Socket.IO transports, or of one
NAMES: dict[str, Collection[str]] = {"REQUEST": REQUESTS, "EVENT": EVENTS, "SOCKET": SOCKETS, "STAGE": STAGES}
"""Valid names of the second field of a rule, by the name of the field."""
COUNTED = ("REQUEST", "EVENT")  # fields that may be followed by `#WHICH`
WHICH_TEXT = "#3 (the third), #2-4 (the second to the fourth), #3- (from the third on), #/5 (every fifth)"
FIELD_TEXTS = {
    "REQUEST": f"{', '.join(REQUESTS)}; or a method and a path with wildcards: GET /api/upload/*",
    "EVENT": "events (all events), upload-progress, analysis-progress, analysis-error",
    "SOCKET": "realtime (both transports of Socket.IO), websocket, polling",
    "GLOB": "a file name or relative path with wildcards: *.mp4",
    "STAGE": ", ".join(STAGES),
    "WHICH": f"{WHICH_TEXT}; default: all",
    "BYTES": "a number of bytes: 1000, 64K (64 KiB), 8M",
    "S": "seconds",
}

# For each fault: an example, the second field of its rules (`-` if there is none) and the parameters; then its effect.
# A parameter is `name=VALUE`, followed by `?` and its default value if it is optional; the first of several words is
# the default.
_TABLE = """
status:patch#2:503,retry-after=2 REQUEST code=CODE retry-after=S? when=before|body|work?
    responds with CODE `before` reading the body, after reading the `body`, or after processing the request (`work`)
cut:patch#1:64K REQUEST at=BYTES?0 side=request|answer?
    closes the connection after BYTES of the request body, or of the response body (`answer`)
reset:batch#1:64K REQUEST at=BYTES?0
    resets the connection (TCP RST) after BYTES of the request body
lose:create#1 REQUEST
    processes the request, then closes the connection without a response
stall:patch#1:in,seconds=5,at=64K REQUEST when=before|in|after seconds=S at=BYTES?0
    pauses for S seconds: `before` processing the request, `in` its body after BYTES, or `after` processing it
slow:patch:512K REQUEST rate=BYTES
    limits the request body and the response body to BYTES per second
flip:patch#1:1000 REQUEST at=BYTES?0 side=request|answer?
    flips a bit in the byte at position BYTES of the request body, or of the response body (`answer`)
disk-full:patch#1:64K REQUEST at=BYTES?0
    simulates a full disk after BYTES of the request body
offset:head#1:-1000 REQUEST bytes=N
    adds N bytes to Upload-Offset of the response; N may be negative
truncated:session#1 REQUEST
    sends only the first half of the response body
gigantic:health:1G,gzip=yes REQUEST size=BYTES?64M gzip=no|yes?
    responds with a body of this size (default 64M), optionally compressed
endless:health:1 REQUEST rate=BYTES?1M
    responds with a body that never ends, at BYTES per second (default 1M)
html:session:200 REQUEST code=CODE?200
    responds with a web page and CODE (default 200), as a proxy or a login page does
empty:session#1 REQUEST
    sends an empty response body
types:session#1:sessionId REQUEST key=KEY?
    changes the types of the values in the response's JSON: of KEY, or of all values
restart:patch#3:files,down=2 REQUEST memory=all|files|nothing? at=BYTES?0 down=S?0
    stops the server after BYTES of the body, and starts it S seconds later with `all` data, its `files` or `nothing`
event-missing:upload-progress#2-4 EVENT
    does not send the event
event-doubled:upload-progress EVENT
    sends the event twice
event-swapped:upload-progress#/2 EVENT
    sends the event after the next event
event-late:upload-progress#1:3 EVENT seconds=S
    sends the event S seconds late
event-foreign:upload-progress EVENT
    sends the event, and a copy of it with the id of another session
event-types:upload-progress:totalProgress EVENT key=KEY?
    changes the types of the values in the event: of KEY, or of all values
socket-off:websocket SOCKET
    responds with 404, as a server without Socket.IO does
socket-refuse:realtime SOCKET
    refuses new connections with 403
socket-hang:websocket SOCKET
    accepts new connections and never responds
socket-freeze:realtime:2 SOCKET seconds=S
    drops all messages in both directions from S seconds after the first connection on; connections stay open
socket-kick:realtime:3 SOCKET seconds=S
    closes all connections every S seconds; clients may reconnect
socket-flap:realtime:4 SOCKET seconds=S
    alternates between S seconds without a fault and S seconds in which connections are closed and refused
socket-kill-after:realtime:4 SOCKET seconds=S
    closes all connections S seconds after the first connection, and refuses new ones from then on
latency:50 - ms=MS
    delays every request and every websocket message by MS milliseconds
fail-file:*.tmp GLOB
    fails matching files in a response with status 200
analysis-silent -
    sends no events of analyses; their status shows the progress
analysis-hang -
    stops analyses in their first stage, without a response
analysis-fail:report STAGE
    fails this stage of analyses with 503 (retryable)
analysis-refuse:plan STAGE
    fails this stage of analyses with 422 (permanent)
"""


def _size(text: str) -> int:
    return 0 if text == "0" else parse_size(text)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None


_PARSERS: dict[str, Callable[[str], Any]] = {
    "at": _size,
    "bytes": _integer,
    "code": parse_status,
    "down": parse_duration,
    "key": str,
    "ms": parse_number,
    "rate": parse_size,
    "retry-after": _integer,
    "seconds": parse_seconds,
    "size": _size,
}
"""Parsers of parameters by name; all others have a choice of words."""


class Parameter(NamedTuple):
    name: str
    shown: str  # its value in help texts
    required: bool
    default: Any

    def parse(self, text: str) -> Any:
        """Return the value. Raises ValueError with the expected form."""
        words = self.shown.split("|")
        if len(words) == 1:
            return _PARSERS[self.name](text)
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}")
        return text


class Fault(NamedTuple):
    """One kind of fault. The name of the first parameter may be omitted in a rule."""

    kind: str
    field: str  # the name of the second field of a rule; empty if there is none
    parameters: list[Parameter]
    text: str
    example: str

    @property
    def form(self) -> str:
        form = f"{self.kind}:{self.field}".rstrip(":") + ("[#WHICH]" if self.field in COUNTED else "")
        for number, parameter in enumerate(self.parameters):
            written = f",{parameter.name}={parameter.shown}" if number else f":{parameter.shown}"
            form += written if parameter.required else f"[{written}]"
        return form


def _fault(head: str, text: str) -> Fault:
    example, field, *words = head.split()
    parameters = []
    for word in words:
        name, _, value = word.partition("=")
        shown, optional, written = value.partition("?")
        default = shown.split("|")[0] if "|" in shown else _PARSERS[name](written) if written else None
        parameters.append(Parameter(name, shown, not optional, default))
    return Fault(example.partition(":")[0], field.strip("-"), parameters, text.strip(), example)


_LINES = _TABLE.strip().splitlines()
FAULTS = {fault.kind: fault for fault in map(_fault, _LINES[::2], _LINES[1::2])}  # faults by kind


def listing() -> str:
    lines = ["A rule is KIND[:FIELD][:PARAMETERS]; --fault may be repeated, and rules are independent.", ""]
    for fault in FAULTS.values():
        lines += [f"  {fault.form}", f"      {fault.text}", f"      --fault '{fault.example}'", ""]
    return "\n".join([*lines, *(f"{field}: {text}" for field, text in FIELD_TEXTS.items()), ""])
