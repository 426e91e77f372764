"""Small tus servers that enforce the documented rules of public services, each rule with its source."""

from __future__ import annotations

import base64
import hashlib
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from scripted_server import Answer, Request, Rule, ScriptedServer
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

KIB, MIB = 1 << 10, 1 << 20
NOBODY = "00000000-0000-4000-8000-000000000000"
"""The upload that a client asks for to find out whether a server is there."""
OF_TUS = {"Tus-Resumable": "1.0.0"}
FIRST = b"first"
"""Beginning of a file whose first part `Finishing` treats differently."""


class Refused(Exception):
    """The service refuses the request with `status`; without `by_service` a gateway in front of it does."""

    def __init__(self, status: int, why: str, kind: str = "text/plain", *, by_service: bool = True) -> None:
        super().__init__(why)
        self.status, self.kind, self.by_service = status, kind, by_service


class Unanswered(Exception):
    """The request gets no answer: its connection is closed, after `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__("no answer")
        self.seconds = seconds


@dataclass
class Upload:
    """One upload, with the sizes of the chunks that it was sent in; `length` is None until it is known.

    `partial`: it is to be joined with others. `writing` is held while a chunk is checked and stored.
    """

    length: int | None
    metadata: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    chunks: list[int] = field(default_factory=list)
    partial: bool = False
    writing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


class Service:
    """Any tus 1.0 server with creation; a context manager, `url` is its endpoint.

    `refusals` are the broken rules, `requests` (method, headers) in order. The next `locked` requests to uploads are
    answered with `lock_status`, as if another request used the upload.
    """

    extensions: ClassVar[str] = "creation"
    methods: ClassVar[str] = "OPTIONS POST HEAD PATCH"
    query: ClassVar[str] = ""  # of the URLs of uploads
    lock_status: ClassVar[int] = 423
    lock_reason: ClassVar[bytes] = b""

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.refusals: list[str] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.locked = self.created = 0
        self.readable = False  # whether GET returns the content of an upload
        self.codes = False  # and says that it is compressed
        self.refuses: tuple[int, str, str] | None = None  # status, body and its type as answer to all creations
        self.forgets = False  # whether uploads are gone when they are complete
        self.silent: set[str] = set()  # methods whose answers have no Upload-Offset
        self.drops: set[str] = set()  # headers that a proxy removes from answers
        self.options: tuple[int, str, bytes] | None = None
        """Status, type and body of the answer to OPTIONS of a framework."""
        self.gateway: dict[int, int] = {}  # statuses with which a gateway answers, by the number of the request
        self.is_down = False  # drops all requests, until it has dropped one that changes nothing
        self.begun = 0
        self.url = ""
        self._storing = threading.Lock()

    def __enter__(self) -> Self:
        self._server = ScriptedServer(Rule(self._answer)).__enter__()
        self.url = f"{self._server.url}/files/"
        return self

    def __exit__(self, *error: Any) -> None:
        self._server.__exit__(*error)

    @property
    def only(self) -> Upload:
        """The only upload."""
        (upload,) = self.uploads.values()
        return upload

    def existing(self, length: int | None, content: bytes = b"") -> str:
        """Create an upload as the service's own API does; return its URL."""
        name = f"u{self.created}"
        self.created += 1
        self.uploads[name] = Upload(length, content=bytearray(content))
        return f"{self.url}{name}{self.query and '?'}{self.query}"

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        """Check a new upload; return headers of the answer."""
        if self.refuses is not None:
            raise Refused(*self.refuses)
        return {}

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        """Check a chunk of `size` bytes before it is stored."""

    def complete(self, upload: Upload, headers: dict[str, str]) -> None:
        """Check an upload that is about to be complete."""

    def finish(self, upload: Upload) -> None:
        """Store an upload that is complete; its offset is the length, whatever happens here."""

    # --- requests -----------------------------------------------------------------------------------------------------

    def _answer(self, request: Request) -> Answer | None:
        number, self.begun = self.begun, self.begun + 1
        if self.is_down and number not in self.gateway:
            self.is_down = not (request.method == "OPTIONS" or NOBODY in request.path)
            return None
        self.requests.append((request.method, request.headers))
        try:
            if number in self.gateway:
                raise Refused(self.gateway[number], "down", by_service=False)
            if request.method not in self.methods.split():
                if request.method == "GET":  # breaks no rule: that is how a client learns it
                    return Answer(405)
                raise Refused(405, f"{request.method} is not allowed")
            if request.method == "OPTIONS" and self.options is not None:
                status, kind, body = self.options
                return Answer(status, body, {"Content-Type": kind})
            answer: Answer = getattr(self, f"_{request.method.lower()}")(request)
        except Refused as error:
            self.refusals.append(str(error))
            more = {"Retry-After": 0} if error.status >= 500 else {}
            answer = Answer(error.status, str(error).encode(), {"Content-Type": error.kind, **more})
            if not error.by_service:
                return answer
        except Unanswered as error:
            request.over.wait(error.seconds)
            return None
        answer.headers |= OF_TUS
        for name in self.drops | ({"Upload-Offset"} if request.method in self.silent else set()):
            answer.headers.pop(name, None)
        return answer

    def _options(self, request: Request) -> Answer:
        return Answer(204, headers={"Tus-Version": "1.0.0", "Tus-Extension": self.extensions})

    def _delete(self, request: Request) -> Answer:
        found = self._find(request)
        if isinstance(found, Upload):
            del self.uploads[_name(request)]
            return Answer(204)
        return found

    def _get(self, request: Request) -> Answer:
        found = self._find(request) if self.readable else Answer(404)
        headers = {"Content-Encoding": "gzip"} if self.codes else {}
        return Answer(200, bytes(found.content), headers) if isinstance(found, Upload) else found

    def _post(self, request: Request) -> Answer:
        headers = request.headers
        length = int(headers["upload-length"]) if "upload-length" in headers else None
        upload = Upload(length, _metadata(headers.get("upload-metadata", "")))
        kind, _, urls = headers.get("upload-concat", "").partition(";")
        assert ("upload-length" in headers) + (headers.get("upload-defer-length") == "1") == (kind != "final")
        upload.partial = kind == "partial"
        with self._storing:
            more = self.create(upload, headers)
            name = f"u{self.created}"
            self.created += 1
            self.uploads[name] = upload
            if kind == "final":
                parts = [self.uploads[url.rpartition("/")[2]] for url in urls.split()]
                upload.length = sum(part.length or 0 for part in parts)
                self._store(upload, b"".join(part.content for part in parts), headers)
            elif request.body:
                self._store_chunk(upload, request)
        return Answer(201, headers={"Location": f"/files/{name}", "Upload-Offset": len(upload.content), **more})

    def _head(self, request: Request) -> Answer:
        found = self._find(request)
        if not isinstance(found, Upload):
            return found
        length = {"Upload-Length": found.length} if found.length is not None else {"Upload-Defer-Length": 1}
        return Answer(
            200,
            headers={
                **length,
                "Upload-Offset": len(found.content),
                "Cache-Control": "no-store",
            },
        )

    def _patch(self, request: Request) -> Answer:
        found = self._find(request)
        if not isinstance(found, Upload):
            return found
        with found.writing:
            if int(request.headers["upload-offset"]) != len(found.content):
                return Answer(409)
            if "upload-length" in request.headers:
                # tus 1.0, creation-defer-length: "Once set the length MUST NOT be changed"
                if found.length is not None:
                    raise Refused(400, "the length is known already")
                found.length = int(request.headers["upload-length"])
            self._store_chunk(found, request)
            return Answer(204, headers={"Upload-Offset": len(found.content)})

    def _store_chunk(self, upload: Upload, request: Request) -> None:
        assert request.headers["content-type"] == "application/offset+octet-stream"
        self._store(upload, request.body, request.headers)

    def _store(self, upload: Upload, body: bytes, headers: dict[str, str]) -> None:
        self.receive(upload, len(body), headers)
        is_last = len(upload.content) + len(body) == upload.length
        if is_last:
            self.complete(upload, headers)
        upload.content += body
        upload.chunks.append(len(body))
        if is_last:
            self.finish(upload)

    def _find(self, request: Request) -> Upload | Answer:
        """Return the upload of a request, or the answer that there is none for it now."""
        upload = self.uploads.get(_name(request))
        if upload is None or request.path.partition("?")[2] != self.query:
            return Answer(404)
        if self.forgets and len(upload.content) == upload.length:
            return Answer(404)
        if self.locked:
            self.locked -= 1
            return Answer(self.lock_status, self.lock_reason)
        return upload


