"""A chaos run: rounds one after the other, the server that many of them share, and the summary."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from chaos.plan import make_plan
from chaos.processes import Find, Held, Secrets, Server
from chaos.round import forget_round, run_round
from uploader_server.serving import SHORT_JOBS
from uploader_server.storage.turns import LONG_JOBS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WARM_UP = 10
"""Rounds on the shared server after which its memory counts: until then caches and pools fill."""
GROWTH = 48 << 20
"""Bytes that the memory of the shared server may grow after that."""
POOL = SHORT_JOBS + LONG_JOBS
"""Threads that the server starts as it needs them, and keeps."""
SETTLING = 12.0
"""Seconds that the shared server gets to close the connections of a client that is gone."""


@dataclass
class Summary:
    """The summary of a run."""

    seed: int
    rounds: int = 0
    calls: int = 0
    faults: int = 0
    hits: int = 0
    kills: int = 0
    seconds: float = 0.0
    finds: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds from seed {self.seed} in {self.seconds / 60:.1f} minutes: {self.calls} calls of the"
            f" client, {self.faults} faults with {self.hits} hits, {self.kills} kills, {len(self.finds)} finds"
        )


def run(
    seed: int,
    minutes: float,
    directory: Path,
    *,
    rounds: int | None = None,
    only: str | None = None,
    say: Callable[[str], None],
) -> Summary:
    """Run rounds with the seeds `seed`, `seed + 1` … until the time or the number of rounds is used up.

    With `only` leave out seeds whose plan is not of this kind (`Plan.kinds`).
    """
    started, summary, secrets = time.monotonic(), Summary(seed), Secrets()
    shared = _Shared(directory / "shared", secrets)
    every = map(make_plan, itertools.count(seed))
    plans = (plan for plan in every if only is None or only in plan.kinds)
    try:
        while time.monotonic() < started + 60 * minutes and summary.rounds != rounds:
            plan = next(plans)
            place = directory / f"round-{plan.seed}"
            server = shared.server() if plan.shared else None
            result = run_round(plan, place, server, secrets)
            if server is not None and not result.find:
                result.find = shared.find()
            summary.rounds += 1
            summary.calls += len(result.codes)
            summary.faults += len(plan.rules)
            summary.hits += result.hits
            summary.kills += result.kills
            say(str(result))
            if result.find:
                summary.finds.append(str(result))
                say(f"  {plan.client} {plan.server} {plan.rules}")
                say(f"  kept in {place}; repeat with: python -m tests.chaos --seed {plan.seed} --rounds 1")
                with contextlib.suppress(Find):
                    shared.end()
            else:
                forget_round(place)
        shared.end()
    except Find as find:
        summary.finds.append(f"shared server: {find}")
    finally:
        shared.kill()
        summary.seconds = time.monotonic() - started
        for line in (*summary.finds, f"shared server: {shared}", str(summary)):
            say(line)
    return summary


class _Shared:
    """The server that many rounds share. Its memory must not grow; it is replaced after a find."""

    def __init__(self, directory: Path, secrets: Secrets) -> None:
        self._directory, self._secrets = directory, secrets
        self._server: Server | None = None
        self._count = 0
        self._held: list[Held] = []

    def server(self) -> Server:
        """Return the running server, starting it if necessary."""
        if self._server is None:
            self._count += 1
            self._held.clear()
            place = self._directory / str(self._count)
            self._server = Server(place, ["--durability", "none"], self._secrets.token)
            self._server.start()
        return self._server

    def find(self) -> str:
        """Compare the resources of the server after a round; return what is wrong, or an empty text."""
        assert self._server is not None
        until = time.monotonic() + SETTLING
        while True:
            now = Held.by(self._server.pid)
            first = self._held[0] if self._held else now
            grown = now.descriptors > first.descriptors + 8 or now.threads > first.threads + POOL
            if not grown or time.monotonic() > until:
                break
            time.sleep(0.1)
        self._held.append(now)
        if grown:
            return f"the shared server had {first}, and has {now}"
        warm = self._held[WARM_UP : WARM_UP + 5]
        if len(self._held) > WARM_UP + 10:
            memory = [median(held.memory for held in some) for some in (warm, self._held[-5:])]
            if memory[1] > memory[0] + GROWTH:
                return (
                    f"the memory of the shared server grew from {memory[0] / 2**20:.0f} to {memory[1] / 2**20:.0f} MiB"
                )
        return ""

    def end(self) -> None:
        """Stop the server. Raises Find."""
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def kill(self) -> None:
        """Kill the server if it is running."""
        if self._server is not None:
            self._server.kill()

    def __str__(self) -> str:
        return (
            f"{self._held[0]} after one round, {self._held[-1]} after {len(self._held)}" if self._held else "not used"
        )
