"""Answers with terminal control sequences or with text that can't be encoded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from command import uploader
from serving import running_server

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SESSION = "00000000-0000-4000-8000-000000000000"
EVIL = "\x1b]0;owned\x07\x9b31m\x7f\u202egpj\u2066"


def answer(body: dict[str, Any], **how: Any) -> Answer:
    """A scripted 200 with this JSON body."""
    return Answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode(), **how)


def inert(text: str) -> bool:
    """Return True if the text has no terminal control character."""
    return all(line.isprintable() for line in text.splitlines())


def test_status_shows_no_control_character_of_an_answer(server: EmbeddedServer, tmp_path: Path) -> None:
    """Neither in words nor with `--json`, whose values stay what they were."""
    files = [{"originalName": EVIL, "status": EVIL, "progress": 5, "error": EVIL}]
    body = {"sessionId": SESSION, "overallStatus": EVIL, "files": files, EVIL: EVIL}
    server.faults.next_answers("GET", "/api/upload/progress/*", [answer(body)] * 2)
    words = uploader("status", SESSION, "-s", server.url, home=tmp_path)
    machine = uploader("status", SESSION, "-s", server.url, "--json", home=tmp_path)
    assert inert(words.err)
    assert inert(machine.out)
    assert json.loads(machine.out) == body


@pytest.mark.parametrize("way", ["packs", "batch"])
def test_lone_surrogates_in_answers_do_not_end_the_run(
    way: str, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The file is stored and reported; what no encoding can carry is shown as an escape."""
    with running_server(packs=way == "packs") as server:
        if way == "packs":
            body: dict[str, Any] = {
                "sessionId": "s",
                "files": [{"status": "stored", "id": "\ud800", "location": "/\udfff"}],
            }
        else:
            stored = {"originalName": "a.mp4", "status": "completed", "id": "\ud800", "fileName": "\udfff"}
            body = {"success": True, "files": [{**stored, "fileSize": 10, "filePath": "/\ud800"}]}
        server.faults.next_answers("POST", f"/api/upload/{way}", [answer(body, when="after_store")])
        command = ("upload", make_files(**{"a.mp4": 10}), "-s", server.url, "--json", "--report", "r.csv")
        done = uploader(*command, "--protocol", "batch" if way == "batch" else "auto", home=tmp_path)
    assert done.code == 0, done.err
    assert done.finished["completed"] == 1
    assert done.of("file.completed")[0]["server_id"] == "\\ud800"


def test_lone_surrogate_in_the_answer_to_status(server: EmbeddedServer, tmp_path: Path) -> None:
    body = {"sessionId": SESSION, "overallStatus": "uploading", "files": [], "note\ud800": "\udcff"}
    server.faults.next_answers("GET", "/api/upload/progress/*", [answer(body)])
    machine = uploader("status", SESSION, "-s", server.url, "--json", home=tmp_path)
    assert machine.code == 0, machine.err
    assert json.loads(machine.out)["overallStatus"] == "uploading"


@pytest.mark.parametrize("written", ["tok+en/of-ours==", "tok%2Ben%2Fof-ours%3D%3D"])
def test_token_in_a_redirect_is_masked_in_the_hint(
    written: str, server: EmbeddedServer, make_files: Callable[..., Path], tmp_path: Path
) -> None:
    """The hint names the address, into which a server may have put the token, plain or percent-encoded."""
    to = Answer(302, {"Location": f"http://elsewhere.invalid/login?token={written}"})
    server.faults.next_answers("POST", "/api/upload/session", [to])
    server.faults.next_answers("GET", "/api/upload/progress/*", [to])
    token = {"UPLOADER_TOKEN": "tok+en/of-ours=="}
    sent = uploader("upload", make_files(**{"a.mp4": 1}), "-s", server.url, "--json", home=tmp_path, **token)
    asked = uploader("status", SESSION, "-s", server.url, home=tmp_path, **token)
    for done in (sent, asked):
        assert done.code == 6
        assert "it points to http://elsewhere.invalid/login: is that" in done.err
        assert written not in done.err + done.out


@pytest.mark.parametrize("age", ["9" * 4000, "-" + "9" * 4000])
def test_cookie_that_no_jar_can_read_is_left_out_without_a_word(
    age: str, server: EmbeddedServer, tmp_path: Path
) -> None:
    """Also by the jar that `requests` has for each answer."""
    baked = {"Content-Type": "application/json", "Set-Cookie": f"a=1; Max-Age={age}"}
    state = json.dumps({"sessionId": SESSION, "overallStatus": "uploading", "files": []}).encode()
    server.faults.next_answers("GET", "/api/upload/progress/*", [Answer(200, baked, state)])
    done = uploader("status", SESSION, "-s", server.url, "--json", home=tmp_path, fresh=True)
    assert (done.code, done.err) == (0, "")
