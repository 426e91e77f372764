"""Several hosts that upload to one server: one command, shards, and an import, on one host and on all.

`python -m benchmarks.hosts [--hosts N] [--rate MBIT] [--server-rate MBIT] [--files N --size BYTES] [--small N]`, as
root on Linux: each host is a network namespace, whose rate `tc` limits. All of them share the CPU of this machine, so
choose rates that it is not the limit for.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from benchmarks.measure import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NETWORK = "10.78.0"
SERVER, PORT, SCHEDULER_PORT = f"{NETWORK}.1", 8000, 8786
READY = 120.0
"""Seconds for a server, a scheduler and its workers to be ready."""
BURST = "32kb"
"""What passes at full speed."""


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def host(number: int) -> str:
    """Return the namespace of a host; 0 is the server."""
    return f"uploader-host{number}"


def address(number: int) -> str:
    return f"{NETWORK}.{number + 1}"


@contextlib.contextmanager
def network(hosts: int, rate: int, server_rate: int) -> Iterator[None]:
    """Connect `hosts` and a server with a switch; rates are in Mbit/s, in both directions."""
    switch = "uploader-switch"
    with contextlib.ExitStack() as stack:
        for name in (switch, *(host(number) for number in range(hosts + 1))):
            run("ip", "netns", "add", name)
            stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "br0", "up")
        for number in range(hosts + 1):
            port, own = f"port{number}", host(number)
            run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
            run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
            run("ip", "-n", own, "address", "add", f"{address(number)}/24", "dev", "eth0")
            run("ip", "-n", own, "link", "set", "eth0", "up")
            run("ip", "-n", own, "link", "set", "lo", "up")
            limit = ("rate", f"{rate if number else server_rate}mbit", "burst", BURST, "latency", "50ms")
            run("ip", "netns", "exec", switch, "tc", "qdisc", "add", "dev", port, "root", "tbf", *limit)
            run("ip", "netns", "exec", own, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limit)
        yield


@contextlib.contextmanager
def started(number: int, *command: object, home: Path, says: str = "") -> Iterator[None]:
    """Run a program on a host until the end of the block; wait until its output contains `says`."""
    log = home / f"{number}-{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = at(number, *command, home=home, output=output)
    try:
        end = time.monotonic() + READY
        while says not in log.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise BenchmarkError(f"{command} did not start: {log.read_text()[-1000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def at(
    number: int, *command: object, home: Path, output: IO[bytes] | int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a Python module on a host."""
    line = ["ip", "netns", "exec", host(number), sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(line, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"HOME": str(home)})


def ended(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the end of all. Raise `BenchmarkError` for a failed one; none is left running after an error."""
    try:
        for process in processes:
            if process.wait():
                raise BenchmarkError(f"exit code {process.returncode}: {process.args}")
    except BaseException:
        for process in processes:
            process.kill()
        raise


def upload(files: Path, number: int, home: Path, *options: object) -> subprocess.Popen[bytes]:
    """Start `uploader upload` on a host, with state of its own."""
    state = home / f"state-{time.monotonic_ns()}"
    line = ("uploader_cli", "upload", files, "-s", f"http://{SERVER}:{PORT}", "--quiet", "--state-dir", state)
    return at(number, *line, *options, home=home)


def one_command(files: Path, _hosts: Sequence[int], home: Path) -> float:
    began = time.monotonic()
    ended([upload(files, 1, home)])
    return time.monotonic() - began


def shards(files: Path, hosts: Sequence[int], home: Path) -> float:
    """Run one command for each of `hosts`, and join the reports."""
    began = time.monotonic()
    reports = [home / f"report-{index}.json" for index in range(len(hosts))]
    names = [("--shard", f"{index + 1}/{len(hosts)}", "--report", report) for index, report in enumerate(reports)]
    ended([upload(files, number, home, *options) for number, options in zip(hosts, names, strict=True)])
    ended([at(1, "uploader_cli", "report", "merge", *reports, "-o", home / "merged.json", home=home)])
    return time.monotonic() - began


def an_import(files: Path, hosts: Sequence[int], home: Path) -> float:
    """Import with a worker for each of `hosts`; the start of the cluster is not counted."""
    place = f"{address(1)}:{SCHEDULER_PORT}"
    to = ("-s", f"http://{SERVER}:{PORT}", "--quiet", "--state-dir", home / "state-import")
    with contextlib.ExitStack() as stack:
        scheduler = ("distributed.cli.dask_scheduler", "--host", address(1), "--port", SCHEDULER_PORT, "--no-dashboard")
        stack.enter_context(started(1, *scheduler, home=home, says="Scheduler at"))
        for number in hosts:
            worker = ("distributed.cli.dask_worker", place, "--nthreads", 1, "--no-dashboard")
            stack.enter_context(started(number, *worker, home=home, says="Registered to"))
        began = time.monotonic()
        ended([at(1, "uploader_cli", "import", files, *to, "--on", f"dask://{place}", home=home)])
        return time.monotonic() - began


WAYS = {"one command": one_command, "shards": shards, "import": an_import}


def measured(way: str, files: Path, hosts: Sequence[int]) -> float:
    """Return the seconds of one way, to a new server."""
    with tempfile.TemporaryDirectory(dir=files.parent) as name:
        home = Path(name)
        serve = ("uploader_cli", "serve", "--host", "0.0.0.0", "--port", PORT, "--root", home / "root")
        with started(0, *serve, home=home, says="http"):
            seconds = WAYS[way](files, hosts, home)
        stored, expected = (
            sum(path.is_file() for path in top.rglob("*")) for top in (home / "root" / "personal", files)
        )
        if stored != expected:
            raise BenchmarkError(f"{way}: {stored} of {expected} files are stored")
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--rate", type=int, default=1000, help="Mbit/s of a host")
    parser.add_argument("--server-rate", type=int, default=10_000, help="Mbit/s of the server")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--size", type=int, default=16 << 20)
    parser.add_argument("--small", type=int, default=0, help="further files of 4 KiB")
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    if shutil.which("tc") is None or os.geteuid():
        sys.exit("hosts: needs root, and ip and tc (Debian: apt-get install iproute2)")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, network(given.hosts, given.rate, given.server_rate):
        files = Path(name) / "files"
        for index in range(given.files + given.small):
            path = files / f"{index % 100:02}" / f"{index:06}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(given.size if index < given.files else 4096))
        for place, hosts in (("one host", [1] * given.hosts), ("all hosts", range(1, given.hosts + 1))):
            for way in WAYS if place == "one host" else list(WAYS)[1:]:
                times = [measured(way, files, hosts) for _ in range(given.runs)]
                print(f"{place}: {way}: {sorted(times)[len(times) // 2]:.1f} s", flush=True)


if __name__ == "__main__":
    main()
