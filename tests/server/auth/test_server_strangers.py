"""Who can only watch can't write (docs/extensions.md): upload URLs and keys are not published."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

import jwt
import pytest
import requests
from server.batches import (
    DEADLINE,
    body_of,
    file,
    new_session,
    post_parts,
    progress,
    text,
    watching,
)
from server.packs.packing import post_pack, recalled
from server.tus.tus_client import (
    ENDPOINT,
    TUS,
    append,
    content,
    create,
    created,
    error,
    head,
    metadata,
    offset_of,
    part,
    terminate,
)
from serving import running_server, server_process

if TYPE_CHECKING:
    from pathlib import Path

ID = re.compile(r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


MINE = {"X-Session-Secret": "this-secret-has-many-characters"}
OTHERS: tuple[dict[str, str], ...] = (
    {},
    {"X-Session-Secret": "another-secret-of-a-stranger"},
    {"X-Session-Secret": "short"},
    {"X-Session-Secret": ""},
)
"""Headers of clients that did not create the session."""


def protected(url: str, expected: int = 1, headers: dict[str, str] | None = None) -> str:
    """The id of a new session that only who knows its secret may write to."""
    body = {"category": "personal", "expectedFiles": expected}
    answer = post(url, "session", {**MINE, **(headers or {})}, json=body)
    assert answer.status_code == 201, answer.text
    assert MINE["X-Session-Secret"] not in answer.text
    return str(answer.json()["sessionId"])


def post(url: str, path: str, headers: dict[str, str], **how: Any) -> requests.Response:
    return requests.post(f"{url}/api/upload/{path}", headers=headers, timeout=DEADLINE, **how)


def tries_to_write(url: str, session: str, headers: dict[str, str], name: str) -> list[requests.Response]:
    """Send a creation, a part, a join, a pack, a batch, and the end of the session; return the answers."""
    named = {"sessionId": session}
    parts = part(url, b"ab"), part(url, b"cd")
    batch = body_of([text("sessionId", session), text("category", "personal"), file(f"{name}.batch", b"batch")])
    form = {**headers, "Content-Type": "multipart/form-data; boundary=BOUNDARY"}
    final = {**TUS, **headers, "Upload-Concat": "final;" + " ".join(parts)}
    final["Upload-Metadata"] = metadata(filename=f"{name}.joined", **named)
    return [
        create(url, 3, b"tus", headers=headers, filename=f"{name}.tus", **named),
        create(url, 3, headers={**headers, "Upload-Concat": "partial"}, **named),
        requests.post(url + ENDPOINT, headers=final, timeout=DEADLINE),
        post_pack(url, session, {f"{name}.packed": b"pack"}, key=f"key of {name}".replace(" ", "-"), **headers),
        post(url, "batch", form, data=batch),
        post(url, f"session/{session}/finish", headers),
    ]


def published(url: str, session: str, events: list[dict[str, Any]]) -> str:
    """Everything that a client without rights can read about a session."""
    activity = requests.get(f"{url}/api/activity", timeout=DEADLINE).text
    metrics = requests.get(f"{url}/metrics", timeout=DEADLINE).text
    return activity + progress(url, session).text + metrics + json.dumps(events)


@pytest.mark.thorough
def test_no_id_that_a_watcher_reads_writes_to_an_upload(tmp_path: Path) -> None:
    """Also none of a file without a name, and none after a restart."""
    with server_process("--root", str(tmp_path)) as server:
        old, session = server.url, new_session(server.url, 3)
        with watching(server.url, session=session) as stranger:
            mine = created(server.url, 6, b"abc", sessionId=session, filename="mine.txt")
            nameless = created(server.url, 6, b"abc", sessionId=session)
            done = created(server.url, 4, b"done", sessionId=session, filename="done.txt")
            stranger.wait(lambda events: any(event["completedFiles"] == 1 for event in events))
            seen = published(server.url, session, stranger.events)
    ids = set(ID.findall(seen)) - {session}
    assert len(ids) == 3
    with server_process("--root", str(tmp_path)) as server:
        mine, nameless, done = (url.replace(old, server.url) for url in (mine, nameless, done))
        for id_ in ids | set(ID.findall(published(server.url, session, []))):
            url = server.url + ENDPOINT + id_
            assert error(append(url, 3, b"bad")) == (404, "UPLOAD_NOT_FOUND")
            assert [head(url).status_code, terminate(url).status_code] == [404, 404]
        assert [offset_of(mine), offset_of(nameless), content(done)] == [3, 3, b"done"]
        assert append(mine, 3, b"def").status_code == 204


@pytest.mark.thorough
def test_upload_urls_have_128_random_bits() -> None:
    with running_server() as server:
        ids = [created(server.url, 1).rpartition("/")[2] for _ in range(50)]
    bits = [int(id_, 16) for id_ in ids]
    always, ever = bits[0], 0
    for number in bits:
        always, ever = always & number, ever | number
    assert {len(id_) for id_ in ids} == {32}
    assert (always, ever) == (0, (1 << 128) - 1), "a bit is not random"


def test_conflict_of_parts_does_not_name_the_other_upload() -> None:
    place = {"finalKey": "k", "finalLength": "6"}
    with running_server() as server:
        partial = {"Upload-Concat": "partial"}
        mine = create(server.url, 3, b"abc", headers=partial, partOffset="0", **place).headers["location"]
        refused = create(server.url, 3, b"bad", headers=partial, partOffset="2", **place)
        assert error(refused) == (409, "RANGE_CONFLICT")
        assert mine.removeprefix(ENDPOINT) not in refused.text + str(refused.headers)


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_logs_have_neither_upload_urls_nor_keys_of_packs(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with running_server(access_log=tmp_path / "log", access_log_format=kind, packs=True) as server:
        upload = created(server.url, 6, b"abc")
        assert append(upload, 3, b"def").status_code == 204
        with closing(sqlite3.connect(server.root / ".uploader" / "server.sqlite3")) as database:
            database.execute("DROP TABLE packs")  # the next request fails, which the server's own log tells
        assert recalled(server.url, "key/of-a-pack").status_code == 500
    told = (tmp_path / "log").read_text() + caplog.text
    assert "PATCH /api/upload/files/***" in told.replace('", "path": "', " ").replace('"method": "', "")
    assert "GET /api/upload/packs/*** failed" in caplog.text
    assert upload.rpartition("/")[2] not in told
    assert "of-a-pack" not in told


def test_only_who_knows_the_secret_writes_to_a_session(tmp_path: Path) -> None:
    """Also after a restart, and in capitals."""
    with server_process("--root", str(tmp_path), packs=True) as server:
        session = protected(server.url, 9)
        for headers in OTHERS:
            refused = tries_to_write(server.url, session.upper(), headers, "bad")
            assert {error(answer) for answer in refused} == {(403, "NOT_YOURS")}
        assert server.kill() < 0
    with server_process("--root", str(tmp_path), packs=True) as server:
        assert progress(server.url, session).json()["files"] == []
        for headers in OTHERS:
            refused = tries_to_write(server.url, session, headers, "bad")
            assert {error(answer) for answer in refused} == {(403, "NOT_YOURS")}
            assert error(post(server.url, f"cancel/{session}", headers)) == (403, "NOT_YOURS")
        accepted = tries_to_write(server.url, session, MINE, "good")
        assert [answer.status_code for answer in accepted] == [201, 201, 201, 200, 200, 200]
        for headers in OTHERS:
            assert error(recalled(server.url, "key-of-good", **headers)) == (403, "NOT_YOURS")
        assert recalled(server.url, "key-of-good", **MINE).status_code == 200
        assert sorted(path.name for path in (tmp_path / "personal").iterdir()) == [
            *("good.batch", "good.joined", "good.packed", "good.tus")
        ]


def test_only_who_knows_the_secret_cancels_a_session() -> None:
    with running_server() as server:
        session = protected(server.url)
        upload = created(server.url, 3, b"a", headers=MINE, sessionId=session)
        for headers in OTHERS:
            assert error(post(server.url, f"cancel/{session}", headers)) == (403, "NOT_YOURS")
        assert append(upload, 1, b"b").status_code == 204, "an upload needs no more than its URL"
        assert post(server.url, f"cancel/{session}", MINE).status_code == 200
        assert head(upload).status_code == 410


def test_key_moves_an_upload_only_into_a_session_of_who_knows_its_secret() -> None:
    with running_server() as server:
        theirs, mine = protected(server.url), new_session(server.url)
        upload = created(server.url, 3, b"a", sessionId=mine, uploadKey="key")
        assert error(create(server.url, 3, sessionId=theirs, uploadKey="key")) == (403, "NOT_YOURS")
        assert progress(server.url, theirs).json()["files"] == []
        moved = create(server.url, 3, headers=MINE, sessionId=theirs, uploadKey="key")
        assert (moved.status_code, urljoin(server.url, moved.headers["location"])) == (200, upload)
        assert len(progress(server.url, theirs).json()["files"]) == 1


def test_owner_of_a_token_must_match_beside_the_secret() -> None:
    with running_server() as server:
        tokens = [jwt.encode({"sub": name}, server.config.jwt_secret, algorithm="HS256") for name in ("me", "you")]
        me, you = ({**MINE, "Authorization": f"Bearer {token}"} for token in tokens)
        session = protected(server.url, headers=me)
        for headers in (MINE, you, {"Authorization": me["Authorization"]}):
            assert error(post(server.url, f"cancel/{session}", headers)) == (403, "NOT_YOURS")
        assert post(server.url, f"cancel/{session}", me).status_code == 200


@pytest.mark.parametrize("secret", ["", "21 is one too few ...", "x" * 21, "x" * 201, "with-a-space in-it-of-30-chars"])
def test_a_weak_secret_is_refused(secret: str) -> None:
    with running_server() as server:
        body = {"category": "personal", "expectedFiles": 1}
        refused = post(server.url, "session", {"X-Session-Secret": secret}, json=body)
        assert error(refused) == (400, "INVALID_HEADER")
        assert progress(server.url, protected(server.url)).status_code == 200


def test_session_without_a_secret_stays_open_to_all() -> None:
    """The founding protocol has no secret; the reference backend ignores one."""
    with running_server(packs=True) as server:
        session = new_session(server.url, 9)
        answers = tries_to_write(server.url, session, {"X-Session-Secret": "nobody-asked-for-this-secret"}, "open")
        assert all(answer.ok for answer in answers)
    with running_server(flavour="reference", processing_seconds=0.0) as server:
        session = protected(server.url)
        parts = [text("sessionId", session), text("category", "personal"), file("a.mp4", b"a")]
        assert post_parts(server.url, parts).status_code == 200


def test_pages_of_an_allowed_origin_may_send_the_secret() -> None:
    with running_server(cors_origins=("https://page.example",)) as server:
        asks = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
        answer = requests.options(f"{server.url}/api/upload/session", headers=asks, timeout=DEADLINE)
        assert "X-Session-Secret" in answer.headers["access-control-allow-headers"].split(", ")
