"""Many uploaders and watchers on one bundled server: `python -m tests.load --uploaders 200 --watchers 1000`.

Prints figures, and exits with 1 after any failure: an error, a watcher that missed the end of a session, a stored file
that is missing or differs, memory of the server that grew, or descriptors that stayed open. `--real` of the uploaders
are the command itself; the others speak its protocols from a few processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "acceptance"), str(TESTS.parent / "server_stub")]

from command import environment  # noqa: E402
from load.crowd import Figures, dialled  # noqa: E402
from serving import ServerProcess  # noqa: E402
from soak import Held  # noqa: E402

if TYPE_CHECKING:
    from load.watching import Watcher

CROWD = 100
"""Light uploaders in one process, with their watchers."""
BETWEEN = 10.0
"""Seconds between two starts of the command by one of its users."""
WARM = 0.2
"""The part of the run after which memory may not grow any more."""
WITHIN = 0.1
"""What counts as no growth."""
SLACK = 8 << 20
"""Bytes that count as no growth in a short run."""


class Real:
    """A user who runs `uploader upload` repeatedly."""

    def __init__(self, number: int, url: str, where: Path, figures: Figures) -> None:
        self._url, self._home, self._figures = url, where / f"home{number}", figures
        self._random = random.Random(number)
        self._home.mkdir()

    async def run(self, watchers: list[Watcher], until: float) -> None:
        """Upload a directory every few seconds; the watchers follow each session."""
        turn = 0
        while time.monotonic() < until:
            began, turn = time.monotonic(), turn + 1
            try:
                await self._upload(turn, watchers)
            except TimeoutError:
                self._figures.failed("a join was not answered")
            await asyncio.sleep(max(0.0, min(until, began + BETWEEN) - time.monotonic()))

    async def _upload(self, turn: int, watchers: list[Watcher]) -> None:
        top = self._home / f"turn{turn}"
        top.mkdir()
        for size in (100, 5000, 70_000, 300_000):
            data = self._random.randbytes(size)
            (top / hashlib.sha256(data).hexdigest()).write_bytes(data)
        files = len(list(top.iterdir()))
        command = [sys.executable, "-m", "uploader_cli", "upload", str(top), "--server", self._url, "--json"]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(self._home)
        )
        assert process.stdout is not None
        async for line in process.stdout:
            event = json.loads(line)
            if event["type"] == "session.created":
                await asyncio.gather(*(watcher.join(event["session"]) for watcher in watchers))
        _, errors = await process.communicate()
        if process.returncode:
            self._figures.failed(f"uploader ended with {process.returncode}: {errors.decode()[-200:]}")
            return
        ends = await asyncio.gather(*(watcher.end() for watcher in watchers))
        self._figures.unfinished += sum(end is None or end["completedFiles"] != files for end in ends)
        self._figures.sessions += 1
        self._figures.files += files
        self._figures.bytes += sum(path.stat().st_size for path in top.iterdir())


class Crowd:
    """A process of light uploaders."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, url: str, uploaders: int, watchers: int, seconds: int, rate: int, seed: int) -> Crowd:
        """Wait until its watchers are connected."""
        arguments = map(str, (url, uploaders, watchers, seconds, rate, seed))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "load.crowd", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 26,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
        assert process.stdout is not None
        assert (await process.stdout.readline()) == b"ready\n"
        return cls(process)

    async def run(self) -> Figures:
        """Let the process upload, and return its figures."""
        out, _ = await self._process.communicate(b"\n")
        return Figures(**json.loads(out))


