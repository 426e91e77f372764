"""`/openapi.json` describes all calls, and all answers that schemathesis gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from jsonschema import Draft202012Validator
from server.batches import DEADLINE, UNKNOWN
from serving import running_server

from uploader_server.app import create_app
from uploader_server.config import ServerConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uploader_server.serving import EmbeddedServer

TOKEN = "a token of the fuzzer"
HERE = Path(__file__).parent
METHODS = {"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT", "TRACE"}


def described(server: EmbeddedServer) -> dict[str, Any]:
    answer = requests.get(f"{server.url}/openapi.json", timeout=DEADLINE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
    document: dict[str, Any] = answer.json()
    return document


def calls(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, call in item.items():
            assert method.upper() in METHODS
            yield path, method.upper(), call


@pytest.mark.parametrize("options", [{}, {"packs": True}, {"tus": False}, {"auth_token": TOKEN, "packs": True}])
def test_openapi_calls_are_those_of_the_application(options: dict[str, Any]) -> None:
    with running_server(**options) as server:
        routes = {(route.path_format, method) for route in server.app.routes for method in route.methods or ()}
        assert {(path, method) for path, method, _ in calls(described(server))} == routes


def test_openapi_document_is_valid() -> None:
    with running_server(packs=True) as server:
        document = described(server)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = {text.rpartition("/")[2] for text in json.dumps(document).split('"') if text.startswith("#/comp")}
    assert references == schemas.keys()
    names = [call["operationId"] for _, _, call in calls(document) if "operationId" in call]
    assert len(names) == len(set(names))


def test_limits_of_the_server_are_limits_of_its_schemas() -> None:
    with running_server(max_files=7, max_size=99) as server:
        schemas = described(server)["components"]["schemas"]
        assert schemas["NewSession"]["properties"]["expectedFiles"]["maximum"] == 7
        assert schemas["FileToValidate"]["properties"]["size"]["maximum"] == 99


def test_openapi_marks_the_calls_that_need_a_token() -> None:
    with running_server(auth_token=TOKEN, packs=True) as server:
        document = described(server)
        for path, method, call in calls(document):
            answer = requests.request(method, server.url + path.replace("{id}", UNKNOWN), timeout=DEADLINE)
            assert (answer.status_code == 401) == ("security" in call), (method, path)


def test_reference_flavour_has_no_openapi_document() -> None:
    app = create_app(ServerConfig(flavour="reference"))
    assert "/openapi.json" not in {route.path for route in app.routes}
    app.close()


AT_LENGTH = pytest.param(200, marks=[pytest.mark.acceptance, pytest.mark.timeout(3600)])


@pytest.mark.feature("server/metrics")
@pytest.mark.parametrize("examples", [pytest.param(4, marks=pytest.mark.thorough), AT_LENGTH])
def test_schemathesis_finds_no_answer_that_is_not_described(examples: int) -> None:
    from uploader_server.features.metrics.metrics import route_of

    """It also finds no call without a token, no 5xx, and no accepted request that the schemas forbid."""
    token = f"Bearer {TOKEN}"
    config = {"packs": True, "analysis_seconds": 0.0, "remembered_requests": 1_000_000}
    with running_server(auth_token=TOKEN, **config) as server:
        session = {"category": "personal", "expectedFiles": 10_000}
        opened = requests.post(
            f"{server.url}/api/upload/session", json=session, headers={"Authorization": token}, timeout=DEADLINE
        )
        (server.root / "personal" / "fuzzed.txt").write_text("of the fuzzer")
        known = {"FUZZED_SERVER": server.url, "FUZZED_TOKEN": token, "FUZZED_SESSION": opened.json()["sessionId"]}
        without_coverage = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        before = len(server.faults.requests)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "--no-color"),
                *("run", f"{server.url}/openapi.json", "--max-examples", str(examples)),
                *("--header", f"Authorization: {token}"),
            ],
            cwd=HERE,
            env={**without_coverage, "PYTHONPATH": path, **known},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        seen = {
            (request.method, route_of(request.path))
            for request in server.faults.requests[before:]
            if request.status in range(200, 300)
        }
    # The token was accepted, and requests got past the first check of each call.
    wanted = {
        *(("POST", route) for route in ("validate", "session", "batch", "lookup", "cancel", "analysis", "tus")),
        *(("GET", route) for route in ("health", "metrics", "openapi", "stored", "progress", "tus")),
        *(("DELETE", "delete"), ("DELETE", "tus"), ("PATCH", "tus"), ("HEAD", "tus"), ("OPTIONS", "tus")),
    }
    assert wanted - seen == set()
