"""Tus servers and proxies that do not follow tus 1.0 where it does not matter (docs/tus-servers.md)."""

from __future__ import annotations

import shlex
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from command import Done, uploader
from feature_samples import of
from proxy import Proxy, Without
from scripted_server import Answer, Request
from time_limits import PATIENCE
from tus_services import Refused, Service, Unanswered, Upload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SIZES = {"empty.bin": 0, "small.bin": 10, "large.bin": 200_000}
OPTIONS = {
    "200 with text": (200, "text/plain", b"GET, POST, OPTIONS"),
    "200 with a page": (200, "text/html", b"<title>Directus</title>"),
    "400": (400, "application/json", b'{"message": "no CORS"}'),
    "401": (401, "application/json", b"{}"),
    "403": (403, "text/html", b"<h1>Forbidden</h1>"),
    "404": (404, "text/plain", b"not found"),
    "429": (429, "text/plain", b"slow down"),
    "500": (500, "application/json", b'{"error": "Internal Server Error"}'),
    "502": (502, "text/html", b"<h1>Bad Gateway</h1>"),
}


def send(service: Service, home: Path, make_files: Callable[..., Path], *more: str) -> Done:
    files = make_files(**SIZES)
    where = ("--tus-endpoint", service.url, "--chunk-size", "64K", "--retries", "0")
    return uploader("upload", files, *where, "--json", *more, home=home)