class Spoiling(Service):
    """Goes down in the middle of the second chunk, and keeps what it has of that before the bytes of the next request.

    So does tuspyserver. With `readable` it gives out its files.
    """

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, *, spoils: bool, readable: bool) -> None:
        super().__init__()
        self.readable, self._spoils = readable, spoils
        self._twice = b""
        self._at = 0

    def _patch(self, request: Request) -> Answer:
        upload = self.uploads[_name(request)]
        if upload.chunks and not self._twice:
            self._at, self._twice = len(upload.content), request.body[:100]
            raise Unanswered(0)
        return super()._patch(request)

    def _get(self, request: Request) -> Answer:
        answer = super()._get(request)
        if self._spoils and isinstance(answer.body, bytes):
            answer.body = answer.body[: self._at] + self._twice + answer.body[self._at :]
        return answer


class Announcing(Service):
    """Announces checksums of an algorithm, and compares those of SHA-1 unless it `ignores` them, as oCIS does.

    Of each chunk that begins at an offset of `damages` the first byte is changed on its way, once.
    """

    extensions = "creation,creation-with-upload,creation-defer-length,checksum"
    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, algorithm: str = "sha1", *, ignores: bool = False, damages: Iterable[int] = ()) -> None:
        super().__init__()
        self._algorithm, self._ignores, self._damages = algorithm, ignores, set(damages)
        self.wrong: list[int] = []
        """The offsets of chunks with a wrong checksum."""

    def _options(self, request: Request) -> Answer:
        answer = super()._options(request)
        answer.headers["Tus-Checksum-Algorithm"] = self._algorithm
        return answer

    def _store_chunk(self, upload: Upload, request: Request) -> None:
        at = len(upload.content)
        if request.body and at in self._damages:
            self._damages.remove(at)
            request = replace(request, body=bytes([request.body[0] ^ 1]) + request.body[1:])
        algorithm, _, digest = request.headers.get("upload-checksum", "").partition(" ")
        if algorithm == "sha1" and base64.b64decode(digest) != hashlib.sha1(request.body).digest():
            self.wrong.append(at)
            if not self._ignores:
                raise Refused(460, "")
        super()._store_chunk(upload, request)


