"""A small correct client of the IETF's resumable uploads: `ietf_client.py URL FILE`; exit code 0: the file is stored.

The tests change one line of it at a time.
"""

import base64
import hashlib
import socket
import sys
from urllib.parse import urljoin, urlsplit

VERSION = "8"
TYPE = "application/partial-upload"


class Lost(Exception):
    """No final response."""


class Answer:
    def __init__(self, status, fields):
        self.status, self.fields = status, fields

    @property
    def complete(self):
        return self.fields.get("upload-complete") == "?1"

    @property
    def offset(self):
        text = self.fields.get("upload-offset", "")
        return int(text) if text.isdecimal() else None

    @property
    def limits(self):
        found = dict(member.strip().partition("=")[::2] for member in self.fields.get("upload-limit", "").split(","))
        known = {name: found[name] for name in ("max-size", "max-append-size") if name in found}
        return {name: int(value) for name, value in known.items()} if all(map(str.isdecimal, known.values())) else {}


def ask(url, method, fields, content=b"", interim=None):
    """Send a request and return its final response; `interim` gets those before it."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        reader = connection.makefile("rb")
        fields = {"Host": parts.netloc, "Upload-Draft-Interop-Version": VERSION, **fields}
        head = [f"{method} {parts.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        try:
            connection.sendall("\r\n".join(head).encode())
            connection.sendall(content)
        except OSError:
            pass  # an answer may be there
        while True:
            answer = read(reader)
            if answer.status >= 200:
                return answer
            if answer.status == 104 and interim:
                interim(answer)


def read(reader):
    try:
        lines = iter(lambda: reader.readline().decode().rstrip("\r\n"), "")
        status = int(next(lines).split()[1])
        fields = [line.partition(":") for line in lines]
        return Answer(status, {name.lower(): value.strip() for name, _, value in fields})
    except (OSError, StopIteration, IndexError):
        raise Lost from None


def digest(content):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


class Failed(Exception):
    pass


class Client:
    def __init__(self, target, file):
        self.target, self.file = target, file
        self.url = None
        self.limits = {}
        self.locations = set()

    def note(self, answer):
        """Take the URL and the limits of an interim response."""
        if answer.fields.get("upload-draft-interop-version") != VERSION:
            return
        if location := answer.fields.get("location"):
            self.locations.add(location)
            self.url = urljoin(self.target, location)
        self.limits = answer.limits or self.limits

    def upload(self):
        fields = {"Upload-Complete": "?1", "Content-Length": len(self.file), "Repr-Digest": digest(self.file)}
        try:
            answer = ask(self.target, "POST", fields, self.file, self.note)
        except Lost:
            answer = None
        if answer and answer.status < 300:
            return
        if answer and answer.status < 500:
            self.give_up()
        if self.limits.get("max-size", len(self.file)) < len(self.file) or len(self.locations) > 1:
            self.give_up()
        if self.url is None:
            raise Failed("no URL")
        for _ in range(20):
            offset = self.query()
            if offset is None or self.append(offset):
                return
        raise Failed("too often")

    def query(self):
        """Return the offset; None if the upload is complete."""
        answer = ask(self.url, "HEAD", {})
        if answer.status in (307, 308):
            self.url = urljoin(self.url, answer.fields["location"])
            answer = ask(self.url, "HEAD", {})
        if answer.status >= 300 or answer.offset is None:
            raise Failed("no offset")
        if answer.complete:
            return None
        if answer.offset > len(self.file):
            self.give_up()
        self.limits = answer.limits
        return answer.offset

    def append(self, offset):
        """Append from the offset; return whether the upload is complete."""
        end = min(len(self.file), offset + self.limits.get("max-append-size", len(self.file)))
        content = self.file[offset:end]
        complete = end == len(self.file)
        fields = {"Upload-Offset": offset, "Upload-Complete": f"?{complete:d}", "Content-Type": TYPE}
        fields |= {"Content-Length": len(content), "Content-Digest": digest(content)}
        try:
            answer = ask(self.url, "PATCH", fields, content)
            if answer.status in (307, 308):
                self.url = urljoin(self.url, answer.fields["location"])
                answer = ask(self.url, "PATCH", fields, content)
        except Lost:
            return False
        if answer.complete:
            if answer.status >= 300:
                raise Failed("the server could not process it")
            return True
        if 400 <= answer.status < 500 and answer.status not in (409, 413):
            raise Failed("refused")
        return False

    def give_up(self):
        if self.url:
            ask(self.url, "DELETE", {})
        raise Failed("given up")


def main(target, path):
    with open(path, "rb") as stream:
        client = Client(target, stream.read())
    try:
        client.upload()
    except (Failed, Lost):
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
