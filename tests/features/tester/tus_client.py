"""A small correct client of tus 1.0: `tus_client.py URL FILE`; exit code 0: the file is stored.

The tests change one line of it at a time.
"""

import base64
import hashlib
import http.client
import sys
from urllib.parse import urljoin, urlsplit

VERSION = "1.0.0"
TYPE = "application/offset+octet-stream"


class Lost(Exception):
    """No answer."""


class Failed(Exception):
    pass


class Done(Exception):
    """The file is stored."""


def ask(url, method, fields, content=b""):
    """Send a request and return the status and the fields of its answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request(method, parts.path, content, {"Tus-Resumable": VERSION, **fields})
        answer = connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, http.client.HTTPException):
        raise Lost from None
    finally:
        connection.close()


class Client:
    def __init__(self, target, file):
        self.target, self.file = target, file
        self.expired = False

    def upload(self):
        for _ in range(2):
            url = self.create()
            if url:
                self.send(url)
        raise Failed("started anew too often")

    def create(self):
        """Return the URL of a new upload; None if the answer was lost."""
        name = base64.b64encode(b"a file").decode()
        fields = {"Upload-Length": str(len(self.file)), "Upload-Metadata": f"filename {name}"}
        content = b""
        if "creation-with-upload" in ask(self.target, "OPTIONS", {})[1].get("tus-extension", ""):
            fields["Content-Type"], content = TYPE, self.file
        try:
            status, answer = ask(self.target, "POST", fields, content)
            if status == 307:
                status, answer = ask(urljoin(self.target, answer["location"]), "POST", fields, content)
        except Lost:
            return None
        if status == 503:
            return None
        if status != 201:
            raise Failed("no upload")
        self.begun = int(answer.get("upload-offset", 0))
        self.expired = "2014" in answer.get("upload-expires", "")
        return urljoin(self.target, answer["location"])

    def send(self, url):
        """Send the content; return if the upload is gone."""
        offset = self.begun
        for _ in range(20):
            content = self.file[offset:]
            digest = base64.b64encode(hashlib.sha1(content).digest()).decode()
            fields = {"Upload-Offset": str(offset), "Content-Type": TYPE, "Upload-Checksum": f"sha1 {digest}"}
            try:
                status, answer = ask(url, "PATCH", fields, content)
                if status == 307:
                    status, answer = ask(urljoin(url, answer["location"]), "PATCH", fields, content)
            except Lost:
                status = 0
            if status == 204:
                offset = int(answer["upload-offset"])
            elif status != 460:
                if self.expired:
                    return
                offset = self.query(url)
            if offset is None:
                return
            if offset == len(self.file):
                raise Done
        raise Failed("too often")

    def query(self, url):
        """Return the offset; None if the upload is gone."""
        for _ in range(3):
            status, answer = ask(url, "HEAD", {})
            if status in (404, 410):
                return None
            if status < 500:
                break
        if status >= 300:
            raise Failed("no offset")
        offset = int(answer["upload-offset"])
        if offset > len(self.file):
            raise Failed("an offset beyond the file")
        return offset


def main(target, path):
    with open(path, "rb") as stream:
        client = Client(target, stream.read())
    try:
        client.upload()
    except Done:
        return 0
    except (Failed, Lost):
        return 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
