"""Run the bundled server with counted calls; its standard input is the socket to the test (`calls.Calls.serve`)."""

from __future__ import annotations

import importlib
import pkgutil
import socket
import sys

import uploader_server
from stoppable import CALLS, Plan
from uploader_server import __main__ as server

for _module in pkgutil.walk_packages(uploader_server.__path__, "uploader_server."):
    importlib.import_module(_module.name)  # before the fork (see `forking`)

NO_LINKS, KILL_AT = "--no-links", "--kill-at"


def main() -> int:
    """Serve until a signal.

    The first options may be `--no-links ERRNO`: links fail with this error; and `--kill-at N`: kill the server at this
    call, of those from its start on.
    """
    options = dict(zip(*[iter(sys.argv[1:])] * 2, strict=False))
    for name in (NO_LINKS, KILL_AT):
        if sys.argv[1] == name:
            del sys.argv[1:3]
    CALLS.no_links = int(options.get(NO_LINKS, 0))
    if KILL_AT in options:
        CALLS.plan = Plan(int(options[KILL_AT]), "kill")
    CALLS.serve(socket.socket(fileno=0))
    return server.main()
