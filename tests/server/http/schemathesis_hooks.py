"""What schemathesis can't find out: how a tus body is sent, and sessions, uploads and files that there are.

The ids and paths that it makes up are replaced by real ones; wrong ones stay as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import requests
import schemathesis
from server.batches import DEADLINE

SERVER = os.environ["FUZZED_SERVER"]
FILE = {"category": "personal", "path": "fuzzed.txt"}
STORED = "/uploads/personal/fuzzed.txt"
"""A file that there is."""
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}")


@schemathesis.serializer("application/offset+octet-stream")
def octets(_: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    real = {key: STORED for key, value in body.items() if key.endswith("Path") and isinstance(value, str) and value}
    if is_id(body.get("sessionId")) and not real:
        real = {"sessionId": os.environ["FUZZED_SESSION"]}
    return {**body, **real}


@schemathesis.hook
def map_path_parameters(context: schemathesis.HookContext, values: dict[str, Any]) -> dict[str, Any]:
    method, path = context.operation.method.upper(), context.operation.path
    if path.startswith("/uploads/"):
        return FILE
    if not values or not is_id(values.get("id")):
        return values
    if "/files/" in path:
        return {"id": an_upload(finished=method in {"GET", "DELETE"})["location"].rpartition("/")[2]}
    if "/file/" in path:
        return {"id": an_upload(finished=True)["upload-file-id"]}
    return {"id": a_session()} if path.startswith("/api/upload/") else values


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def a_session() -> str:
    """The id of a new session."""
    session = {"category": "personal", "expectedFiles": 1}
    answer = requests.post(SERVER + "/api/upload/session", json=session, headers=authorized(), timeout=DEADLINE)
    return str(answer.json()["sessionId"])


def an_upload(*, finished: bool) -> Mapping[str, str]:
    """The headers of the answer for a new tus upload: of an empty file, or of one whose length is not known yet."""
    length = {"Upload-Length": "0"} if finished else {"Upload-Defer-Length": "1"}
    headers = {**authorized(), "Tus-Resumable": "1.0.0", **length}
    return requests.post(SERVER + "/api/upload/files/", headers=headers, timeout=DEADLINE).headers


def authorized() -> dict[str, str]:
    return {"Authorization": os.environ["FUZZED_TOKEN"]}