class Plain(Service):
    """A server with only core and creation, which holds each request to the version of the protocol.

    With `late` it stores what arrived of a cut request only after a HEAD.
    """

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, *, late: bool = False) -> None:
        super().__init__()
        self._late, self._asked = late, threading.Event()

    def _answer(self, request: Request) -> Answer | None:
        if request.method == "OPTIONS" and request.path != "/files/":
            return Answer(404, headers=OF_TUS)
        if request.method not in ("OPTIONS", "GET") and request.headers.get("tus-resumable") != "1.0.0":
            return Answer(412, headers=OF_TUS)
        if self._late and len(request.body) < int(request.headers.get("content-length", 0)):
            self._asked.clear()
            while not (self._asked.wait(0.01) or request.over.is_set()):
                pass
        answer = super()._answer(request)
        if request.method == "HEAD":
            self._asked.set()
        return answer


class Finishing(Service):
    """A server that stores a file when its upload is complete, as tusd (hooks, S3) and @tus/server (onUploadFinish) do.

    Its HEAD reports the full offset also where that failed, and an empty PATCH then answers 204. `fault` says how it
    ends: `fail` (500), `refuse` (400), `gateway` (502 of a gateway, after the file was stored), `lose` and `hang`
    (stored, no answer), `die` (killed before it stored the file, and started again). `unreadable` is the answer to GET
    of a file that is not stored, or where nothing is `readable`. With `of_parts` the end is that of the first part of a
    file, else of whole files. `stored` are the files, in order.
    """

    extensions = "creation,concatenation,termination"
    methods = "OPTIONS POST HEAD PATCH DELETE GET"
    hangs = PATIENCE

    def __init__(self, fault: str = "", *, of_parts: bool = False, with_upload: bool = False) -> None:
        super().__init__()
        self.fault, self.of_parts = fault, of_parts
        self.stored: list[bytes] = []
        self._finished: list[Upload] = []
        self.arrived = threading.Event()  # once an upload is complete
        self._readable: list[Upload] = []
        self.unreadable = Answer(404)
        if with_upload:
            self.extensions += ",creation-with-upload"  # type: ignore[misc]

    def finish(self, upload: Upload) -> None:
        if any(upload is other for other in self._finished):
            return
        self._finished.append(upload)
        if upload.partial == self.of_parts:
            self.arrived.set()
        fault = self.fault_of(upload)
        if fault == "fail":
            raise Refused(500, "the object store is down")
        if fault == "refuse":
            raise Refused(400, "virus found")
        if not upload.partial and fault != "die":
            self.store(upload)
        if fault == "gateway":
            raise Refused(502, "Bad Gateway", by_service=False)
        if fault in ("lose", "hang", "die"):
            raise Unanswered(self.hangs if fault == "hang" else 0.0)

    def fault_of(self, upload: Upload) -> str:
        """Return how the finish of an upload ends."""
        is_meant = upload.partial == self.of_parts and (not self.of_parts or upload.content.startswith(FIRST))
        return self.fault if is_meant else ""

    def store(self, upload: Upload) -> None:
        """Store a file."""
        self.stored.append(bytes(upload.content))
        self._readable.append(upload)

    def _get(self, request: Request) -> Answer:
        found = self._find(request)
        if not isinstance(found, Upload) or not self.readable or all(found is not one for one in self._readable):
            return replace(self.unreadable)
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        if not start or self.codes:
            return super()._get(request)
        size = len(found.content)
        headers = {"Content-Range": f"bytes {start}-{size - 1}/{size}"}
        return Answer(206, bytes(found.content[start:]), headers)


