"""A server of tus 1.0 with creation, deferred lengths, checksums and termination; a situation changes it."""

from __future__ import annotations

from typing import Any

from uploader_cli.features.tester.http_server import Answer, Request
from uploader_cli.features.tester.play import Play, Transfer, Upload

VERSION_FIELD = "Tus-Resumable"
SPOKEN = {VERSION_FIELD: "1.0.0"}
EXTENSIONS = "creation,creation-defer-length,checksum,expiration,termination"


class TusPlay(Play):
    """`with_upload`: the content of a creation is kept, which the server announces."""

    mark = VERSION_FIELD

    def __init__(self, *how: Any, with_upload: bool = False, **more: Any) -> None:
        super().__init__(*how, **more)
        self.extensions = f"{EXTENSIONS},creation-with-upload" if with_upload else EXTENSIONS

    def exchange(self, request: Request) -> Transfer:
        """Return what becomes of a request, by its method and URL."""
        upload = self.upload_at(request.path)
        if not self.speaks:
            return Foreign(self, request, None)
        if upload is not None and not upload.gone:
            kinds: dict[str, type[TusTransfer]] = {"HEAD": Query, "PATCH": Append, "DELETE": Deletion}
            return kinds.get(request.method, Foreign)(self, request, upload)
        if upload is None and request.method == "POST":
            return Creation(self, request, self.new_upload(request, request.number("upload-length")))
        return Options(self, request, None) if request.method == "OPTIONS" else Missing(self, request, None)


class TusTransfer(Transfer):
    play: TusPlay

    @property
    def target(self) -> Upload:
        assert self.upload is not None  # noqa: S101 - it is made with one
        return self.upload

    def appended(self, status: int, **fields: str) -> Answer:
        """Answer a request whose content is kept; the upload is complete at its length."""
        upload = self.target
        upload.size = self.request.number("upload-length") if upload.size is None else upload.size
        upload.complete = self.request.ends = upload.offset == upload.size
        return Answer(status, {**SPOKEN, **fields, "Upload-Offset": str(upload.offset)})


class Creation(TusTransfer):
    def accepts(self) -> bool:
        return "creation-with-upload" in self.play.extensions

    def own_answer(self) -> Answer:
        return self.appended(201, Location=self.target.path)


class Append(TusTransfer):
    def __init__(self, play: Play, request: Request, upload: Upload | None) -> None:
        super().__init__(play, request, upload)
        self._fits = request.number("upload-offset") == self.target.offset

    def accepts(self) -> bool:
        return self._fits

    def own_answer(self) -> Answer:
        return self.appended(204) if self._fits else Answer(409, SPOKEN)


class Query(TusTransfer):
    def own_answer(self) -> Answer:
        upload = self.target
        self.request.ends = upload.complete
        size = {"Upload-Defer-Length": "1"} if upload.size is None else {"Upload-Length": str(upload.size)}
        return Answer(200, {**SPOKEN, **size, "Upload-Offset": str(upload.offset), "Cache-Control": "no-store"})


class Deletion(TusTransfer):
    def own_answer(self) -> Answer:
        self.target.gone = True
        return Answer(204, SPOKEN)


class Options(TusTransfer):
    def own_answer(self) -> Answer:
        told = {
            "Tus-Version": "1.0.0",
            "Tus-Extension": self.play.extensions,
            "Tus-Checksum-Algorithm": "sha1,md5,sha256",
        }
        return Answer(204, {**SPOKEN, **told})


class Foreign(TusTransfer):
    """The server does not know the method here."""

    def own_answer(self) -> Answer:
        return Answer(405)


class Missing(TusTransfer):
    def own_answer(self) -> Answer:
        return Answer(404, SPOKEN)