def stored(service: Service) -> list[int]:
    return sorted(len(upload.content) for upload in service.uploads.values())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_answer_to_options_does_not_decide(
    options: tuple[int, str, bytes], make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Service() as service:
        service.options = options
        done = send(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, sorted(SIZES.values())), done.err


LENIENT = {
    "tuspyserver at /files": ((405, "application/json", b'{"detail": "Method Not Allowed"}'), set(), False),
    "OPTIONS of another route": ((404, "text/plain", b"not found"), set(), False),
    "aiohttp-tus": ((200, "text/plain", b""), set(), True),
    "no Tus-Version": (None, {"Tus-Version", "Tus-Extension"}, False),
    "no Tus-Resumable": (None, {"Tus-Resumable"}, False),
}


@pytest.mark.feature("doctor")
@pytest.mark.feature("smoke")
@pytest.mark.parametrize(("options", "drops", "forgets"), LENIENT.values(), ids=LENIENT)
def test_doctor_and_smoke_agree_with_upload(
    options: tuple[int, str, bytes] | None,
    drops: set[str],
    forgets: bool,
    make_files: Callable[..., Path],
    tmp_path: Path,
) -> None:
    with Service() as service:
        service.options, service.drops, service.forgets = options, drops, forgets
        done = send(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, sorted(SIZES.values())), done.err
        for command in ("doctor", "smoke"):
            done = uploader(command, "--tus-endpoint", service.url, home=tmp_path)
            assert done.code == 0, done.out + done.err


def test_token_is_renewed_after_a_401_to_options(make_files: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    with Service() as service:
        service.options = OPTIONS["401"]
        asked = shlex.quote(f"{tmp_path}/asked")
        command = f"echo x >> {asked}; echo token$(wc -l < {asked})"
        done = send(service, tmp_path, make_files, "--token-command", command)
        sent = [headers["authorization"] for method, headers in service.requests if method == "OPTIONS"]
    assert done.code == 0
    assert sent == ["Bearer token1", "Bearer token2"]


PROBLEM = '{"title": "No credit", "detail": "30 needed"}'
REASONS = {
    "text": ("text/plain", "ERR_UPLOAD_REJECTED: rejected", " (ERR_UPLOAD_REJECTED: rejected)"),
    "text without a type": ("", "Upload-Length is missing", " (Upload-Length is missing)"),
    "text declared as a page": ("text/html", "too many files today", " (too many files today)"),
    "JSON string": ("application/json", '"no quota left"', " (no quota left)"),
    "code and message": ("application/json", '{"error": "InvalidKey", "message": "not a"}', " InvalidKey (not a)"),
    "problem details": ("application/problem+json", PROBLEM, " (No credit: 30 needed)"),
    "page": ("text/html", "<h1>Bad Request</h1>", ""),
}


@pytest.mark.parametrize("options", [None, OPTIONS["200 with text"]], ids=["OPTIONS of tus", "OPTIONS of a framework"])
@pytest.mark.parametrize(("kind", "body", "said"), REASONS.values(), ids=REASONS)
def test_refused_creation_names_the_servers_reason(
    kind: str,
    body: str,
    said: str,
    options: tuple[int, str, bytes] | None,
    make_files: Callable[..., Path],
    tmp_path: Path,
) -> None:
    with Service() as service:
        service.options, service.refuses = options, (400, body, kind)
        done = uploader("upload", make_files(a=1), "--tus-endpoint", service.url, "--json", home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["message"]) == (4, f"the server refused: 400{said}")


@pytest.mark.parametrize("drops", [{"Tus-Resumable"}, {"Tus-Resumable", "Tus-Version", "Tus-Extension"}])
def test_answers_without_tus_resumable_are_accepted_with_one_warning(
    drops: set[str], make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Service() as service:
        service.drops = drops
        done = send(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, sorted(SIZES.values())), done.err
    assert [event["code"] for event in done.of("warning")] == ["protocol"]


def test_offset_that_a_patch_does_not_tell_is_asked_for(make_files: Callable[..., Path], tmp_path: Path) -> None:
    with Service() as service:
        service.silent = {"PATCH"}
        done = send(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, sorted(SIZES.values())), done.err
        methods = [method for method, _ in service.requests]
    assert methods.count("HEAD") >= methods.count("PATCH")
    assert not done.of("warning")


class Quiet(Service):
    """A server whose answers to creations have no `Upload-Offset`.

    It takes the bytes of a creation and is busy at the first HEAD, or `ignores` them, and answers no PATCH.
    """

    extensions = "creation,creation-with-upload"

    def __init__(self, *, ignores: bool) -> None:
        super().__init__()
        self.silent, self._ignores, self._busy = {"POST"}, ignores, not ignores

    def _post(self, request: Request) -> Answer:
        return super()._post(replace(request, body=b"") if self._ignores else request)

    def _head(self, request: Request) -> Answer:
        busy, self._busy = self._busy, False
        return Answer(500) if busy else super()._head(request)

    def _patch(self, request: Request) -> Answer:
        super()._patch(request)
        raise Unanswered


@pytest.mark.parametrize(("ignores", "ends"), [(False, "file.completed"), (True, "file.failed")])
def test_success_of_a_creation_with_all_bytes_completes_it_without_an_offset(
    ignores: bool, ends: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """It does not if the server has ignored them: then the answer to the PATCH that follows counts."""
    with Quiet(ignores=ignores) as service:
        where = ("--tus-endpoint", service.url, "--retries", "1", "--json")
        files = make_files(**{"a.bin": 100})
        done = uploader("upload", files, *where, home=tmp_path, UPLOADER_BYTES_AT_CREATION="yes")
    assert (done.code, stored(service)) == (4 if ignores else 0, [100])
    (end,) = done.of(ends)
    assert end.get("code", "") == ("outcome_unknown" if ignores else "")


def test_cookie_with_an_endless_age_shows_no_traceback_and_keeps_the_others(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    class Baking(Service):
        def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
            return {"Set-Cookie": f"a=1; Max-Age={'9' * 4000}\r\nSet-Cookie: route=2"}

    with Baking() as service:
        done = uploader("upload", make_files(a=10), "--tus-endpoint", service.url, "--json", home=tmp_path)
    assert (done.code, "cookiejar" in done.err) == (0, False)
    assert [headers.get("cookie") for method, headers in service.requests if method == "PATCH"] == ["route=2"]


@pytest.mark.parametrize("readable", [False, True])
def test_page_in_place_of_the_last_answer_confirms_nothing(
    readable: bool, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """As of a gateway that answers errors with 200. The other answers are those of a tus server."""

    class Masked(Service):
        methods = "OPTIONS POST HEAD PATCH GET"

        def _answer(self, request: Request) -> Answer | None:
            answer = super()._answer(request)
            is_page = request.method == "PATCH"
            return Answer(200, b"<html>sorry</html>", {"Content-Type": "text/html"}) if is_page else answer

    with Masked() as service:
        service.readable = readable
        where = ("--tus-endpoint", service.url, "--retries", "1", "--json")
        done = uploader("upload", make_files(**{"a.bin": 100}), *where, home=tmp_path)
    assert len(done.of("file.completed")) == readable
    assert [event["code"] for event in done.of("file.failed")] == ["outcome_unknown"] * (not readable)


class Forgetful(Service):
    """A server that drops the last bytes of each upload behind a 204 without `Upload-Offset`.

    Its first HEADs after that have the statuses `answers`, the others tell the offset.
    """

    def __init__(self, *answers: int) -> None:
        super().__init__()
        self.silent, self.answers, self.dropped = {"PATCH"}, list(answers), False

    def _patch(self, request: Request) -> Answer:
        if self.dropped:
            return super()._patch(request)
        self.dropped = True
        return Answer(204)

    def _head(self, request: Request) -> Answer:
        return Answer(self.answers.pop(0)) if self.dropped and self.answers else super()._head(request)


@pytest.mark.parametrize(("answers", "code"), [((404,), 4), ((500, 500), 3), ((500,), 0), ((423,), 0)])
def test_patch_without_offset_is_not_believed_where_head_fails(
    answers: tuple[int, ...], code: int, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Forgetful(*answers) as service:
        where = ("--tus-endpoint", service.url, "--retries", "1" if len(answers) == 1 else "0", "--json")
        done = uploader("upload", make_files(**{"a.bin": 100}), *where, home=tmp_path)
        assert (done.code, stored(service)) == (code, [100 if code == 0 else 0]), done.err
    assert len(done.of("file.completed")) == (code == 0)


def test_files_are_stored_where_a_proxy_removes_all_headers_of_tus(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Service() as service:
        service.drops = {"Tus-Resumable", "Tus-Version", "Tus-Extension", "Upload-Offset", "Upload-Length"}
        done = send(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, sorted(SIZES.values())), done.err
    assert {event["verified"] for event in done.of("file.completed") if event["size"]} == {False}


def test_proxy_that_removes_tus_resumable_from_requests_is_named(
    server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Proxy(server.url, Without("Tus-Resumable")) as proxy:
        endpoint = f"{proxy.url}/api/upload/files/"
        done = uploader("upload", make_files(a=10), "--tus-endpoint", endpoint, home=tmp_path)
    assert done.code == 4
    assert "got no Tus-Resumable (412): a proxy removes it from requests" in done.err


def test_expired_upload_is_sent_anew_where_no_answer_has_tus_resumable(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    with Service() as service:
        service.drops = {"Tus-Resumable", "Tus-Version", "Tus-Extension"}
        service.gateway = {3: 400}
        files = make_files(**{"a.bin": 200_000})
        asked = ("upload", files, "--tus-endpoint", service.url, "--chunk-size", "64K", "--retries", "0", "--json")
        assert uploader(*asked, home=tmp_path).code == 4
        service.uploads.clear()
        done = uploader(*asked, home=tmp_path)
    assert done.code == 0, done.err


STATE = "uploader_cli.transfer.tus_state"
PARTS = {f"{STATE}.FAR": -1.0, f"{STATE}.LARGE_AND_FAR": 200, f"{STATE}.LEAST_PART": 100}
"""Files of 200 bytes are sent in two parts."""


class Hooked(Service):
    """A server with parts, whose hook before each creation needs `filename`, or refuses parts."""

    extensions = "creation,concatenation,termination"
    methods = "OPTIONS POST HEAD PATCH DELETE"
    takes_parts = True
    needs_names = True

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        if self.needs_names and "filename" not in upload.metadata:
            raise Refused(400, "no filename")
        if upload.partial and not self.takes_parts:
            raise Refused(403, "no partial uploads")
        return {}


def send_in_parts(service: Service, home: Path, make_files: Callable[..., Path], *more: str) -> Done:
    files = make_files(a=200)
    options = ("--tus-endpoint", service.url, "-j", "2", "--json", *more)
    return uploader("upload", files, *options, home=home, constants=PARTS)


def test_parts_carry_the_metadata_of_the_file_unless_a_setting_says_no(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    for described in (True, False):
        (tmp_path / "uploader.toml").write_text(f"part-metadata = {str(described).lower()}\n")
        with Hooked() as service:
            service.needs_names, service.extensions = described, "creation,concatenation"
            done = send_in_parts(service, tmp_path, make_files, "--no-resume")
            assert (done.code, len(done.of("file.retry"))) == (0, 0), done.err
            partial = [upload.metadata for upload in service.uploads.values() if upload.partial]
        assert ["filename" in metadata for metadata in partial] == [described] * 2


def test_file_whose_parts_are_refused_is_sent_in_one_upload(make_files: Callable[..., Path], tmp_path: Path) -> None:
    with Hooked() as service:
        service.takes_parts = False
        done = send_in_parts(service, tmp_path, make_files)
        assert (done.code, stored(service)) == (0, [200]), done.err
    (retry,) = done.of("file.retry")
    assert "no partial uploads" in retry["message"]


class Places(Service):
    """A server with a URL for each file, as filebrowser (/api/tus/PATH?override=true)."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def _post(self, request: Request) -> Answer:
        self.places.append(request.path)
        return super()._post(request)


def test_endpoint_with_fields_is_a_url_for_each_file(make_files: Callable[..., Path], tmp_path: Path) -> None:
    files = make_files("top", **{"ä b.bin": 10, "sub/c?d.bin": 200_000})
    with Places() as service:
        endpoint = f"{service.url}{{path}}?override=true&in={{dir}}"
        done = uploader("upload", files, "--tus-endpoint", endpoint, "--json", home=tmp_path)
        assert done.code == 0, done.err
        assert sorted(service.places) == [
            "/files/top/%C3%A4%20b.bin?override=true&in=top",
            "/files/top/sub/c%3Fd.bin?override=true&in=top/sub",
        ]
        assert stored(service) == [10, 200_000]


def test_second_file_of_an_equal_url_fails_before_its_first_byte(
    make_files: Callable[..., Path], tmp_path: Path
) -> None:
    files = make_files(**{"a/x.bin": 10, "b/x.bin": 20})
    with Places() as service:
        done = uploader("upload", files, "--tus-endpoint", f"{service.url}{{name}}", "--json", home=tmp_path)
        assert len(service.places) == 1
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == (4, "exists")
    assert f"the same URL on the server, {service.url}x.bin" in failed["message"]


@pytest.mark.parametrize("command", [of("doctor", "doctor"), of("smoke", "smoke")])
def test_doctor_and_smoke_take_an_endpoint_with_fields(command: str, tmp_path: Path) -> None:
    with Places() as service:
        done = uploader(command, "--tus-endpoint", f"{service.url}{{path}}?override=true", home=tmp_path)
    assert done.code == 0, done.out + done.err


class Picky(Hooked):
    """A server that refuses the parts of a larger file while those of `a` are sent.

    Then it joins these, and its gateway answers with an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.divided, self.refused = threading.Event(), threading.Event()

    def _post(self, request: Request) -> Answer:
        kind, length = request.headers.get("upload-concat", ""), int(request.headers.get("upload-length", 0))
        if kind == "partial" and length > 100:
            self.divided.wait(PATIENCE)
            self.refused.set()
            raise Refused(403, "no partial uploads")
        if kind == "partial":
            self.divided.set()
        elif kind:
            self.refused.wait(PATIENCE)
            super()._post(request)
            raise Refused(502, "Bad Gateway", by_service=False)
        return super()._post(request)


def test_file_that_may_be_joined_is_not_sent_in_one_upload(make_files: Callable[..., Path], tmp_path: Path) -> None:
    files = make_files(a=200, b=1000)
    with Picky() as service:
        options = ("--tus-endpoint", service.url, "-j", "8", "--retries", "0", "--json")
        done = uploader("upload", files, *options, home=tmp_path, constants=PARTS)
        assert service.refused.is_set()
        assert sorted(upload.length or 0 for upload in service.uploads.values() if not upload.partial) == [200, 1000]
    assert [event["path"] for event in done.of("file.failed")] == [str(files / "a")], done.err
