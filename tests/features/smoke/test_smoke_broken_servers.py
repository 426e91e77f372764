"""Each check of `uploader smoke` fails, alone, at a server with the defect that it detects."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from features.smoke.broken_servers import Broken, Call, Reply, failed, smoke

from uploader_cli.features.checks.check import Verdict
from uploader_cli.features.smoke import watching
from uploader_cli.features.smoke.runner import CHECKS
from uploader_cli.features.smoke.smoke_report import check_json
from uploader_server.auth import issue_token
from uploader_server.batch.intake import Intake
from uploader_server.http import rest
from uploader_server.http.bodies import Bodies, schemas
from uploader_server.http.errors import ApiError
from uploader_server.realtime.joins import Joins
from uploader_server.realtime.rooms import Realtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_server.session import Session

SECRET = "a secret of this test that is long enough"
TUS = "/api/upload/files/"
TUS_REST = {check.id for check in CHECKS if check.id.startswith("tus-")} - {"tus-core"}


def on(method: str, start: str, change: Callable[[Call, Reply], None]) -> Callable[[Call, Reply], None]:
    """Change the answers to one method and to paths with this start."""

    def said(call: Call, reply: Reply) -> None:
        if call.method == method and call.path.startswith(start):
            change(call, reply)

    return said


def fields(**changed: Any) -> Callable[[Call, Reply], None]:
    """Change fields of successful answers; None removes a field."""

    def change(_: Call, reply: Reply) -> None:
        if reply.status < 300:
            body = {**reply.json, **changed}
            reply.say({key: value for key, value in body.items() if value is not None})

    return change


def without(header: str) -> Callable[[Call, Reply], None]:
    """Remove a header from answers."""
    return lambda _, reply: void(reply.headers.pop(header, None))


ONE_LEFT = {"x-ratelimit-remaining": "999"}


def void(_: object) -> None:
    """Discard a value."""


def instead(status: int, code: str, new_status: int, body: object) -> Callable[[Call, Reply], None]:
    """Replace one refusal by another answer."""

    def change(_: Call, reply: Reply) -> None:
        if reply.status == status and (not code or reply.json.get("error") == code):
            reply.say(body, new_status)

    return change


def file_fields(label: str, **changed: Any) -> Callable[[Call, Reply], None]:
    """Change fields of the file of one check in batch answers."""

    def change(_: Call, reply: Reply) -> None:
        body = reply.json
        for file in body.get("files", ()):
            if f"-{label}." in file["originalName"]:
                file.update(changed)
        reply.say(body)

    return change


def flipped(label: str) -> Callable[[Call, Reply], None]:
    """Damage the stored file of one check."""

    def change(call: Call, reply: Reply) -> None:
        if f"-{label}." in call.path and reply.status == 200 and call.method == "GET":
            reply.body = bytes([reply.body[0] ^ 1]) + reply.body[1:]

    return change


def accepts_any_session(patch: pytest.MonkeyPatch) -> None:
    """Ignore the category and unknown keys."""
    original = rest.session_request

    def lenient(body: Any, bodies: Bodies) -> tuple[str, int]:
        return original({"category": "personal", "expectedFiles": body.get("expectedFiles") or 1}, bodies)

    patch.setattr(rest, "session_request", lenient)


def accepts(**limits: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Check sessions and `validate` against these limits."""
    return lambda patch: patch.setattr(rest, "schemas", lambda known: schemas(replace(known, **limits)))


def one_request_a_session(patch: pytest.MonkeyPatch) -> None:
    """Accept one request for each session, also if it was cut."""
    original, used = Intake.attach, set[str]()

    def attach(intake: Intake, session: Session) -> None:
        if session.id in used:
            raise ApiError(409, "SESSION_ENDED", "One request was made already")
        used.add(session.id)
        original(intake, session)

    patch.setattr(Intake, "attach", attach)


def says_nothing(patch: pytest.MonkeyPatch) -> None:
    """Send no events."""

    async def emit(*_: object) -> None:
        pass

    patch.setattr(Realtime, "emit", emit)