class Sharing(Finishing):
    """One of two servers with the same store: it finds an upload by its key, and names no offset then.

    The other one ended the first upload as `fault` says.
    """

    def _post(self, request: Request) -> Answer:
        key = _metadata(request.headers["upload-metadata"])["uploadKey"]
        for name, upload in self.uploads.items():
            if upload.metadata["uploadKey"] == key:
                return Answer(201, headers={"Location": f"/files/{name}"})
        return super()._post(request)

    def fault_of(self, upload: Upload) -> str:
        return self.fault if len(self._finished) == 1 else ""


class Overtaken(Finishing):
    """One of two servers with the same store. A gateway gives up the other one while that stores the bytes at `at`.

    They are stored when the next request sends them again: that has another offset then.
    """

    extensions = "creation"

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at, self._late, self.readable = at, list[Request](), True

    def _patch(self, request: Request) -> Answer:
        at = int(request.headers["upload-offset"])
        if at == self._at and not self._late:
            self._late.append(request)
            raise Refused(502, "Bad Gateway", by_service=False)
        if at == self._at and len(self._late) == 1:
            self._late *= 2
            super()._patch(self._late[0])
        return super()._patch(request)


class Dying(Service):
    """A server that ends when it receives the file `name`, with all requests under way, and is started again."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.deaths, self._died = name, 0, threading.Condition()

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        ends = upload.metadata["filename"] == self.name
        with self._died:
            before = self.deaths
            self._died.wait_for(lambda: self.deaths > before, timeout=0.2 if ends else 0.6)  # until all are under way
            if ends:
                self.deaths, self.is_down = self.deaths + 1, True
                self._died.notify_all()
            if self.deaths > before:
                raise Unanswered


class Keyed(Service):
    """Finds the upload of a repeated creation by its key, and does not answer the first creation."""

    extensions = "creation,creation-with-upload"
    methods = "OPTIONS POST HEAD PATCH GET"

    def _post(self, request: Request) -> Answer:
        key = _metadata(request.headers["upload-metadata"])["uploadKey"]
        for name, upload in self.uploads.items():
            if upload.metadata["uploadKey"] == key:
                return Answer(201, headers={"Location": f"/files/{name}"})
        answer = super()._post(request)
        if len(self.uploads) == 1:
            raise Unanswered
        return answer


class CloudflareStream(Service):
    """https://developers.cloudflare.com/stream/uploading-videos/resumable-uploads/ ("Requirements")."""

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # "Get the video ID when using tus": the ID is in this header of the first answer, not in the URL.
        return {"stream-media-id": f"cab807e0c477d01baq20f66c3d1dfc2{len(self.uploads)}"}

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        is_last = len(upload.content) + size == upload.length
        # "a minimum chunk size of 5,242,880 bytes unless the entire file is less than this amount"
        if size < 5_242_880 and not is_last:
            raise Refused(400, f"a chunk of {size} bytes is too small")
        # "Maximum chunk size is 209,715,200 bytes."
        if size > 209_715_200:
            raise Refused(413, f"a chunk of {size} bytes is too large")
        # "Chunk size must be divisible by 256 KiB"; the final chunk is exempt
        if size % (256 * KIB) and not is_last:
            raise Refused(400, f"a chunk of {size} bytes is no multiple of 256 KiB")


