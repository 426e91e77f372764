"""Run commands and measure them: seconds, CPU-seconds and peak memory, from the kernel's own counts. Linux only."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
FIRST_LOOK, LONGEST_LOOK = 2, 20
"""Milliseconds between two looks at the memory of a running command: at first, and at most."""


class BenchmarkError(Exception):
    """A run that can't be counted, and why."""


@dataclass(frozen=True)
class Measured:
    """What commands took that ran at the same time."""

    seconds: float
    cpu: float
    """CPU-seconds, user and system, of all of them."""
    peak: int
    """Bytes of resident memory, the peaks of all of them added."""


def cpu_seconds(pid: int) -> float:
    """Return the CPU-seconds that a running process and its ended children have used (in steps of 10 ms)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def peak_bytes(pid: int) -> int:
    """Return the highest resident memory of a running process so far; 0 after its end."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read())
        return int(found[1]) * 1024 if found else 0
    return 0


def run_together(
    commands: Sequence[Sequence[str]],
    directory: Path,
    environment: Mapping[str, str],
    *,
    terminal: bool = False,
    limit: float = 3600,
) -> Measured:
    """Run commands at the same time and wait for all; the Nth writes to `N.out` and `N.err` in `directory`.

    With `terminal`, their stderr is a terminal of 80 columns and 24 lines instead. Raises BenchmarkError where one
    fails or takes more than `limit` seconds.
    """
    with contextlib.ExitStack() as stack:
        shown = stack.enter_context(_terminal()) if terminal else None
        files = [
            (
                stack.enter_context((directory / f"{number}.out").open("wb")),
                shown if shown is not None else stack.enter_context((directory / f"{number}.err").open("wb")),
            )
            for number in range(len(commands))
        ]
        began = time.perf_counter()
        processes = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
            for command, (out, err) in zip(commands, files, strict=True)
        ]
        try:
            measured = _wait(processes, began, limit)
        finally:
            for process in processes:
                if process.returncode is None:
                    process.kill()
    for number, (process, command) in enumerate(zip(processes, commands, strict=True)):
        if process.returncode:
            error = directory / f"{number}.err"
            said = error.read_text(errors="replace").strip()[-800:] if error.exists() else ""
            raise BenchmarkError(f"`{command[0]}` ended with {process.returncode}: {said}")
    return measured


def until_connected(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], *, limit: float = 60
) -> Measured:
    """Run a command with the URL of a listening port as its last word, and kill it at its first connection there.

    Raises BenchmarkError where it makes none within `limit` seconds.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, (directory / "0.err").open("wb") as error:
        listening.settimeout(limit)
        words = [*command, f"http://127.0.0.1:{listening.getsockname()[1]}"]
        began = time.perf_counter()
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=error, stderr=error, env=environment)
        try:
            listening.accept()[0].close()
        except TimeoutError as late:
            raise BenchmarkError(f"`{command[0]}` made no connection within {limit:.0f} seconds") from late
        finally:
            seconds, peak = time.perf_counter() - began, peak_bytes(process.pid)
            os.kill(process.pid, signal.SIGKILL)  # `process.kill` would reap an ended one, and lose its CPU time
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, peak)


def _wait(processes: Sequence[subprocess.Popen[bytes]], began: float, limit: float) -> Measured:
    """Reap processes as they end, and look at the memory of those that run."""
    waiting = {os.pidfd_open(process.pid): process for process in processes}
    poller = select.poll()
    for descriptor in waiting:
        poller.register(descriptor, select.POLLIN)
    peaks = dict.fromkeys((process.pid for process in processes), 0)
    cpu, look, now = 0.0, FIRST_LOOK, began
    while waiting:
        for descriptor, _ in poller.poll(look):
            process = waiting.pop(descriptor)
            now = time.perf_counter()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu += usage.ru_utime + usage.ru_stime
            poller.unregister(descriptor)
            os.close(descriptor)
        for process in waiting.values():
            peaks[process.pid] = max(peaks[process.pid], peak_bytes(process.pid))
            if time.perf_counter() - began > limit:
                process.send_signal(signal.SIGKILL)
        look = min(look + 1, LONGEST_LOOK)
    return Measured(now - began, cpu, sum(peaks.values()))


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Yield a terminal to write to; what is written is read and thrown away."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))

    def drain() -> None:
        with contextlib.suppress(OSError):
            while os.read(master, 65536):
                pass

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        yield slave
    finally:
        os.close(slave)
        reader.join()
        os.close(master)
