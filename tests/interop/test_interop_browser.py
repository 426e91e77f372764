"""A web page of another origin uploads to the bundled server, in Chromium."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
from serving import running_server

from uploader_server.features.page.page import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

pytestmark = [pytest.mark.interop, pytest.mark.debian, pytest.mark.feature("server/page")]

BYTES = 20 << 20
UPLOAD = """async ({ server, bytes }) => {
  await import('/tus-js-client-4.3.1/tus.min.js')
  const { io } = await import('/socket.io-client-4.8.4/socket.io.esm.min.js')
  const asked = { category: 'personal', expectedFiles: 1 }
  const headers = { 'Content-Type': 'application/json' }
  const sent = { method: 'POST', headers, body: JSON.stringify(asked) }
  const session = await (await fetch(`${server}/api/upload/session`, sent)).json()
  const socket = io(server, { transports: ['websocket'] })
  await new Promise((resolve, reject) => socket.on('connect', resolve).on('connect_error', reject))
  const events = []
  const ended = new Promise((resolve) => {
    socket.on('upload-progress', (event) => {
      events.push(event)
      if (event.overallStatus === 'completed') resolve()
    })
  })
  socket.emit('join-session', session.sessionId)
  await new Promise((onSuccess, onError) => {
    new tus.Upload(new Blob([new Uint8Array(bytes).fill(97)]), {
      endpoint: new URL(session.tus.endpoint, server).href,
      metadata: { filename: 'page.mp4', sessionId: session.sessionId },
      chunkSize: 5 << 20,
      retryDelays: null,
      onSuccess,
      onError,
    }).start()
  })
  await ended
  return events.length
}"""


@contextlib.contextmanager
def site() -> Iterator[str]:
    """Serve the libraries of the page at an origin of its own; yield the origin."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=STATIC / "vendor")) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_page_of_an_allowed_origin_uploads_and_receives_events(page: Page) -> None:
    with site() as origin, running_server(cors_origins=(origin,)) as server:
        page.goto(origin)
        events = page.evaluate(UPLOAD, {"server": server.url, "bytes": BYTES})
        (stored,) = [path for path in server.root.rglob("page.mp4") if ".uploader" not in path.parts]
        assert stored.stat().st_size == BYTES
    assert events > 1
