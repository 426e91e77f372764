"""A server whose event loop is blocked by the disk ends at a signal all the same."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from time_limits import PATIENCE

BLOCKED = """
import sys, threading, time, urllib.request
from uploader_server.app import UploadApp
from uploader_server.config import ServerConfig
from uploader_server.serving import serve

async def blocked(self, _):
    print("blocked", flush=True)
    time.sleep(600)  # as a call to a disk that does not answer

UploadApp._openapi = blocked

def ready(url, root):
    threading.Thread(target=urllib.request.urlopen, args=[url + "/openapi.json"], daemon=True).start()

serve(ServerConfig(port=0), ready)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_server_whose_loop_is_blocked(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "blocked\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
