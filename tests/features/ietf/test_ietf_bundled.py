"""The checks `ietf-…` of `uploader smoke` pass on two implementations; each fails at a server with its defect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from features.smoke.broken_servers import Broken, Call, Reply, failed, smoke
from ietf_service import IetfService
from serving import running_server

from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.smoke.runner import ON_REQUEST
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "a secret of this test that is long enough"
GROUP = ["ietf-*", "clean-up"]
ENDPOINT = "/api/upload/files/"
ALL = {check.id for check in ON_REQUEST}


@pytest.mark.parametrize("where", ["a session", "an endpoint", "another server"])
def test_group_passes_on_other_implementations(where: str) -> None:
    """And everything is deleted at the end."""
    with running_server(jwt_secret=SECRET) as server, IetfService() as other:
        endpoint = {"an endpoint": server.url + ENDPOINT, "another server": other.url}.get(where)
        settings = {"tus_endpoint": endpoint} if endpoint else {"token": issue_token(SECRET)}
        report = smoke("" if endpoint else server.url, GROUP, strict=True, **settings)
        assert not list(server.root.rglob("*smoke*"))
        assert all(upload.gone for upload in other.uploads)
    assert (report.exit_code, failed(report), report.left) == (0, set(), ()), report.results
    assert {found.id for found in report.results if found.verdict is Verdict.PASS} == {*ALL, "clean-up"}
    assert report.calls <= 90


def test_group_is_not_offered_without_upload_limit_and_not_run_unless_named() -> None:
    with running_server(tus=False) as server:
        report = smoke(server.url, GROUP)
        assert {found.verdict for found in report.results if found.id in ALL} == {Verdict.NOT_OFFERED}
        assert not ALL & {found.id for found in smoke(server.url, ["*"], ["batch*", "events"]).results}


def test_checks_of_tus_are_not_offered_by_a_server_of_this_protocol_alone() -> None:
    with IetfService() as other:
        report = smoke("", ["tus-*"], tus_endpoint=other.url)
        assert {found.verdict for found in report.results} == {Verdict.NOT_OFFERED}


def on(method: str, status: int, change: Callable[[Reply], object]) -> Callable[[Call, Reply], None]:
    """Change the answers with this status to one method."""

    def said(call: Call, reply: Reply) -> None:
        if (call.method, reply.status) == (method, status) and call.path.startswith(ENDPOINT):
            change(reply)

    return said


def headers(**changed: str | None) -> Callable[[Reply], None]:
    """Change headers; None removes one."""

    def change(reply: Reply) -> None:
        for name, value in changed.items():
            reply.headers.pop(name.replace("_", "-"), None)
            if value is not None:
                reply.headers[name.replace("_", "-")] = value

    return change


def accepts(code: str) -> Callable[[Reply], None]:
    """Turn the refusal with this code into a success."""

    def change(reply: Reply) -> None:
        if reply.json["error"] == code:
            reply.say({}, 200)
            reply.headers["upload-complete"] = "?0"

    return change


class Lengths:
    """Completes an upload when it has its length, and forgets the length of one that was created without."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}

    def said(self, call: Call, reply: Reply) -> None:
        """Take the length of a new upload."""
        if call.method == "POST" and "location" in reply.headers and "upload-complete" in call.headers:
            length = call.headers.get("upload-length")
            self._known[reply.headers["location"].rpartition("/")[2]] = None if length is None else int(length)

    def completes(self, call: Call) -> None:
        """Declare the end where the content ends at the length."""
        known = self._known.get(call.path.rpartition("/")[2])
        offset = call.headers.get("upload-offset", "")
        if call.method == "PATCH" and offset.isdigit() and int(offset) + int(call.headers["content-length"]) == known:
            call.headers["upload-complete"] = "?1"

    def forgets(self, call: Call, reply: Reply) -> None:
        """Leave the length out of the answer to HEAD."""
        self.said(call, reply)
        if call.method == "HEAD" and self._known.get(call.path.rpartition("/")[2], 0) is None:
            reply.headers.pop("upload-length", None)


