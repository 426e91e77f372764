"""Follow a running command: read its event stream up to a point, then wait for its end."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

from command import DEADLINE, Done

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def read_until(
    process: subprocess.Popen[str], kind: str, when: Callable[[dict[str, Any]], bool] = lambda _event: True
) -> str:
    """Read the stream up to the first matching event of this type; return what was read."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        event = json.loads(line)
        if event["type"] == kind and when(event):
            return seen
    raise AssertionError(f"no such {kind} in {seen}")


def read_confirmed(process: subprocess.Popen[str], least: int) -> str:
    """Read until the server has confirmed at least this many bytes of a file."""
    return read_until(process, "file.progress", lambda event: event["confirmed"] >= least)


def ended(process: subprocess.Popen[str], seen: str, *signals: int) -> Done:
    """Send signals, wait for the end (killed after `DEADLINE`), and return the run including what was `seen`.

    `communicate` would lose the buffered rest of the lines that were read before.
    """
    for number in signals:
        process.send_signal(number)
    said: list[str] = []
    with process:
        watchdog = threading.Timer(DEADLINE, process.kill)
        reader = threading.Thread(target=lambda: said.append(process.stderr.read() if process.stderr else ""))
        watchdog.start()
        reader.start()
        assert process.stdout is not None
        rest = process.stdout.read()
        reader.join()
        watchdog.cancel()
    assert "Traceback" not in "".join(said)
    return Done(process.returncode, seen + rest, "".join(said))