def changes_events(**changed: Any) -> Callable[[pytest.MonkeyPatch], None]:
    """Change fields of every event; None removes a field."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = Realtime.emit

        async def emit(realtime: Realtime, session: str, event: dict[str, Any]) -> None:
            body = {key: value for key, value in {**event, **changed}.items() if value is not None}
            await original(realtime, session, body)

        patch.setattr(Realtime, "emit", emit)

    return apply


def says_only(status: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Send only events of one status."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original = Realtime.emit

        async def emit(realtime: Realtime, session: str, event: dict[str, Any]) -> None:
            if event["overallStatus"] == status:
                await original(realtime, session, event)

        patch.setattr(Realtime, "emit", emit)

    return apply


def rooms_of(most: int) -> Callable[[pytest.MonkeyPatch], None]:
    """Send no events to clients that join after `most` others, and acknowledge their joins."""

    def apply(patch: pytest.MonkeyPatch) -> None:
        original, joined = Joins.join, dict[object, int]()

        async def join(joins: Joins, sid: str, session: object = None, *more: object) -> Any:
            joined[session] = joined.get(session, 0) + 1
            return await original(joins, sid, session, *more) if joined[session] <= most else {"ok": True}

        patch.setattr(Joins, "join", join)

    return apply


def refuses_joins_after_a_loss(patch: pytest.MonkeyPatch) -> None:
    """Send no events to the first client that joins after a lost connection."""
    join, disconnect = Joins.join, Joins.disconnect
    lost: list[str] = []

    def noted(joins: Joins, sid: str, *more: object) -> None:
        lost.extend((joins.joined.get(sid) and [sid]) or [])
        disconnect(joins, sid, *more)

    async def joining(joins: Joins, sid: str, *more: Any) -> Any:
        if lost:
            lost.clear()
            return {"ok": True}
        return await join(joins, sid, *more)

    patch.setattr(Joins, "disconnect", noted)
    patch.setattr(Joins, "join", joining)


def no_polling(patch: pytest.MonkeyPatch) -> None:
    """Answer requests of long polling with 502, except the handshake."""
    original = Realtime.app

    async def app(realtime: Realtime, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and b"sid=" in scope["query_string"]:
            await send({"type": "http.response.start", "status": 502, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await original(realtime, scope, receive, send)

    patch.setattr(Realtime, "app", app)
    patch.setattr(watching, "DIAL_LIMIT", 2.0)  # it is waited for


def forgets_cut_uploads() -> Callable[[Call, Reply], None]:
    """Answer 410 to the HEAD after a cut."""
    lost: set[str] = set()

    def said(call: Call, reply: Reply) -> None:
        if "-tus-resumed." in _filename(call):
            lost.add(reply.headers["location"])
        elif call.method == "HEAD" and call.path in lost:
            reply.status = 410

    return said


def _filename(call: Call) -> str:
    pairs = (pair.split() for pair in call.headers.get("upload-metadata", "").split(","))
    return next((b64decode(pair[1]).decode() for pair in pairs if pair and pair[0] == "filename"), "")


def lags_behind(status: str) -> Callable[[Call, Reply], None]:
    """Report sessions of this status as uploading."""

    def change(_: Call, reply: Reply) -> None:
        if reply.json.get("overallStatus") == status:
            fields(overallStatus="uploading")(_, reply)

    return change


def ignores(header: str, method: str = "PATCH") -> Callable[[Call], None]:
    """Ignore a header."""
    return lambda call: void(call.headers.pop(header, None)) if call.method == method else None


def lets_anybody_delete(call: Call) -> None:
    """Accept every DELETE as authorized."""
    if call.method == "DELETE" and call.path.startswith("/api/upload/file/"):
        call.headers["authorization"] = f"Bearer {issue_token(SECRET)}"


def does_nothing(method: str, start: str) -> Callable[[Call], Reply | None]:
    """Answer a call with success without doing anything."""
    return lambda call: Reply(204, {"tus-resumable": "1.0.0"}) if matches(call, method, start) else None


def matches(call: Call, method: str, start: str) -> bool:
    """Return whether it is one of these calls."""
    return call.method == method and call.path.startswith(start) and call.path != start


def system_file(call: Call) -> Reply | None:
    """Serve files outside of the root below /uploads."""
    leads_out = call.path.startswith("/uploads/") and ".." in call.path
    return Reply(200, {"content-type": "text/plain"}, b"root:x:0:0::/root:/bin/sh\n") if leads_out else None


def leads_out_by_path(_: Call, reply: Reply) -> None:
    """Report a refused relativePath as stored unchanged."""
    body = reply.json
    for file in body.get("files", ()):
        if file["status"] == "failed" and ".." in file.get("relativePath", ""):
            file.update(status="completed", fileName=file["relativePath"])
    reply.say(body)


def fails_for_a_path(_: Call, reply: Reply) -> None:
    """Answer a refused relativePath with 500."""
    if any(file["status"] == "failed" and ".." in file.get("relativePath", "") for file in reply.json.get("files", ())):
        reply.say({}, 500)


def believes_paths(call: Call) -> None:
    """Ignore names of tus uploads."""
    if "../" in _filename(call):
        kept = call.headers["upload-metadata"].split(",")
        call.headers["upload-metadata"] = ",".join(
            item for item in kept if item.split()[0] in ("sessionId", "filetype")
        )
        call.headers["upload-length"] = "4096"


def leads_out_by_tus(_: Call, reply: Reply) -> None:
    """Report a finished upload without a name as stored outside of the root."""
    if "content-location" in reply.headers and "-tus" not in reply.headers["content-location"]:
        reply.headers["content-location"] = "/uploads/personal/../../up.mp4"


def mostly(status: int, header: str, value: str) -> Callable[[Call, Reply], None]:
    """Change a header in answers of one status."""

    def change(_: Call, reply: Reply) -> None:
        if reply.status == status and header in reply.headers:
            reply.headers[header] = value

    return change


def refuses_large_bodies(call: Call) -> Reply | None:
    """Refuse bodies above 1 MB without reading them, like a proxy."""
    return Reply(413, {"content-length": "0"}) if int(call.headers.get("content-length", 0)) > 1 << 20 else None


def pack_without_its_first(body: Any) -> Any:
    """Replace the first file of an answer to a pack by a failure."""
    failure = {"status": "failed", "error": "UPLOAD_FAILED", "message": "no", "retryable": True}
    return {**body, "files": [failure, *body["files"][1:]]}


def refuses_places(call: Call) -> Reply | None:
    """Refuse the metadata of a part that has a place."""
    if "partOffset" not in call.headers.get("upload-metadata", ""):
        return None
    reply = Reply(400, {"tus-resumable": "1.0.0"})
    reply.say({"error": "INVALID_METADATA", "message": "no", "timestamp": "2026-11-25T09:00:00Z"})
    return reply


PACKS = "/api/upload/packs"
BROKEN = {
    "a body limit of 1 MB": Broken({"body-limit"}, asked=refuses_large_bodies),
    "a body limit of 1 MB in batch mode": Broken({"body-limit"}, {"tus": False}, asked=refuses_large_bodies),
    "health is down": Broken({"health"}, said=on("GET", "/health", fields(status="DOWN"))),
    "no session": Broken({"session"}, said=on("POST", "/api/upload/session", instead(201, "", 500, {}))),
    "session without limits": Broken({"session"}, said=on("POST", "/api/upload/session", fields(maxFiles=None))),
    "session without a time": Broken({"session"}, said=on("POST", "/api/upload/session", fields(createdAt="now"))),
    "invalid sessions are accepted": Broken({"session-bad-input"}, patches=accepts_any_session),
    "validate refuses all files": Broken(
        {"validate"}, said=on("POST", "/api/upload/validate", fields(valid=False)), exit_code=0
    ),
    "progress of an unknown session": Broken(
        {"unknown-session"},
        said=on("GET", "/api/upload/progress", instead(404, "SESSION_NOT_FOUND", 200, {"overallStatus": "pending"})),
    ),
    "html errors": Broken(
        {"unknown-session"},
        said=on(
            "POST",
            "/api/upload/cancel",
            lambda _, reply: setattr(reply, "body", b"<p>") if reply.status == 404 else None,
        ),
    ),
    "no batch": Broken({"batch-one"}, said=on("POST", "/api/upload/batch", instead(200, "", 500, {}))),
    "batch is overloaded": Broken(
        {"unknown-session", "batch-one"},
        asked=lambda call: Reply(503, {}) if call.path == "/api/upload/batch" else None,
        exit_code=3,
    ),
    "wrong size": Broken({"batch-one"}, said=on("POST", "/api/upload/batch", file_fields("one", fileSize=1))),
    "damaged file": Broken({"stored-file"}, said=flipped("one"), exit_code=7),
    "no ranges": Broken({"stored-file"}, asked=ignores("range", "GET")),
    "one file fails": Broken({"batch-several"}, config={"fail_files": ("*第三*",)}),
    "accents of names are lost": Broken(
        {"batch-several"},
        said=on("POST", "/api/upload/batch", file_fields("naïve second", originalName="na?ve second.mp4")),
    ),
    "a cut ends the session": Broken({"batch-cut"}, patches=one_request_a_session),
    "no websocket": Broken({"websocket"}, config={"websocket": "refuse"}),
    "no polling transport": Broken({"long-polling"}, patches=no_polling),
    "no events": Broken({"events"}, patches=says_nothing, patience=2.0),
    "events without a message": Broken({"events"}, patches=changes_events(totalProgress=None, message=None)),
    "only the last event is sent": Broken({"events"}, patches=says_only("completed")),
    "events of another session": Broken({"events"}, patches=changes_events(sessionId="another"), patience=2.0),
    "progress lags behind": Broken(
        {"polling"},
        said=on("GET", "/api/upload/progress", lags_behind("completed")),
    ),
    "a late join gets no events": Broken({"join-late"}, patches=rooms_of(4), patience=2.0),
    "a join after a lost connection gets no events": Broken(
        {"reconnect"}, patches=refuses_joins_after_a_loss, patience=2.0
    ),
    "no cancelling": Broken(
        {"cancel"}, asked=lambda call: _not_found() if call.path.startswith("/api/upload/cancel/") else None
    ),
    "cancelled is not shown": Broken(
        {"cancel"},
        said=on("GET", "/api/upload/progress", lags_behind("cancelled")),
    ),
    "a wrong type is answered 500": Broken(
        {"limit-type"},
        config={"types": ("mp4",)},
        said=on("POST", "/api/upload/batch", instead(400, "INVALID_FILE_FORMAT", 500, {"error": "UPLOAD_FAILED"})),
    ),
    "any size": Broken({"limit-size"}, patches=accepts(max_size=1 << 60)),
    "one byte too many is answered 500": Broken(
        {"limit-size"},
        config={"max_size": 5000},
        said=on("POST", "/api/upload/batch", instead(413, "FILE_TOO_LARGE", 500, {})),
    ),
    "a wrong error for a large file by tus": Broken(
        {"limit-size"}, said=on("POST", TUS, instead(413, "FILE_TOO_LARGE", 400, {}))
    ),
    "one file more than announced": Broken({"limit-count"}, patches=accepts(max_files=10_001)),
    "too many files are answered 500": Broken(
        {"limit-count"},
        config={"max_files": 3},
        said=on("POST", "/api/upload/batch", instead(400, "TOO_MANY_FILES", 500, {})),
    ),
    "an upload may be cached": Broken({"tus-core"}, said=on("HEAD", TUS, without("cache-control"))),
    "no header Tus-Resumable": Broken({"tus-core"}, said=on("HEAD", TUS, without("tus-resumable"))),
    "no creation by tus": Broken(
        {"tus-core"}, asked=lambda call: Reply(500, {}) if (call.method, call.path) == ("POST", TUS) else None
    ),
    "a wrong path by tus is answered 500": Broken(
        {"path-traversal"}, said=on("POST", TUS, instead(400, "INVALID_PATH", 500, {}))
    ),
    "damaged file of a tus upload": Broken({"tus-core"}, said=flipped("tus"), exit_code=7),
    "no PATCH": Broken({"tus-core"}, said=on("PATCH", TUS, instead(204, "", 500, {}))),
    "any version of tus": Broken(
        {"tus-version"}, asked=lambda call: void(call.headers.update({"tus-resumable": "1.0.0"})), exit_code=0
    ),
    "a cut ends the upload": Broken({"tus-resume"}, said=forgets_cut_uploads()),
    "no crc32c": Broken(
        {"tus-checksum"},
        asked=lambda call: Reply(400, {}) if call.headers.get("upload-checksum", "").startswith("crc32c") else None,
    ),
    "checksums are ignored": Broken({"tus-checksum-mismatch"}, asked=ignores("upload-checksum"), exit_code=7),
    "bytes sent with the creation are lost": Broken(
        {"tus-creation-with-upload"}, said=on("POST", TUS, mostly(201, "upload-offset", "0"))
    ),
    "no header Upload-Defer-Length": Broken(
        {"tus-creation-defer-length"}, said=on("HEAD", TUS, without("upload-defer-length"))
    ),
    "no header Upload-Expires": Broken(
        {"tus-expiration"}, said=on("PATCH", TUS, without("upload-expires")), exit_code=0
    ),
    "a terminated upload is kept": Broken({"tus-termination"}, asked=does_nothing("DELETE", TUS)),
    "a final upload accepts a PATCH": Broken(
        {"tus-concatenation"}, said=on("PATCH", TUS, instead(403, "FINAL_UPLOAD", 200, {}))
    ),
    "packs fail": Broken({"packs"}, {"packs": True}, said=on("POST", PACKS, instead(200, "", 500, {}))),
    "a file of a pack is not stored": Broken(
        {"packs"},
        {"packs": True},
        said=on("POST", PACKS, lambda _, reply: reply.say(pack_without_its_first(reply.json))),
    ),
    "lookups find nothing": Broken(
        {"lookup"},
        {"packs": True},
        said=on("POST", "/api/upload/lookup", fields(files=[{"exists": False}, {"exists": False}])),
    ),
    "lookups fail": Broken(
        {"lookup"}, {"packs": True}, said=on("POST", "/api/upload/lookup", instead(200, "", 500, {}))
    ),
    "digests are not computed": Broken(
        {"digest"}, {"packs": True}, said=on("HEAD", "/uploads/", without("repr-digest"))
    ),
    "parts have no place": Broken({"tus-parts-in-place"}, {"packs": True}, asked=refuses_places),
    "a wrong path in a batch is answered 500": Broken(
        {"path-traversal"}, said=on("POST", "/api/upload/batch", fails_for_a_path)
    ),
    "a name leads outside of the root": Broken(
        {"path-traversal"}, said=on("POST", "/api/upload/batch", file_fields("up", fileName="../../up.mp4"))
    ),
    "a path leads outside of the root": Broken(
        {"path-traversal"},
        said=on("POST", "/api/upload/batch", leads_out_by_path),
    ),
    "a path by tus leads outside of the root": Broken(
        {"path-traversal"}, asked=believes_paths, said=on("PATCH", TUS, leads_out_by_tus)
    ),
    "any file is served": Broken({"path-traversal"}, asked=system_file),
    "files are deleted without a token": Broken({"auth"}, config={"jwt_secret": SECRET}, asked=lets_anybody_delete),
    "calls are not counted": Broken(
        {"rate-limit"},
        config={"rate_limit": 1000},
        said=lambda _, reply: void("x-ratelimit-limit" in reply.headers and reply.headers.update(ONE_LEFT)),
    ),
    "no header X-RateLimit-Reset": Broken(
        {"rate-limit"},
        config={"rate_limit": 1000},
        said=lambda _, reply: void(reply.headers.pop("x-ratelimit-reset", 0)),
    ),
}


def _not_found() -> Reply:
    reply = Reply(404, {})
    reply.say({"error": "SESSION_NOT_FOUND", "message": "no", "timestamp": "2026-11-25T09:00:00Z"})
    return reply


def neighbours(noticed: set[str]) -> list[str]:
    """Return these checks, all others of their modules, and the first two."""
    modules = {check.look.__module__ for check in CHECKS if check.id in noticed}
    return [check.id for check in CHECKS if check.look.__module__ in modules or check.id in ("health", "session")]


@pytest.mark.parametrize("how", BROKEN)
def test_broken_server_fails_the_right_check_alone(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks that depend on it are skipped."""
    broken = BROKEN[how]
    with broken.running(monkeypatch) as server:
        report = smoke(server.url, neighbours(broken.noticed_by), patience=broken.patience)
    assert failed(report) == broken.noticed_by, report.results
    assert report.exit_code == broken.exit_code
    for found in report.results:
        assert found.verdict is not Verdict.SKIPPED or found.blocked_by in {*broken.noticed_by, ""}
        row = check_json(found)
        assert bool(row["means"]) == (found.id in broken.noticed_by)
        if found.id == "body-limit" in broken.noticed_by:
            assert row["got"] == "413 of a proxy, by the head; 1.0 MiB pass"
        assert bool(row["expected"] and row["got"]) == (found.verdict is Verdict.FAIL)


def test_each_check_has_a_server_that_fails_it() -> None:
    """The server for `clean-up` is in `test_smoke_runs`."""
    noticed = set().union(*(broken.noticed_by for broken in BROKEN.values()))
    assert noticed == {check.id for check in CHECKS} - {"clean-up"}
