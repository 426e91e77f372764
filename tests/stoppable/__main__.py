"""Run the bundled server with counted calls; its standard input is the socket to the test (`calls.Calls.serve`)."""

from __future__ import annotations

import importlib
import pkgutil
import socket
import sys

import uploader_server
from stoppable import CALLS
from uploader_server import __main__ as server

for _module in pkgutil.walk_packages(uploader_server.__path__, "uploader_server."):
    importlib.import_module(_module.name)  # before the fork (see `forking`)

NO_LINKS = "--no-links"


def main() -> int:
    """Serve until a signal. With `--no-links ERRNO` as the first option links fail with this error."""
    if sys.argv[1] == NO_LINKS:
        CALLS.no_links = int(sys.argv[2])
        del sys.argv[1:3]
    CALLS.serve(socket.socket(fileno=0))
    return server.main()
