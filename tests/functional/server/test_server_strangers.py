"""Who can only watch can't write (docs/protocol.md, section 10): upload URLs and keys are not published."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import requests
from functional.server.batches import DEADLINE, new_session, progress, watching
from functional.server.packing import recalled
from functional.tus_server.tus_client import (
    ENDPOINT,
    append,
    content,
    create,
    created,
    error,
    head,
    offset_of,
    terminate,
)
from serving import running_server, server_process

if TYPE_CHECKING:
    from pathlib import Path

ID = re.compile(r"[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


def published(url: str, session: str, events: list[dict[str, Any]]) -> str:
    """Everything that a client without rights can read about a session."""
    activity = requests.get(f"{url}/api/activity", timeout=DEADLINE).text
    metrics = requests.get(f"{url}/metrics", timeout=DEADLINE).text
    return activity + progress(url, session).text + metrics + json.dumps(events)


def test_no_id_that_a_watcher_reads_writes_to_an_upload(tmp_path: Path) -> None:
    """Also none of a file without a name, and none after a restart."""
    with server_process("--root", str(tmp_path)) as server:
        old, session = server.url, new_session(server.url, 3)
        with watching(server.url, session=session) as stranger:
            mine = created(server.url, 6, b"abc", sessionId=session, filename="mine.txt")
            nameless = created(server.url, 6, b"abc", sessionId=session)
            done = created(server.url, 4, b"done", sessionId=session, filename="done.txt")
            stranger.wait(lambda events: any(event["completedFiles"] == 1 for event in events))
            seen = published(server.url, session, stranger.ordered())
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