class CloudflareDirectUpload(CloudflareStream):
    """https://developers.cloudflare.com/stream/uploading-videos/direct-creator-uploads/ ("tus protocol")."""

    # "The one-time upload URL is returned in the Location header of the response": the API of another host creates the
    # upload with "Upload-Length", and this URL, .../tus/ID?tusv2=true, is all that the user's client gets.
    methods = "HEAD PATCH"
    query = "tusv2=true"


class Vimeo(Service):
    """https://developer.vimeo.com/api/upload/videos ("Using the resumable approach")."""

    # POST api.vimeo.com/me/videos with {"upload": {"approach": "tus", "size": …}} returns upload.upload_link, on a host
    # for uploads; there the file is sent by PATCH (with Tus-Resumable, Upload-Offset and this Content-Type:
    # application/offset+octet-stream), and its offset is asked by HEAD. No other method is documented for it.
    methods = "HEAD PATCH"

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        if not {"tus-resumable", "upload-offset"} <= headers.keys():
            raise Refused(412, "headers are missing")


class Supabase(Service):
    """https://supabase.com/docs/guides/storage/uploads/resumable-uploads."""

    extensions = "creation,creation-with-upload,creation-defer-length,termination,expiration"
    lock_status = 409  # "Only 1 client can upload to the same upload URL": the others "receive a 409 Conflict error"

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], Upload] = {}

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # github.com/supabase/storage, src/http/routes/tus/lifecycle.ts, namingFunction: both make the upload's name
        for key in ("bucketName", "objectName"):
            if not upload.metadata.get(key):
                raise Refused(400, f"no {key}")
        # the same file, onCreate: whole seconds become max-age, anything else no-cache
        if not upload.metadata.get("cacheControl", "").isdigit():
            raise Refused(400, "cacheControl is not whole seconds")
        return {}

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        # The example's comment beside a chunkSize of 6 MiB: "it must be set to 6MB (for now) do not change it"
        if size != 6 * MIB and len(upload.content) + size != upload.length:
            raise Refused(400, f"a chunk of {size} bytes is not 6 MiB")

    def complete(self, upload: Upload, headers: dict[str, str]) -> None:
        place = upload.metadata["bucketName"], upload.metadata["objectName"]
        # "the first client to complete the upload will succeed and the other clients will receive a 409 Conflict
        # error. If you provide the x-upsert header the last client to complete the upload will succeed instead."
        if place in self.objects and headers.get("x-upsert") != "true":
            raise Refused(409, "the object exists")
        self.objects[place] = upload


class Tusd(Service):
    """https://tus.github.io/tusd/: no rules for chunks; locks (advanced-topics/locks) are answered with 423."""

    extensions = "creation,creation-with-upload,termination,creation-defer-length"  # concatenation is left out here

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # pkg/handler/unrouted_handler.go, filterContentType: downloads are named and typed by these keys
        if not {"filename", "filetype"} <= upload.metadata.keys():
            raise Refused(400, "no filename or filetype")
        return {}


