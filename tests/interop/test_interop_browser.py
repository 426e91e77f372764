"""A web page of another origin uploads to the bundled server, in Chromium."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

import pytest
from serving import running_server

if TYPE_CHECKING:
    from foreign import Node

pytestmark = [pytest.mark.interop, pytest.mark.debian]

BYTES = 20 << 20


@pytest.fixture
def chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set CHROMIUM for the script."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("the test needs chromium in PATH (Debian: apt-get install chromium)", pytrace=False)
    monkeypatch.setenv("CHROMIUM", found)


@pytest.mark.usefixtures("chromium")
def test_page_of_an_allowed_origin_uploads_and_receives_events(node: Node) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running_server(cors_origins=(f"http://127.0.0.1:{port}",)) as server:
        result = node.run("browser_upload.mjs", port=port, server=server.url, bytes=BYTES)
        (stored,) = [path for path in server.root.rglob("page.mp4") if ".uploader" not in path.parts]
        assert stored.stat().st_size == BYTES
    assert result["sent"] == BYTES
    assert result["status"] == "completed"
    assert result["events"] > 1