class Cuts:
    """Takes an upload for complete as soon as a request begins that is to complete it."""

    def __init__(self) -> None:
        self._begun: set[str] = set()

    def asked(self, call: Call) -> None:
        """Remember a request that has not ended."""
        if call.method == "PATCH" and call.headers.get("upload-complete") == "?1":
            self._begun.add(call.path)

    def said(self, call: Call, reply: Reply) -> None:
        """Forget one that was answered; the client can't hear the answer to a cut one."""
        if call.method == "PATCH" and b"UPLOAD_FAILED" not in reply.body and reply.status != 423:
            self._begun.discard(call.path)
        if call.method == "HEAD" and call.path in self._begun:
            reply.headers["upload-complete"] = "?1"


def without_length_at_first(reply: Reply) -> None:
    if reply.headers.get("upload-offset") == "0":
        reply.headers.pop("upload-length", None)


def believes_quoted_offsets(call: Call) -> None:
    if call.headers.get("upload-offset") == '"0"':
        call.headers["upload-offset"] = "0"


def keeps_deleted_uploads(call: Call) -> Reply | None:
    return Reply(204, {}) if call.method == "DELETE" else None


def ignores_digests(call: Call) -> None:
    call.headers.pop("content-digest", None)


ends, forgets, cuts = Lengths(), Lengths(), Cuts()
BROKEN = {
    "limits are no integers": Broken({"ietf-options"}, said=on("OPTIONS", 204, headers(upload_limit='max-size="9"'))),
    "no length of a new upload": Broken({"ietf-creation"}, said=on("HEAD", 204, without_length_at_first)),
    "a complete upload is said to be incomplete": Broken(
        {"ietf-append"}, said=on("PATCH", 201, headers(upload_complete="?0"))
    ),
    "the length completes an upload": Broken({"ietf-declared-end"}, asked=ends.completes, said=ends.said),
    "a wrong offset is not a conflict": Broken(
        {"ietf-offset"}, said=on("PATCH", 409, lambda reply: reply.say({"error": "NO"}, 400))
    ),
    "a conflict without the offset": Broken({"ietf-offset"}, said=on("PATCH", 409, headers(upload_offset=None))),
    "an end before the length is accepted": Broken(
        {"ietf-length"}, said=on("PATCH", 400, accepts("INCONSISTENT_LENGTH")), exit_code=7
    ),
    "more bytes than the length are accepted": Broken(
        {"ietf-overrun"}, said=on("PATCH", 413, accepts("FILE_TOO_LARGE")), exit_code=7
    ),
    "a cut request completes the upload": Broken({"ietf-resume"}, asked=cuts.asked, said=cuts.said),
    "a length that was sent later is forgotten": Broken({"ietf-deferred-length"}, said=forgets.forgets),
    "a text counts as an offset": Broken({"ietf-malformed"}, asked=believes_quoted_offsets, exit_code=7),
    "a deleted upload is kept": Broken({"ietf-cancel"}, asked=keeps_deleted_uploads, exit_code=0),
    "digests are ignored": Broken({"ietf-digest"}, asked=ignores_digests, exit_code=0),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_server_fails_the_right_check_alone(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that depend on it are skipped."""
    broken = BROKEN[how]
    with broken.running(monkeypatch) as server:
        report = smoke(server.url, ["ietf-*"])
    assert failed(report) == broken.noticed_by, report.results
    assert report.exit_code == broken.exit_code
    for found in report.results:
        assert found.verdict in (Verdict.PASS, Verdict.FAIL) or found.blocked_by in broken.noticed_by


def test_each_check_has_a_server_that_fails_it() -> None:
    assert set().union(*(broken.noticed_by for broken in BROKEN.values())) == ALL