class Directus(Service):
    """https://directus.io/docs/configuration/files ("Chunked Uploads"), and the code of its store."""

    extensions = "creation,termination,expiration"  # tusExtensions of its storage drivers

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # github.com/directus/directus, api/src/services/tus/data-store.ts, create: INVALID_METADATA
        if not upload.length or not upload.metadata.get("filename_download"):
            raise Refused(400, "Upload-Metadata is invalid")
        return {}

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        # "Chunked Upload Restrictions": a power of 2 for GCS, at most 100mb for Azure, at least 5mb for Cloudinary
        is_last = len(upload.content) + size == upload.length
        if not is_last and (size.bit_count() != 1 or not 5_000_000 <= size <= 100_000_000):
            raise Refused(500, f"the storage does not take a chunk of {size} bytes")

    def _patch(self, request: Request) -> Answer:
        answer, upload = super()._patch(request), self.uploads[_name(request)]
        if len(upload.content) == upload.length:  # server.ts, onUploadFinish
            answer.headers["Directus-File-Id"] = f"8cbb43fe-4cdf-4991-8352-c461779cec0{_name(request)[1:]}"
        return answer


class Transloadit(Service):
    """https://transloadit.com/docs/api/resumable-uploads/ ("Stage 2")."""

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # github.com/transloadit/node-sdk, src/tus.ts: the metadata that ties an upload to its Assembly
        for key in ("assembly_url", "fieldname", "filename"):
            if not upload.metadata.get(key):
                raise Refused(400, f"no {key}")
        return {}


class FileBrowser(Service):
    """github.com/filebrowser/filebrowser, http/tus_handlers.go: a URL for each file, and no header of tus but these."""

    methods = "POST HEAD PATCH DELETE"

    def __init__(self) -> None:
        super().__init__()
        self.drops = {"Tus-Resumable", "Tus-Version", "Tus-Extension"}

    def __enter__(self) -> Self:
        super().__enter__()
        self.url = f"{self._server.url}/api/tus/{{path}}"
        return self

    def _post(self, request: Request) -> Answer:
        path, _, query = request.path.removeprefix("/api/tus/").partition("?")
        if request.headers.get("x-auth", "").count(".") != 2:  # auth.go: a JSON Web Token
            raise Refused(403, "Forbidden")
        # "Existing files will remain untouched unless explicitly instructed to override"
        if path in self.uploads and query != "override=true":
            raise Refused(409, "Conflict")
        self.uploads[path] = Upload(int(request.headers["upload-length"]), _metadata(""))
        return Answer(201, headers={"Location": f"/api/tus/{path}"})

    def _find(self, request: Request) -> Upload | Answer:
        upload = self.uploads.get(request.path.removeprefix("/api/tus/"))
        # cache.Complete: a file that is complete is no upload any more
        is_over = upload is None or (len(upload.content) == upload.length and bool(upload.chunks))
        return Answer(404) if upload is None or is_over else upload


class OpenCloud(Service):
    """https://docs.opencloud.eu/docs/dev/server/apis/http/tus_upload, and reva, the code behind oCIS and OpenCloud."""

    extensions = "creation,creation-with-upload,checksum,expiration"

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, Upload] = {}

    def _options(self, request: Request) -> Answer:
        answer = super()._options(request)
        answer.headers["Tus-Checksum-Algorithm"] = "md5,sha1,crc32"
        return answer

    def _post(self, request: Request) -> Answer:
        # github.com/owncloud/reva, ocdav/tus.go: an empty file is touched, and has no upload
        if request.headers["upload-length"] == "0":
            self.create(Upload(0, _metadata(request.headers["upload-metadata"])), {})
            return Answer(201, headers={"Location": ""})
        return super()._post(request)

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        # ocdav/tus.go and validation.go: a name that is refused, and a directory that does not exist, are answered so
        name = upload.metadata.get("filename", "")
        if not name.strip() or "/" in name or any(char in name for char in "\\\r\n\f"):
            raise Refused(412, "")
        self.objects[name] = upload
        return {}

    def receive(self, upload: Upload, size: int, headers: dict[str, str]) -> None:
        # max_chunk_size, which the capabilities announce; wrong checksums are taken (owncloud/ocis issue 1755)
        if size > 10_000_000:
            raise Refused(413, f"a chunk of {size} bytes is too large")

    def _patch(self, request: Request) -> Answer:
        answer = super()._patch(request)
        answer.headers["Oc-Fileid"] = f"storage$space!{_name(request)}"
        return answer


def _name(request: Request) -> str:
    return request.path.partition("?")[0].rpartition("/")[2]


def _metadata(header: str) -> dict[str, str]:
    pairs = [pair.partition(" ") for pair in header.split(",") if pair]
    return {key: base64.b64decode(value).decode() for key, _, value in pairs}
