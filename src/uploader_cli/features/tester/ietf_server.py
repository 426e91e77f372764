"""A server of the IETF's resumable uploads, as the draft says; a situation changes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from uploader_cli.features.tester.http_server import Answer, Request
from uploader_cli.features.tester.play import Interim, Play, Transfer, Upload

INTEROP = "Upload-Draft-Interop-Version"
TYPES = "https://iana.org/assignments/http-problem-types#"


def flag(request: Request) -> bool | None:
    """Return what Upload-Complete says; None without it, or with another value than a boolean."""
    return {"?1": True, "?0": False}.get(request.fields.get("upload-complete", "").partition(";")[0].strip())


def length_of(request: Request, offset: int) -> int | None:
    """Return the length of the upload that a request tells, if it does."""
    if (told := request.number("upload-length")) is not None:
        return told
    return offset + request.length if flag(request) and request.length is not None else None


class IetfPlay(Play):
    """`limits` are those of all uploads."""

    mark = "Upload-Complete"

    def __init__(self, *how: Any, limits: str = "min-size=0", **more: Any) -> None:
        super().__init__(*how, **more)
        self.limits = limits

    def exchange(self, request: Request) -> Transfer:
        """Return what becomes of a request, by its method and URL."""
        if request.path.rstrip("/") != self.place:
            upload = self.upload_at(request.path)
            kinds = {"HEAD": Query, "GET": Query, "PATCH": Append, "DELETE": Deletion}
            known = upload is not None and not upload.gone
            return kinds.get(request.method, Missing)(self, request, upload) if known else Missing(self, request, None)
        if request.method in ("POST", "PUT", "PATCH"):
            if not self.speaks or flag(request) is None:
                return Plain(self, request, self.new_upload(request, None))
            return Creation(self, request, self.new_upload(request, length_of(request, 0)))
        return Options(self, request, None)


class IetfTransfer(Transfer):
    play: IetfPlay

    @property
    def target(self) -> Upload:
        assert self.upload is not None  # noqa: S101 - it is made with one
        return self.upload

    @property
    def version(self) -> dict[str, str]:
        """The interop version of the client, in whose terms the server answers."""
        sent = self.request.fields.get(INTEROP.lower())
        return {INTEROP: sent} if sent else {}

    def early(self) -> list[Mapping[str, str]]:
        return [*map(self._interim, super().early())]

    def late(self) -> list[Mapping[str, str]]:
        return [*map(self._interim, super().late())]

    def _interim(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Add the version; only a creation has a Location."""
        kept = {name: text for name, text in fields.items() if name != "Location" or isinstance(self, Creation)}
        return {**self.version, **kept}

    @property
    def limits(self) -> dict[str, str]:
        return self.filled({"Upload-Limit": self.play.limits})

    def problem(self, status: int, kind: str, fields: Mapping[str, str], **more: object) -> Answer:
        content = json.dumps({"type": TYPES + kind, **more}).encode()
        return Answer(status, {"Content-Type": "application/problem+json", **fields}, content)

    def ended(self) -> Answer:
        """Answer a request whose content is kept; a check looks at lengths, so that the others need not."""
        upload = self.target
        if upload.size is None:
            upload.size = length_of(self.request, upload.offset - len(self.request.content))
        if not (flag(self.request) and self.request.whole and self.processed):
            return self.more()
        upload.complete = self.request.ends = True
        return Answer(200, {"Upload-Complete": "?1", **self.limits})

    def more(self) -> Answer:
        return Answer(204, {"Upload-Complete": "?0", "Upload-Offset": str(self.target.offset)})


class Creation(IetfTransfer):
    def own_early(self) -> Interim:
        return ({"Location": "{upload}", **self.limits},)

    def own_answer(self) -> Answer:
        return self.ended()

    def more(self) -> Answer:
        return Answer(201, {"Location": self.target.path, "Upload-Complete": "?0", **self.limits})


class Append(IetfTransfer):
    def __init__(self, play: Play, request: Request, upload: Upload | None) -> None:
        super().__init__(play, request, upload)
        self._fits = request.number("upload-offset") == self.target.offset and not self.target.complete

    def accepts(self) -> bool:
        return self._fits

    def own_late(self) -> Interim:
        return ({"Upload-Offset": str(self.target.offset)},) if self.request.has_content else ()

    def own_answer(self) -> Answer:
        upload, at = self.target, self.request.number("upload-offset")
        if upload.complete and at == upload.offset and not self.request.content:
            return Answer(200, {"Upload-Complete": "?1"})
        if not self._fits:
            fields = {"Upload-Complete": "?0", "Upload-Offset": str(upload.offset)}
            told = {"expected-offset": upload.offset, "provided-offset": at}
            return self.problem(409, "mismatching-upload-offset", fields, **told)
        return self.ended()


class Query(IetfTransfer):
    def own_answer(self) -> Answer:
        upload = self.target
        self.request.ends = upload.complete
        size = {} if upload.size is None else {"Upload-Length": str(upload.size)}
        state = {"Upload-Complete": f"?{upload.complete:d}", "Upload-Offset": str(upload.offset)}
        return Answer(204, {**state, **size, **self.limits, "Cache-Control": "no-store"})


class Deletion(IetfTransfer):
    def own_answer(self) -> Answer:
        self.target.gone = True
        return Answer(204)


class Options(IetfTransfer):
    def own_answer(self) -> Answer:
        return Answer(204, self.limits)


class Plain(IetfTransfer):
    """An upload without the protocol."""

    def own_answer(self) -> Answer:
        self.target.complete = True
        return Answer(201)


class Missing(IetfTransfer):
    def own_answer(self) -> Answer:
        return Answer(404)
