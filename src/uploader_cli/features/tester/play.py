"""A situation, the server that plays it, and what a client did in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from uploader_cli.features.checks.check import Check, Finding, Violation
from uploader_cli.features.tester.http_server import Answer, Request

On = Literal["creation", "transfer", "append", "query", "any"]
"""A request that creates an upload, that has content, that appends, that asks for the offset; or any."""
Interim = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class Turn:
    """How the server treats one request otherwise than it should. Parts are those of the file.

    Fields have `{place}` for the path where uploads are created, `{upload}` for that of the upload, `{relative}` for it
    without the place, `{moved}` for another path of it, `{size}`, `{half}`, `{quarter}` and `{eighth}` for those
    numbers of bytes, and `{older}` for an interop version below that of the client.
    """

    on: On
    status: int = 0
    """The server reads the content, keeps nothing of it, and answers this."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Those of the answer, in place of its own; an empty one is left out."""
    early: Interim | None = None
    late: Interim | None = None
    keep: float = 1.0
    """The part of the file up to which content is kept."""
    cut: Literal["", "midway", "end"] = ""
    """The connection ends once `keep` is reached, or in place of the answer."""
    gain: float = 0.0
    """The part of the file that the upload has before the request: it came from elsewhere."""
    pause: float = 0.0
    always: bool = False
    """It is for all further requests of its kind, too."""


@dataclass(eq=False)
class Upload:
    """An upload: `size` is None until the client told it."""

    path: str
    size: int | None
    creation: Request
    data: bytearray = field(default_factory=bytearray)
    complete: bool = False
    gone: bool = False

    @property
    def offset(self) -> int:
        return len(self.data)


@dataclass(eq=False)
class Played:
    """What happened: the requests in the order of their heads, and the uploads.

    `exit` is the exit code of the client; None where nobody knows it. `content` is that of the file.
    """

    content: bytes
    mark: str = ""
    """The field that a creation of the protocol has."""
    requests: list[Request] = field(default_factory=list)
    uploads: list[Upload] = field(default_factory=list)
    exit: int | None = None

    @property
    def told(self) -> list[Request]:
        """The requests until the client was told that an upload is complete; it may read it back after that."""
        ends = next((number for number, one in enumerate(self.requests, 1) if one.ends and one.status), None)
        return self.requests[:ends]

    @property
    def creations(self) -> list[Request]:
        return [one for one in self.told if one.method in ("POST", "PUT") and not one.upload]

    @property
    def queries(self) -> list[Request]:
        return [one for one in self.told if one.method in ("HEAD", "GET") and one.upload]

    @property
    def appends(self) -> list[Request]:
        return [one for one in self.told if one.method == "PATCH" and one.upload]

    @property
    def deletions(self) -> list[Request]:
        return [one for one in self.requests if one.method == "DELETE" and one.upload]

    def after(self, request: Request) -> list[Request]:
        return self.requests[self.requests.index(request) + 1 :]

    @property
    def stored(self) -> bool:
        """Whether an upload is complete and has the bytes of the file."""
        return any(upload.complete and bytes(upload.data) == self.content for upload in self.uploads)

    @property
    def said_success(self) -> bool:
        return self.exit == 0

    def honest(self) -> None:
        """Raise `Violation` if the client calls an upload complete that is not."""
        if self.said_success and not self.stored:
            raise Violation(
                "the end of the client", expected="exit code 0 only for a complete upload", got="0", corrupt=True
            )

    def finished(self) -> None:
        """Raise `Violation` unless the file is stored and the client says so, as nothing prevents that."""
        self.honest()
        if not self.stored or self.exit not in (0, None):
            got = f"exit code {self.exit}, {'a complete' if self.stored else 'no complete'} upload"
            raise Violation("the end of the client", expected="exit code 0 and a complete upload", got=got)

    def failed(self, why: str) -> None:
        """Raise `Violation` if the client calls this a success."""
        if self.said_success:
            raise Violation("the end of the client", expected=f"a failure: {why}", got="exit code 0", corrupt=True)


@dataclass(frozen=True)
class Situation:
    """A check of a client: `turns` are done in their order, each once the one before it is."""

    check: Check
    turns: tuple[Turn, ...]
    tests: tuple[str, ...]
    """The requirements that it tests: `section/keyword/number in the section`."""
    how: Mapping[str, Any]
    """What the server is like in all requests, by the names of `Play`."""


Judge = Callable[[Played], Finding | str | None]


def situation(
    name: str, description: str, section: str, *turns: Turn, tests: str = "", required: bool = True, **how: Any
) -> Callable[[Judge], Situation]:
    """Make a situation of the function that judges it; `tests` are IDs of requirements."""

    def make(judge: Judge) -> Situation:
        check = Check(name, f"{description} (section {section})", judge, required=required)
        return Situation(check, turns, tuple(tests.split(", ")) if tests else (), how)

    return make


