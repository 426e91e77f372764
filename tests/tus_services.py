"""Small tus servers that enforce the documented rules of public services, each rule with its source."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB, MIB = 1 << 10, 1 << 20
NOBODY = "00000000-0000-4000-8000-000000000000"
"""The upload that a client asks for to find out whether a server is there."""
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

    `partial`: it is to be joined with others.
    """

    length: int | None
    metadata: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)
    chunks: list[int] = field(default_factory=list)
    partial: bool = False


class Service:
    """Any tus 1.0 server with creation. `refusals` are the broken rules, `requests` (method, headers) in order.

    The next `locked` requests to uploads are answered with `lock_status`, as if another request used the upload.
    """

    extensions: ClassVar[str] = "creation"
    methods: ClassVar[str] = "OPTIONS POST HEAD PATCH"
    query: ClassVar[str] = ""  # of the URLs of uploads
    lock_status: ClassVar[int] = 423

    def __init__(self) -> None:
        self.uploads: dict[str, Upload] = {}
        self.refusals: list[str] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.locked = self.created = 0
        self.readable = False  # whether GET returns the content of an upload
        self.refuses: tuple[int, str, str] | None = None  # status, body and its type as answer to all creations
        self.silent: set[str] = set()  # methods whose answers have no Upload-Offset
        self.drops: set[str] = set()  # headers that a proxy removes from answers
        self.options: tuple[int, str, bytes] | None = (
            None  # status, type and body of the answer to OPTIONS of a framework
        )
        self.gateway: dict[int, int] = {}  # statuses with which a gateway answers, by the number of the request
        self.is_down = False  # drops all requests, until it has dropped one that changes nothing
        self.begun = 0
        self.url = ""

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