async def load(options: argparse.Namespace, server: ServerProcess, where: Path) -> tuple[Figures, list[Held]]:
    """Run everything; return the figures and the server's resources in equal parts of the run."""
    light, seconds = options.uploaders - options.real, round(options.minutes * 60)
    each = options.watchers // options.uploaders
    total = Figures()
    crowds = [
        await Crowd.start(server.url, share, share * each, seconds, max(1, options.rate * share // light), seed)
        for seed, share in enumerate(split(light, -(-light // CROWD)))
    ]
    watchers = await dialled(server.url, options.watchers - light * each, total)
    listening = [asyncio.create_task(watcher.listen()) for watcher in watchers]
    sampling = asyncio.create_task(sample(server.pid, seconds, max(5, round(options.minutes))))
    until = time.monotonic() + seconds
    users = [Real(number, server.url, where, total) for number in range(options.real)]
    running = [user.run(watchers[number :: options.real], until) for number, user in enumerate(users)]
    done = await asyncio.gather(*(crowd.run() for crowd in crowds), *running)
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    total.events = [watcher.events for watcher in watchers]
    for figures in filter(None, done):
        total.add(figures)
    return total, await sampling


def split(count: int, parts: int) -> list[int]:
    """Divide a count into shares that differ by at most one, without empty shares."""
    return [share for share in (count // parts + (number < count % parts) for number in range(parts)) if share]


async def sample(pid: int, seconds: float, parts: int) -> list[Held]:
    """Return the server's resources at the end of each part, as the median of several samples."""
    found = []
    for _ in range(parts):
        looks = []
        for _ in range(5):
            await asyncio.sleep(seconds / parts / 5)
            looks.append(Held.by(pid))
        found.append(Held.usual(looks))
    return found


def damaged(root: Path) -> tuple[int, int]:
    """Return the number of stored files, and of those whose bytes differ from what their names say."""
    files = [path for path in (root / "personal").rglob("*") if path.is_file()]
    return len(files), sum(hashlib.sha256(path.read_bytes()).hexdigest() != path.name for path in files)


async def settled(pid: int) -> Held:
    """Return the server's resources once it opens nothing more by itself."""
    before, now = None, Held.by(pid)
    while before is None or now.descriptors != before.descriptors:
        await asyncio.sleep(0.3)
        before, now = now, Held.by(pid)
    return now


async def closed(pid: int, before: Held) -> Held:
    """Return the server's resources once its connections are closed, or after a timeout."""
    for _ in range(50):
        after = Held.by(pid)
        if after.descriptors <= before.descriptors:
            break
        await asyncio.sleep(0.2)
    return after


def verdict(figures: Figures, held: list[Held], before: Held, after: Held, stored: tuple[int, int]) -> list[str]:
    """Return what is wrong."""
    wrong = [f"{count} × {text}" for text, count in figures.errors.items()]
    if figures.unfinished:
        wrong.append(f"{figures.unfinished} × a watcher did not hear the end of its session")
    if stored != (figures.files, 0):
        wrong.append(f"{stored[0]} files of {figures.files} are stored, {stored[1]} of them damaged")
    warm, end = held[round(len(held) * WARM)], held[-1]
    if end.memory > max((1 + WITHIN) * warm.memory, warm.memory + SLACK):
        wrong.append(f"the server's memory grew from {warm} to {end}")
    if after.descriptors > before.descriptors:
        wrong.append(f"{after.descriptors - before.descriptors:g} descriptors stayed open")
    return wrong


def report(figures: Figures, held: list[Held], before: Held, after: Held, took: float) -> None:
    """Print the figures."""
    events, seconds = sorted(figures.events), sorted(figures.seconds) or [0.0]
    often = seconds[int(0.95 * (len(seconds) - 1))]
    print(f"{took:.0f} s; {figures.requests} requests of light uploaders ({figures.requests / took:.0f} a second)")
    print(f"answers: median {median(seconds):.3f} s, 95 % within {often:.3f} s, all within {seconds[-1]:.3f} s")
    print(f"{figures.sessions} sessions, {figures.files} files, {figures.bytes / 1e6:.0f} MB")
    print(f"{sum(events)} events; of a watcher {events[0]} to {events[-1]}, median {median(events):g}")
    print(f"watchers without the end of a session: {figures.unfinished}; errors: {figures.errors.total()}")
    for number, one in enumerate(held, 1):
        print(f"server, part {number} of {len(held)}: {one}")
    print(f"server before: {before}; after: {after}")


async def main(options: argparse.Namespace, where: Path) -> int:
    """Return the exit code."""
    most = str(options.watchers + 100)
    arguments = ["--root", str(where / "root"), "--durability", options.durability, "--max-connections", most]
    arguments += ["--max-share", "100"]  # they all have one address
    server = ServerProcess(*arguments, packs=True)
    try:
        before, began = await settled(server.pid), time.monotonic()
        figures, held = await load(options, server, where)
        took, after = time.monotonic() - began, await closed(server.pid, before)
        report(figures, held, before, after, took)
        wrong = verdict(figures, held, before, after, damaged(where / "root"))
        if server.stop():
            wrong.append("the server ended with an error")
        if "Traceback" in server.errors:
            wrong.append(f"the server printed {server.errors[-2000:]}")
    finally:
        server.kill()
    print("\n".join(["failed:", *wrong]) if wrong else "passed")
    return bool(wrong)


def parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--uploaders", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--watchers", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=10, help="default: %(default)s")
    parser.add_argument("--real", type=int, default=4, help="uploaders that are the command (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=60, help="requests a second of the others (default: %(default)s)")
    parser.add_argument("--durability", default="none", choices=["none", "fsync"], help="default: %(default)s")
    parser.add_argument("--where", type=Path, help="a directory for the files (default: a temporary one)")
    options = parser.parse_args(arguments)
    if not 0 <= options.real < options.uploaders <= options.watchers:
        parser.error("there must be more uploaders than --real, and a watcher for each of them at least")
    return options


if __name__ == "__main__":
    asked = parsed(sys.argv[1:])
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="load-", dir=asked.where))
        sys.exit(asyncio.run(main(asked, Path(place))))
