"""How long the commands that need no server take to start, and the bundled server to start and to stop.

Run: python benchmarks/startup.py [--turns 15]. Everything is measured in turns within one run, beside a bare
`python -c pass`; printed are medians in milliseconds and, for the commands, what they are of the bare start.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict

BARE = "python -c pass"
COMMANDS = {
    BARE: ["-c", "pass"],
    "uploader --version": ["-m", "uploader_cli", "--version"],
    "uploader --help": ["-m", "uploader_cli", "--help"],
    "uploader upload --help": ["-m", "uploader_cli", "upload", "--help"],
}


def command(arguments: list[str]) -> float:
    """Milliseconds from the start to the end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return (time.perf_counter() - began) * 1000


def server(number: signal.Signals) -> tuple[float, float]:
    """Milliseconds from the start of a server to its ready line, and from the signal to its end."""
    began = time.perf_counter()
    arguments = [sys.executable, "-m", "uploader_server", "--port", "0"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ready = time.perf_counter()
        process.send_signal(number)
        process.wait()
        return (ready - began) * 1000, (time.perf_counter() - ready) * 1000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--turns", type=int, default=15)
    turns = options.parse_args().turns
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(turns):
        for name, arguments in COMMANDS.items():
            taken[name].append(command(arguments))
        for number in (signal.SIGTERM, signal.SIGINT):
            start, stop = server(number)
            taken["server: start to ready"].append(start)
            taken[f"server: {number.name} to its end"].append(stop)
    bare = statistics.median(taken[BARE])
    for name, times in taken.items():
        median = statistics.median(times)
        ratio = f"  {median / bare:5.2f} x" if name in COMMANDS else ""
        print(f"{name:28}{median:8.0f} ms  (slowest {max(times):.0f}){ratio}")


if __name__ == "__main__":
    main()
