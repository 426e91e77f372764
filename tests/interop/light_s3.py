"""A small S3 server: it keeps one bucket in memory, and pages through a million keys as quickly as through a thousand.

`python light_s3.py PORT [KEYS]`: with KEYS the bucket has that many small objects below `in/`. moto sorts all keys for
each page, and takes ten times as long for a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sys
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

BUCKET = "videos"
CHANGED, CHANGED_XML = "Thu, 26 Nov 2026 20:16:47 GMT", "2026-11-26T20:16:47.000Z"
LINE = 1 << 16
"""Most bytes of the head of a request."""


@dataclass
class Request:
    """A request for the bucket or for a key."""

    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """An answer; its body is XML, or an object."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Upload:
    """A multipart upload: its key and its parts by their numbers."""

    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Bucket:
    """The objects and the multipart uploads."""

    def __init__(self, keys: int = 0) -> None:
        self._names = [f"in/{number:07}.bin" for number in range(keys)]  # sorted
        self._objects: dict[str, bytes] = {}  # a generated object has its name for content
        self._generated = keys
        self._metadata: dict[str, dict[str, str]] = {}
        self._uploads: dict[str, Upload] = {}

    def answer(self, request: Request) -> Answer:
        """Return what S3 answers."""
        method, key, query = request.method, request.key, request.query
        if "uploadId" in query or "uploads" in query:
            return self._multipart(request)
        match method:
            case "GET" if not key:
                return self._listed(query)
            case "GET" | "HEAD":
                return self._read(key, request.headers.get("range"))
            case "PUT":
                if key:
                    self._write(key, request.body)
                    given = request.headers.items()
                    self._metadata[key] = {name: value for name, value in given if name.startswith("x-amz-meta-")}
                return Answer(200, headers={"ETag": _tag(request.body)})
            case "POST" if "delete" in query:
                for name in ET.fromstring(request.body).iter():
                    if name.tag.endswith("Key"):
                        self._delete(name.text or "")
                return _xml("DeleteResult")
            case "DELETE":
                self._delete(key)
                return Answer(204)
        return Answer(501)

    def _multipart(self, request: Request) -> Answer:
        key, query = request.key, request.query
        if "uploads" in query and request.method == "POST":
            name = secrets.token_hex(8)
            self._uploads[name] = Upload(key)
            return _xml("InitiateMultipartUploadResult", ("Bucket", BUCKET), ("Key", key), ("UploadId", name))
        if "uploads" in query:
            open_ones = [
                _element("Upload", ("Key", one.key), ("UploadId", name)) for name, one in self._uploads.items()
            ]
            return _xml("ListMultipartUploadsResult", ("IsTruncated", "false"), inner="".join(open_ones))
        upload = self._uploads.get(query["uploadId"])
        if upload is None:
            return _xml("Error", ("Code", "NoSuchUpload"), status=404)
        match request.method:
            case "PUT":
                upload.parts[int(query["partNumber"])] = request.body
                return Answer(200, headers={"ETag": _tag(request.body)})
            case "GET":
                parts = [
                    _element("Part", ("PartNumber", number), ("ETag", _tag(data)), ("Size", len(data)))
                    for number, data in sorted(upload.parts.items())
                ]
                return _xml("ListPartsResult", ("IsTruncated", "false"), inner="".join(parts))
            case "POST":
                chosen = [
                    int(one.text or 0) for one in ET.fromstring(request.body).iter() if one.tag.endswith("PartNumber")
                ]
                self._write(key, b"".join(upload.parts[number] for number in chosen))
                del self._uploads[query["uploadId"]]
                return _xml("CompleteMultipartUploadResult", ("Key", key), ("ETag", _tag(self._objects[key])))
        del self._uploads[query["uploadId"]]
        return Answer(204)

    def _listed(self, query: dict[str, str]) -> Answer:
        prefix, most = query.get("prefix", ""), int(query.get("max-keys", 1000))
        after = query.get("continuation-token") or query.get("start-after") or ""
        begin = max(bisect_right(self._names, after), bisect_left(self._names, prefix))
        there = self._names[begin : begin + most + 1]
        found = [name for name in there if name.startswith(prefix)][:most]
        keys = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{CHANGED_XML}</LastModified>"
            f"<ETag>{self._tag_of(name)}</ETag><Size>{len(self._content(name) or b'')}</Size></Contents>"
            for name in found
        )
        more = len(there) > most and there[most].startswith(prefix)
        place = [("NextContinuationToken", found[-1])] if more else []
        return _xml("ListBucketResult", ("IsTruncated", str(more).lower()), ("Name", BUCKET), *place, inner=keys)

    def _read(self, key: str, wanted: str | None) -> Answer:
        data = self._content(key)
        if data is None:
            return _xml("Error", ("Code", "NoSuchKey"), status=404)
        headers = {"ETag": self._tag_of(key), "Last-Modified": CHANGED, "Accept-Ranges": "bytes"}
        headers |= self._metadata.get(key, {})
        if wanted is None:
            return Answer(200, data, headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        end = min(int(last or len(data)) + 1, len(data))
        return Answer(206, data[int(first) : end], headers | {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"})

    def _content(self, key: str) -> bytes | None:
        if key not in self._objects and key[3:-4].isdigit() and int(key[3:-4]) < self._generated:
            return key.encode()
        return self._objects.get(key)

    def _tag_of(self, key: str) -> str:
        return _tag(self._objects[key]) if key in self._objects else f'"{key}"'

    def _write(self, key: str, data: bytes) -> None:
        if key not in self._objects:
            insort(self._names, key)
        self._objects[key] = data

    def _delete(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            self._names.remove(key)


def _tag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _element(name: str, *children: tuple[str, object]) -> str:
    inner = "".join(f"<{child}>{escape(str(value))}</{child}>" for child, value in children)
    return f"<{name}>{inner}</{name}>"


def _xml(name: str, *children: tuple[str, object], inner: str = "", status: int = 200) -> Answer:
    body = _element(name, *children).removesuffix(f"</{name}>") + inner + f"</{name}>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


async def serve(bucket: Bucket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection until it ends."""
    try:
        while True:
            line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (item.partition(":") for item in fields)}
            place = urlsplit(target)
            key = unquote(place.path).removeprefix(f"/{BUCKET}").removeprefix("/")
            request = Request(method, key, dict(parse_qsl(place.query, keep_blank_values=True)), headers)
            if headers.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.body = await _body(reader, headers)
            answer = bucket.answer(request)
            length = {} if answer.status == 204 else {"Content-Length": str(len(answer.body))}
            lines = [f"{name}: {value}" for name, value in {**length, **answer.headers}.items()]
            writer.write("\r\n".join([f"HTTP/1.1 {answer.status} OK", *lines, "", ""]).encode("latin-1"))
            if method != "HEAD":
                writer.write(answer.body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    """Return the body, without the chunks of HTTP, and without those of S3."""
    if headers.get("transfer-encoding") == "chunked":
        data = await _chunks(reader)
    else:
        data = await reader.readexactly(int(headers.get("content-length", 0)))
    if "aws-chunked" not in headers.get("content-encoding", "") and "STREAMING" not in headers.get(
        "x-amz-content-sha256", ""
    ):
        return data
    inner = asyncio.StreamReader()
    inner.feed_data(data)
    inner.feed_eof()
    return await _chunks(inner)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    pieces = []
    while size := int((await reader.readline()).partition(b";")[0].strip(), 16):
        pieces.append(await reader.readexactly(size))
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers
    return b"".join(pieces)


async def main(port: int, keys: int = 0) -> None:
    """Serve until the process ends."""
    bucket = Bucket(keys)
    server = await asyncio.start_server(lambda *ends: serve(bucket, *ends), "127.0.0.1", port, limit=LINE)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
