"""A command under way: read its event stream to a point, then let it end, one way or another."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from command import Done, finish

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable


def read_until(
    process: subprocess.Popen[str], kind: str, when: Callable[[dict[str, Any]], bool] = lambda _event: True
) -> str:
    """Read the stream up to the first event of this type that is as wanted; what was read so far."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        event = json.loads(line)
        if event["type"] == kind and when(event):
            return seen
    raise AssertionError(f"no such {kind} in {seen}")


def read_confirmed(process: subprocess.Popen[str], least: int) -> str:
    """Read until the server has confirmed so many bytes of some file."""
    return read_until(process, "file.progress", lambda event: event["confirmed"] >= least)


def ended(process: subprocess.Popen[str], seen: str, *signals: int) -> Done:
    """Send signals, wait for the end: the whole run."""
    for number in signals:
        process.send_signal(number)
    done = finish(process)
    return Done(done.code, seen + done.out, done.err)