class Play:
    """The server in one situation. A protocol is a subclass with its own `exchange`."""

    mark: str
    """The field that a creation of this protocol has."""

    def __init__(self, place: str, situation: Situation, content: bytes, *, speaks: bool = True) -> None:
        """`place` is the path below which all URLs are; `speaks` is false for a server without the protocol."""
        self.place, self.speaks = place, speaks
        self.played = Played(content, self.mark)
        self._turns = list(situation.turns)

    def turn(self, request: Request) -> Turn:
        """Return the next turn if it is for this request, else one that changes nothing."""
        if not self._turns or not _is_for(self._turns[0].on, request):
            return Turn("any")
        return self._turns[0] if self._turns[0].always else self._turns.pop(0)

    def again(self, turn: Turn) -> None:
        """Keep a turn whose point the request did not reach."""
        self._turns.insert(0, turn)

    def upload_at(self, path: str) -> Upload | None:
        number = path.rstrip("/").rpartition("/")[2]
        return next((one for one in self.played.uploads if one.path.endswith(f"/{number}")), None)

    def new_upload(self, request: Request, size: int | None) -> Upload:
        upload = Upload(f"{self.place}/uploads/{len(self.played.uploads) + 1}", size, request)
        self.played.uploads.append(upload)
        return upload

    def begin(self, request: Request) -> Transfer:
        """Record a request, and return what becomes of it."""
        request.method = request.fields.get("x-http-method-override", request.method).upper()
        upload = self.upload_at(request.path)
        request.upload = self.played.uploads.index(upload) + 1 if upload else 0
        self.played.requests.append(request)
        return self.exchange(request)

    def exchange(self, request: Request) -> Transfer:
        raise NotImplementedError


def _is_for(on: On, request: Request) -> bool:
    match on:
        case "creation":
            return not request.upload and request.method in ("POST", "PUT")
        case "transfer":
            return request.has_content and request.method in ("POST", "PUT", "PATCH")
        case "append":
            return bool(request.upload) and request.method == "PATCH"
        case "query":
            return bool(request.upload) and request.method in ("HEAD", "GET")
    return True


class Transfer:
    """An exchange of a play: a turn changes what the protocol has `own`."""

    def __init__(self, play: Play, request: Request, upload: Upload | None) -> None:
        self.play, self.request, self.upload = play, request, upload
        self.turn = play.turn(request)
        self.pause = self.turn.pause
        self._reached = False
        self.processed = True
        """All content that has arrived is kept."""
        if upload is not None and self.turn.gain:
            upload.data = bytearray(self.play.played.content.ljust(self._bytes(self.turn.gain), b"\0"))
            del upload.data[self._bytes(self.turn.gain) :]

    def _bytes(self, part: float) -> int:
        return int(len(self.play.played.content) * part)

    def filled(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Return fields with the numbers of this file and upload."""
        size, version = len(self.play.played.content), self.request.fields.get("upload-draft-interop-version", "1")
        values = {
            "upload": self.upload.path if self.upload else "",
            "place": self.play.place,
            "relative": self.upload.path.removeprefix(f"{self.play.place}/") if self.upload else "",
            "moved": self.upload.path.replace("/uploads/", "/moved/") if self.upload else "",
            "size": size,
            "half": size // 2,
            "quarter": size // 4,
            "eighth": size // 8,
            "older": int(version) - 1 if version.isdecimal() else 0,
        }
        return {name: text.format(**values) for name, text in fields.items()}

    def early(self) -> list[Mapping[str, str]]:
        return [*map(self.filled, self.own_early() if self.turn.early is None else self.turn.early)]

    def late(self) -> list[Mapping[str, str]]:
        return [*map(self.filled, self.own_late() if self.turn.late is None else self.turn.late)]

    def take(self, piece: bytes) -> bool:
        if self.upload is None or self.turn.status or not self.accepts():
            return True
        room = self._bytes(self.turn.keep) - self.upload.offset if self.turn.keep < 1 else len(piece)
        self.upload.data += piece[: max(0, room)]
        self._reached = self.turn.keep < 1 and len(piece) >= room
        self.processed = self.processed and room >= len(piece)
        return not (self._reached and self.turn.cut == "midway")

    def answer(self) -> Answer:
        if self.turn.cut == "midway" and not self._reached:
            self.play.again(self.turn)
            return self.own_answer()
        if self.turn.status:
            return Answer(self.turn.status, self.filled(self.turn.fields))
        own = self.own_answer()
        if self.turn.cut:
            return Answer(0)
        fields = {**own.fields, **self.filled(self.turn.fields)}
        return replace(own, fields={name: text for name, text in fields.items() if text})

    def accepts(self) -> bool:
        """Return whether the content belongs to the upload."""
        return True

    def own_early(self) -> Interim:
        return ()

    def own_late(self) -> Interim:
        return ()

    def own_answer(self) -> Answer:
        raise NotImplementedError
