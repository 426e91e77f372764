"""The page at `/`, its files, and the list of sessions that it shows."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from typing import TYPE_CHECKING

import pytest
import requests
from server.batches import DEADLINE, eventually, file, new_session, upload, watching
from serving import running_server

from uploader_server.auth import issue_token
from uploader_server.features.page.page import FILES, STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

TOKEN = "the-token-of-the-page"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_server(auth_token=TOKEN) as server:
        yield server


def get(server: EmbeddedServer, path: str, token: str = "") -> requests.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return requests.get(server.url + path, headers=headers, timeout=DEADLINE)


def test_page_needs_no_token_and_has_a_strict_policy(subtests: pytest.Subtests, server: EmbeddedServer) -> None:
    types = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for path, source in FILES.items():
        with subtests.test(path=path, source=source):
            answer = get(server, path)
            assert (answer.status_code, answer.content) == (200, source.read_bytes())
            assert answer.headers["content-type"].startswith(types.get(source.suffix, "text/plain"))
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            is_kept = "/vendor/" in path  # its version is in the path
            assert ("immutable" in answer.headers["cache-control"]) is is_kept
            assert (answer.headers["cache-control"] == "no-cache") is not is_kept


def test_page_has_only_relative_urls() -> None:
    """A proxy may serve it below a path."""
    own = [path for path in STATIC.rglob("*") if path.suffix in {".html", ".css", ".js"} and "vendor" not in path.parts]
    texts = [path.read_text(encoding="utf-8") for path in own]
    found = [url for text in texts for url in re.findall(r"""(?:href=|src=|url\(|call\(|from )['"`]([^'"`]+)""", text)]
    assert len(found) > 10
    assert [url for url in found if url.startswith("/") or "//" in url] == []


def test_libraries_of_the_page_have_version_and_licences() -> None:
    libraries = list((STATIC / "vendor").iterdir())
    assert libraries
    for library in libraries:
        name, version = re.fullmatch(r"(.+)-(\d+\.\d+\.\d+)", library.name).groups()  # type: ignore[union-attr]
        assert (library / "LICENSES.txt").read_text(encoding="utf-8").startswith(f"{name} {version} ")
        assert len(list(library.glob("*.js"))) == 1


def test_activity_lists_sessions_and_analyses() -> None:
    with running_server(analysis_seconds=60) as server:
        first = new_session(server.url, 2)
        (stored,) = upload(server.url, file("a.mp4", b"data"), session=first)
        second = new_session(server.url, 1)
        video = {"videoPath": stored["filePath"]}

        def analyse() -> None:
            with contextlib.suppress(requests.RequestException):  # the server stops meanwhile
                requests.post(f"{server.url}/api/ai/analyze/content", json=video, timeout=DEADLINE)

        analysing = threading.Thread(target=analyse)
        analysing.start()
        eventually(lambda: get(server, "/api/activity").json()["analyses"], "the analysis")
        with watching(server.url, "websocket", first):  # its messages are no body
            activity = get(server, "/api/activity").json()
        bodies = sum(request.received for request in server.faults.requests) + len(json.dumps(video))
    analysing.join(DEADLINE)
    assert [session["sessionId"] for session in activity["sessions"]] == [second, first]
    listed = activity["sessions"][1]
    progress = ("overallStatus", "totalProgress", "completedFiles", "failedFiles", "totalFiles")
    assert [listed[key] for key in ("category", *progress)] == ["personal", "uploading", 50, 1, 0, 2]
    (analysis,) = activity["analyses"]
    assert (analysis["kind"], analysis["status"], analysis["stage"]) == ("content", "running", "upload")
    assert analysis["stages"] == ["upload", "model-analysis", "structuring", "report", "saving"]
    assert activity["receivedBytes"] == bodies


@pytest.mark.thorough
def test_activity_lists_at_most_100_sessions() -> None:
    with running_server() as server:
        ids = [new_session(server.url, 1) for _ in range(101)]
        listed = [session["sessionId"] for session in get(server, "/api/activity").json()["sessions"]]
    assert listed == ids[:0:-1]


def test_activity_needs_the_token_of_the_server(server: EmbeddedServer) -> None:
    """A JWT has no sessions of its own."""
    assert get(server, "/api/activity").status_code == 401
    assert get(server, "/api/activity", issue_token(server.config.jwt_secret)).status_code == 401
    assert get(server, "/api/activity", TOKEN).json()["sessions"] == []


def test_no_ui_disables_page_and_list() -> None:
    with running_server(ui=False) as server:
        assert {get(server, path).status_code for path in ("/", "/ui/page.js", "/api/activity")} == {404}
        assert "/api/activity" not in get(server, "/openapi.json").json()["paths"]
