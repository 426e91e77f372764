"""The IETF's resumable uploads between tus-js-client 5 (`ietf-draft-05`), the bundled server and `uploader`."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from command import ended, read_confirmed, start, uploader
from serving import inside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interop.foreign import Destination, Node

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.partner("tus-js-client, IETF's protocol", "tus-js-client-5")]

KIB, MIB = 1 << 10, 1 << 20
DRAFT = {"protocol": "ietf-draft-05"}
CHUNKS = {"chunkSize": 256 * KIB}
NAME = "Grüße 東京.bin"


def run(node: Node, file: Path, options: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Upload with tus-js-client 5."""
    given = {"library": "tus-js-client-5", "file": str(file), "options": {**DRAFT, **options}}
    return node.run("tus_js_client.mjs", **given, **how)


@pytest.mark.parametrize(
    ("options", "stream", "requests"),
    [
        pytest.param({}, False, {"POST 201": 1, "PATCH 201": 1}, id="one PATCH"),
        pytest.param(CHUNKS, False, {"POST 201": 1, "PATCH 204": 3, "PATCH 201": 1}, id="chunks"),
        pytest.param({"uploadDataDuringCreation": True}, False, {"POST 201": 1}, id="creation with everything"),
        pytest.param(
            {"uploadLengthDeferred": True, **CHUNKS},
            True,
            {"POST 201": 1, "PATCH 204": 3, "PATCH 201": 1},
            id="deferred length",
        ),
    ],
)
@pytest.mark.cases("upload", "unicode")
def test_tus_js_client_5_uploads_to_the_bundled_server(
    node: Node,
    destination: Destination,
    make_file: Callable[[str, int], Path],
    options: dict[str, Any],
    stream: bool,
    requests: dict[str, int],
) -> None:
    file = make_file("a.bin", 1000 * KIB)
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **options}
    done = run(node, file, given, stream=stream)
    assert Counter(done["requests"]) == requests
    destination.check(done["url"], NAME, file.read_bytes())


@pytest.mark.cases("resume")
@pytest.mark.parametrize("finisher", ["tus-js-client 5", "uploader"])
def test_upload_of_tus_js_client_5_is_resumed(
    finisher: str, node: Node, destination: Destination, make_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """After an abort within a body, by itself or by `uploader`, which knows only the URL."""
    file = make_file("a.bin", 2 * MIB)
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **CHUNKS}
    first = run(node, file, given, stopAfter=MIB)
    assert first["stopped"]
    if finisher == "uploader":
        done = uploader("upload", file, "--upload-url", first["url"], "--protocol", "ietf", home=tmp_path)
        assert done.code == 0, done.err
    else:
        rest = run(node, file, {"uploadUrl": first["url"], **CHUNKS})
        assert rest["requests"][0] == "HEAD 204"
        assert rest["requests"].count("PATCH 204") <= 4
    destination.check(first["url"], NAME, file.read_bytes())


@pytest.mark.parametrize("finisher", ["tus-js-client 5", "uploader"])
def test_upload_of_uploader_is_resumed(finisher: str, node: Node, server: EmbeddedServer, tmp_path: Path) -> None:
    """After a kill, by a second run or by tus-js-client 5, which knows only the URL."""
    (tmp_path / "files").mkdir()
    file = tmp_path / "files" / "a.bin"
    file.write_bytes(os.urandom(4 * MIB))
    options = ("--tus-endpoint", f"{server.url}/api/upload/files/", "--protocol", "ietf", "--chunk-size", "256K")
    first = start("upload", file, *options, "--limit-rate", "1M", "--json", home=tmp_path)
    assert ended(first, read_confirmed(first, MIB), signal.SIGKILL).code == -signal.SIGKILL
    (upload,) = inside(server).backend.tus.open
    if finisher == "uploader":
        done = uploader("upload", file, *options, home=tmp_path)
        assert done.code == 0, done.err
    else:
        rest = run(node, file, {"uploadUrl": f"{server.url}/api/upload/files/{upload}", **CHUNKS})
        assert rest["requests"][0] == "HEAD 204"
    assert server.faults.count("POST", "/api/upload/files/") == 1
    assert (server.root / "tus" / "a.bin").read_bytes() == file.read_bytes()


def test_tus_js_client_5_deletes_an_upload(
    node: Node, destination: Destination, make_file: Callable[[str, int], Path]
) -> None:
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **CHUNKS}
    done = run(node, make_file("a.bin", 2 * MIB), given, stopAfter=MIB, terminate=True)
    assert done["requests"][-1] == "DELETE 204"