class Finishing(Service):
    """A server that stores a file when its upload is complete, as tusd (hooks, S3) and @tus/server (onUploadFinish) do.

    Its HEAD reports the full offset also where that failed, and an empty PATCH then answers 204. `fault` says how it
    ends: `fail` (500), `refuse` (400), `gateway` (502 of a gateway, after the file was stored), `lose` and `hang`
    (stored, no answer). With `of_parts` that is the end of the first part of a file, else of whole files. `stored` are
    the files, in order.
    """

    extensions = "creation,concatenation,termination"
    methods = "OPTIONS POST HEAD PATCH DELETE GET"

    def __init__(self, fault: str = "", *, of_parts: bool = False, with_upload: bool = False) -> None:
        super().__init__()
        self.fault, self.of_parts = fault, of_parts
        self.stored: list[bytes] = []
        self._finished: list[Upload] = []
        if with_upload:
            self.extensions += ",creation-with-upload"  # type: ignore[misc]

    def finish(self, upload: Upload) -> None:
        if any(upload is other for other in self._finished):
            return
        self._finished.append(upload)
        fault = self.fault_of(upload)
        if fault == "fail":
            raise Refused(500, "the object store is down")
        if fault == "refuse":
            raise Refused(400, "virus found")
        if not upload.partial:
            self.store(upload)
        if fault == "gateway":
            raise Refused(502, "Bad Gateway", by_service=False)
        if fault in ("lose", "hang"):
            raise Unanswered(1.0 if fault == "hang" else 0.0)

    def fault_of(self, upload: Upload) -> str:
        """Return how the finish of an upload ends."""
        is_meant = upload.partial == self.of_parts and (not self.of_parts or upload.content.startswith(FIRST))
        return self.fault if is_meant else ""

    def store(self, upload: Upload) -> None:
        """Store a file."""
        self.stored.append(bytes(upload.content))


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


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def parse_request(self) -> bool:
        """Answer in place of the service where it is down."""
        if not super().parse_request():
            return False
        service = self.server.service
        number, service.begun = service.begun, service.begun + 1
        status = service.gateway.get(number)
        if status is not None:
            self._body()
            self._refuse(Refused(status, "down", by_service=False))
        elif service.is_down:
            self._body()
            service.is_down = not (self.command == "OPTIONS" or NOBODY in self.path)
            self.close_connection = True
        else:
            return True
        return False

    def do_OPTIONS(self) -> None:
        if self._is_refused():
            return
        if self.server.service.options is not None:
            status, kind, body = self.server.service.options
            self._answer(status, {"Content-Type": kind}, body, by_service=False)
            return
        self._answer(204, {"Tus-Version": "1.0.0", "Tus-Extension": self.server.service.extensions})

    def do_DELETE(self) -> None:
        if not self._is_refused() and self._find() is not None:
            del self.server.service.uploads[self._name]
            self._answer(204, {})

    def do_GET(self) -> None:
        if self._is_refused():
            return
        if not self.server.service.readable:
            self._answer(404, {})
        elif (upload := self._find()) is not None:
            self._answer(200, {"Content-Length": len(upload.content)})
            self.wfile.write(upload.content)

    def do_POST(self) -> None:
        if self._is_refused():
            return None
        service, headers = self.server.service, self._headers
        length = int(headers["upload-length"]) if "upload-length" in headers else None
        upload = Upload(length, _metadata(headers.get("upload-metadata", "")))
        kind, _, urls = headers.get("upload-concat", "").partition(";")
        assert ("upload-length" in headers) + (headers.get("upload-defer-length") == "1") == (kind != "final")
        upload.partial = kind == "partial"
        body = self._body()
        try:
            with self.server.lock:
                answer = service.create(upload, headers)
                name = f"u{service.created}"
                service.created += 1
                service.uploads[name] = upload
                if kind == "final":
                    parts = [service.uploads[url.rpartition("/")[2]] for url in urls.split()]
                    upload.length = sum(part.length or 0 for part in parts)
                    self._store(upload, b"".join(part.content for part in parts), joined=True)
                elif body:
                    self._store(upload, body)
        except Refused as error:
            return self._refuse(error)
        except Unanswered as error:
            return self._close(error)
        self._answer(201, {"Location": f"/files/{name}", "Upload-Offset": len(upload.content), **answer})
        return None

    def do_HEAD(self) -> None:
        upload = self._find()
        if upload is not None:
            length = {"Upload-Length": upload.length} if upload.length is not None else {"Upload-Defer-Length": 1}
            self._answer(200, {**length, "Upload-Offset": len(upload.content)})

    def do_PATCH(self) -> None:
        body, upload = self._body(), self._find()
        if upload is None:
            return None
        if int(self._headers["upload-offset"]) != len(upload.content):
            return self._answer(409, {})
        try:
            if "upload-length" in self._headers:
                # tus 1.0, creation-defer-length: "Once set the length MUST NOT be changed"
                if upload.length is not None:
                    raise Refused(400, "the length is known already")
                upload.length = int(self._headers["upload-length"])
            self._store(upload, body)
        except Refused as error:
            return self._refuse(error)
        except Unanswered as error:
            return self._close(error)
        return self._answer(204, {"Upload-Offset": len(upload.content)})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _store(self, upload: Upload, body: bytes, *, joined: bool = False) -> None:
        service = self.server.service
        assert joined or self._headers["content-type"] == "application/offset+octet-stream"
        service.receive(upload, len(body), self._headers)
        is_last = len(upload.content) + len(body) == upload.length
        if is_last:
            service.complete(upload, self._headers)
        upload.content += body
        upload.chunks.append(len(body))
        if is_last:
            service.finish(upload)

    def _is_refused(self) -> bool:
        """Answer a method that the service does not have."""
        if self.command in self.server.service.methods.split():
            return False
        self._body()
        self._refuse(Refused(405, f"{self.command} is not allowed"))
        return True

    def _find(self) -> Upload | None:
        service = self.server.service
        query = self.path.partition("?")[2]
        upload = service.uploads.get(self._name)
        if upload is None or query != service.query:
            self._answer(404, {})
        elif service.locked:
            service.locked -= 1
            self._answer(service.lock_status, {})
            upload = None
        return upload

    @property
    def _name(self) -> str:
        return self.path.partition("?")[0].rpartition("/")[2]

    @property
    def _headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _refuse(self, error: Refused) -> None:
        self.server.service.refusals.append(str(error))
        headers = {"Content-Type": error.kind} | ({"Retry-After": 0} if error.status >= 500 else {})
        self._answer(error.status, headers, str(error).encode(), by_service=error.by_service)

    def _close(self, error: Unanswered) -> None:
        self.server.service.requests.append((self.command, self._headers))
        time.sleep(error.seconds)
        self.close_connection = True

    def _answer(self, status: int, headers: dict[str, Any], reason: bytes = b"", *, by_service: bool = True) -> None:
        self.server.service.requests.append((self.command, self._headers))
        self.send_response(status)
        headers = {"Tus-Resumable": "1.0.0", **headers} if by_service else headers
        silent = {"Upload-Offset"} if self.command in self.server.service.silent else set()
        for name in headers.keys() - self.server.service.drops - silent:
            self.send_header(name, str(headers[name]))
        if reason or status not in (200, 204):
            self.send_header("Content-Length", str(len(reason)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reason)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, service: Service) -> None:
        self.lock, self.service = threading.Lock(), service
        super().__init__(("127.0.0.1", 0), _Handler)


def _metadata(header: str) -> dict[str, str]:
    pairs = [pair.partition(" ") for pair in header.split(",") if pair]
    return {key: base64.b64decode(value).decode() for key, _, value in pairs}


@contextlib.contextmanager
def running(service: Service) -> Iterator[Service]:
    """Run a service on a free port; `url` is its endpoint."""
    with _Server(service) as server:
        service.url = f"http://127.0.0.1:{server.server_port}/files/"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
