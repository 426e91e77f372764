"""tus-js-client uploads to the bundled server with each of its methods, and the stored bytes are equal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interop.foreign import Destination, Node

pytestmark = [pytest.mark.interop, pytest.mark.partner("tus-js-client", "tus-js-client")]

KIB = 1 << 10
SCRIPT = "tus_js_client.mjs"
CHUNKS = {"chunkSize": 256 * KIB}
WITH_DATA = {"uploadDataDuringCreation": True}
DEFERRED = {"uploadLengthDeferred": True}
PARALLEL = {"parallelUploads": 3}
NAME = "Grüße 東京.bin"


@pytest.mark.parametrize(
    ("options", "stream", "requests"),
    [
        pytest.param({}, False, {"POST 201": 1, "PATCH 204": 1}, id="one PATCH"),
        pytest.param(CHUNKS, False, {"POST 201": 1, "PATCH 204": 4}, id="chunks"),
        pytest.param(WITH_DATA, False, {"POST 201": 1}, id="creation with upload"),
        pytest.param(WITH_DATA | CHUNKS, False, {"POST 201": 1, "PATCH 204": 3}, id="creation with upload, chunks"),
        pytest.param(
            {"uploadLengthDeferred": True} | CHUNKS, True, {"POST 201": 1, "PATCH 204": 4}, id="deferred length"
        ),
        pytest.param(PARALLEL, False, {"POST 201": 4, "PATCH 204": 3}, id="parallel"),
        pytest.param(PARALLEL | CHUNKS, False, {"POST 201": 4, "PATCH 204": 6}, id="parallel, chunks"),
        pytest.param(PARALLEL | WITH_DATA, False, {"POST 201": 4}, id="parallel, creation with upload"),
        pytest.param({"overridePatchMethod": True}, False, {"POST 201": 1, "POST 204": 1}, id="no PATCH"),
    ],
)
@pytest.mark.cases("upload", "unicode")
def test_tus_js_client_options(
    node: Node,
    destination: Destination,
    make_file: Callable[[str, int], Path],
    options: dict[str, Any],
    stream: bool,
    requests: dict[str, int],
) -> None:
    file = make_file("a.bin", 1000 * KIB)
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **options}
    done = node.run(SCRIPT, file=str(file), stream=stream, options=given)
    assert Counter(done["requests"]) == requests
    destination.check(done["url"], NAME, file.read_bytes())


@pytest.mark.parametrize(
    ("options", "found", "chunks"),
    [
        pytest.param({}, 1, 4, id="one upload"),
        pytest.param(WITH_DATA, 1, 4, id="creation with upload"),
        pytest.param(PARALLEL, 3, 6, id="parallel"),
    ],
)
@pytest.mark.cases("resume")
def test_resume_from_a_previous_upload(
    node: Node,
    destination: Destination,
    make_file: Callable[[str, int], Path],
    tmp_path: Path,
    options: dict[str, Any],
    found: int,
    chunks: int,
) -> None:
    """After an abort within a body, a second process finds the URLs, asks for the offsets and sends the rest."""
    file = make_file("a.bin", 2 << 20)
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **CHUNKS, **options}
    same = {"file": str(file), "options": given, "storage": str(tmp_path / "urls")}
    first = node.run(SCRIPT, **same, stopAfter=1 << 20)
    assert first["stopped"]
    rest = node.run(SCRIPT, **same)
    sent = Counter(rest["requests"])
    assert sent["HEAD 200"] == found
    assert sent["POST 201"] == (1 if found > 1 else 0)
    assert 0 < sent["PATCH 204"] <= chunks
    destination.check(rest["url"], NAME, file.read_bytes())


def test_resume_from_a_url(node: Node, destination: Destination, make_file: Callable[[str, int], Path]) -> None:
    """The second process knows only the URL."""
    file = make_file("a.bin", 2 << 20)
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **CHUNKS}
    first = node.run(SCRIPT, file=str(file), options=given, stopAfter=1 << 20)
    rest = node.run(SCRIPT, file=str(file), options={"uploadUrl": first["url"], **CHUNKS})
    assert rest["url"] == first["url"]
    assert rest["requests"][0] == "HEAD 200"
    assert 0 < rest["requests"].count("PATCH 204") <= 4
    destination.check(rest["url"], NAME, file.read_bytes())


def test_terminate_during_an_upload(
    node: Node, destination: Destination, make_file: Callable[[str, int], Path]
) -> None:
    """`abort(true)` within a body deletes the upload."""
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME), **CHUNKS}
    file = make_file("a.bin", 2 << 20)
    done = node.run(SCRIPT, file=str(file), options=given, stopAfter=1 << 20, terminate=True)
    assert done["stopped"]
    assert done["requests"][-1] == "DELETE 204"
    destination.check_gone(done["url"])


@pytest.mark.parametrize("destination", ["without a session"], indirect=True)
def test_terminate_of_a_finished_upload(
    node: Node, destination: Destination, make_file: Callable[[str, int], Path]
) -> None:
    """The stored file is deleted, too. (In a session that needs a token.)"""
    given = {"endpoint": destination.endpoint, "metadata": destination.metadata(NAME)}
    done = node.run(SCRIPT, file=str(make_file("a.bin", 1000)), options=given, terminate=True)
    assert done["requests"] == ["POST 201", "PATCH 204", "DELETE 204"]
    destination.check_gone(done["url"])
