"""The plan of a round, derived from its seed."""

from __future__ import annotations

import random
import signal
from dataclasses import dataclass, field
from typing import Literal

from chaos.faults import random_rule
from chaos.trees import random_tree

Flavour = Literal["bundled", "reference", "tus"]
Command = Literal["upload", "resume", "list"]
FROZEN = 1.5
"""Seconds that a server is stopped."""
ENDINGS = ("cancel", "finish")
"""Calls of another client that has the secret of the session."""
FAR = 60
"""Milliseconds of latency with which the client sends a file of `PARTED` bytes in several uploads."""
PARTED = (10 << 20, 24 << 20)
PLANTED = (
    "journal.sqlite3",
    "journal.sqlite3-wal",
    "journal.sqlite3-shm",
    "journal.sqlite3-journal",
    "journal.lock",
    "",
)
"""The files of a state directory of which one is his; without a name he may rename and remove all of them."""
LIES = ("endless", "other range", "short", "longer")
"""What the source of a file at a URL sends, other than it announces."""
TRAPS = ("scratch", "temporary", "pipe", *LIES)
"""What Dask takes in a directory for temporary files, such a directory, outputs that nobody reads, and `LIES`."""
CHANGES = ("rewrite", "rewrite", "chmod", "link", "directory")
"""New bytes with the modification time of the old ones, a new mode, a link in place of a file or of a directory."""


@dataclass(frozen=True)
class Strike:
    """A signal to client or server, or an act of another program, after the client has printed this many events.

    A killed or terminated server is restarted, a stopped one (SIGSTOP) continues after `FROZEN` seconds. The signal
    comes `delay` seconds after the event, or `LATEST` seconds after the start if there are fewer events.
    """

    whom: Literal["client", "server", "tree", "session"]
    number: int
    events: int
    delay: float
    act: str = ""
    """One of `CHANGES` to the tree, or of `ENDINGS` of the session."""


@dataclass(frozen=True)
class Invocation:
    """One call of the client and the signals during it.

    Without a run to `resume`, or a `list` that --failed-to wrote, the call is an `upload`.
    """

    command: Command = "upload"
    strikes: tuple[Strike, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The plan of a round."""

    seed: int
    flavour: Flavour
    shared: bool
    """On the server that lives as long as the run; else on one of its own, which may be killed."""
    sizes: dict[str, int]
    client: list[str]
    server: list[str]
    rules: list[str] = field(default_factory=list)
    invocations: list[Invocation] = field(default_factory=list)
    proxy: bool = False
    neighbour: str | None = None
    """The file of another user in a shared state directory that the client is offered first, one of `PLANTED`."""
    trap: str = ""
    """One of `TRAPS`, into which the client is led first."""
    endings: int = 0
    """Number of sessions that are first ended at random waits of a server (`chaos.endings`)."""

    @property
    def protocol_is_batch(self) -> bool:
        """Whether files are sent in batches."""
        return self.flavour == "reference" or "batch" in self.client

    @property
    def kinds(self) -> set[str]:
        """What others do in the round, and the kind of its server."""
        whoms = {strike.whom for invocation in self.invocations for strike in invocation.strikes if strike.act}
        others = {
            "neighbour": self.neighbour is not None,
            "trap": self.trap,
            "endings": self.endings,
            "proxy": self.proxy,
            "faults": self.rules,
        }
        return {self.flavour, *whoms, *(name for name, there in others.items() if there)}

    @property
    def forgets(self) -> bool:
        """Whether a fault makes the server lose files that it has confirmed."""
        return any(rule.startswith("restart") and ":nothing" in rule for rule in self.rules)


def make_plan(seed: int) -> Plan:
    """Derive the plan of a round from its seed."""
    chance = random.Random(f"tus {seed}")
    if chance.random() < 0.12:
        return _tus_plan(seed, chance)
    chance = random.Random(seed)
    shared = chance.random() < 0.45
    reference = not shared and chance.random() < 0.25
    verify = chance.random() < 0.25
    batch = reference or chance.random() < 0.2
    analyze = not shared and chance.random() < 0.1
    sizes = random_tree(chance, batch_only=reference or analyze)
    calm = chance.random() < 0.1
    rules = [
        random_rule(chance, batch=batch, verify=verify, shared=shared, analyze=analyze)
        for _ in range(0 if calm else chance.choice([1, 2, 3, 5, 8, 12]))
    ]
    hangs = any(rule.startswith("analysis-hang") for rule in rules)
    invocations = [_invocation(chance, number, shared, reference, hangs) for number in range(chance.randint(1, 4))]
    if not shared:
        invocations[0] = _with_end_of_server(random.Random(f"end of the server {seed}"), invocations[0])
    client = _client(chance, batch=batch and not reference, verify=verify, analyze=analyze)
    if not batch and random.Random(f"protocol {seed}").random() < 0.2:
        client += ["--protocol", "ietf", "--checksum", "sha256"]
    if not (reference or any(rule.startswith("restart") and ":all" not in rule for rule in rules)):
        _add_others(seed, invocations)
    server = _server(chance, reference=reference)
    proxy = chance.random() < 0.2
    latency = chance.choice(["0", "5", "20"])  # else many runs are over before a strike
    if not (shared or batch) and (parts := random.Random(f"parts {seed}")).random() < 0.3:
        sizes["parts.bin"], latency = parts.randint(*PARTED), str(FAR)
    server += ["--latency", latency]
    return Plan(
        seed,
        "reference" if reference else "bundled",
        shared,
        sizes,
        client,
        server,
        rules,
        invocations,
        proxy=proxy,
        neighbour=_neighbour(seed),
        trap="" if reference else _trap(seed),  # that backend stores each file that is sent again once more
        endings=0 if seed % 5 else 20,
    )


def _add_others(seed: int, invocations: list[Invocation]) -> None:
    """Let another program change files in one round of five, and another client end sessions in one of seven."""
    whoms: tuple[tuple[Literal["tree", "session"], float, tuple[str, ...]], ...]
    whoms = ("tree", 0.2, CHANGES), ("session", 0.15, ENDINGS)
    for whom, share, acts in whoms:
        chance = random.Random(f"{whom} {seed}")
        if chance.random() < share:
            for number in range(len(invocations)):
                strikes = [
                    Strike(whom, 0, chance.choice([1, 3, 10, 40]), chance.choice([0.0, 0.0, 0.02, 0.1, 0.3]), act)
                    for act in chance.choices(acts, k=chance.randint(0 if number else 1, 3))
                ]
                invocations[number] = _with_strikes(invocations[number], strikes)


def _with_strikes(invocation: Invocation, more: list[Strike]) -> Invocation:
    strikes = sorted([*invocation.strikes, *more], key=lambda strike: strike.events)
    return Invocation(invocation.command, tuple(strikes))


def _neighbour(seed: int) -> str | None:
    chance = random.Random(f"neighbour {seed}")
    return chance.choice(PLANTED) if chance.random() < 0.1 else None


def _trap(seed: int) -> str:
    chance = random.Random(f"trap {seed}")
    return chance.choice(TRAPS) if chance.random() < 0.08 else ""


def _tus_plan(seed: int, chance: random.Random) -> Plan:
    """Return the plan of a round at a tus server whose finishes fail: the client alone gets signals."""
    sizes = random_tree(chance, batch_only=False)
    invocations = [_invocation(chance, number, True, False, False) for number in range(chance.randint(1, 4))]
    skipped = {"--checksum": 2, "--no-pack": 1, "--category": 2, "--cancel-on-interrupt": 1}
    drawn, client = _client(chance, batch=False, verify=chance.random() < 0.25, analyze=False), list[str]()
    while drawn:  # the server has no checksums, packs, categories and sessions
        count = skipped.get(drawn[0])
        client += [] if count else drawn[:1]
        del drawn[: count or 1]
    return Plan(seed, "tus", False, sizes, client, [], [], invocations, proxy=chance.random() < 0.2)


def _invocation(chance: random.Random, number: int, shared: bool, reference: bool, hangs: bool) -> Invocation:
    strikes = []
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        events, delay = chance.choice([0, 1, 3, 10, 40, 100]), chance.choice([0.0, 0.0, 0.02, 0.3])
        if not shared and chance.random() < 0.5:
            sent = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
            strikes.append(Strike("server", sent, events, delay))
        else:
            sent = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGINT, signal.SIGTERM])
            strikes.append(Strike("client", sent, events, delay))
    if hangs:
        strikes.append(Strike("client", signal.SIGINT, 10_000, 0.0))
    strikes.sort(key=lambda strike: strike.events)
    commands: tuple[Command, ...] = ("upload", "resume", "resume", "list") if number else ("upload",)
    command = chance.choice(commands)
    if reference and command == "list":  # the run that is resumed later would store those files a second time
        command = "resume"
    return Invocation(command, tuple(strikes))


def _with_end_of_server(chance: random.Random, invocation: Invocation) -> Invocation:
    """Add a kill or a stop of the server, which every round has on a server of its own."""
    events, number = chance.choice([1, 3, 10, 20, 40]), chance.choice([signal.SIGKILL, signal.SIGTERM])
    return _with_strikes(invocation, [Strike("server", number, events, chance.choice([0.0, 0.02, 0.1]))])


def _client(chance: random.Random, *, batch: bool, verify: bool, analyze: bool) -> list[str]:
    options = ["--retries", str(chance.choice([0, 1, 2, 3])), "--max-wait", "8", "--wait-for-server", "6"]
    if batch:
        options += ["--protocol", "batch"]
    elif chance.random() < 0.2:
        options += ["--no-pack"]
    if chance.random() < 0.6:
        options += ["--jobs", str(chance.choice([1, 2, 4, 8]))]
    if chance.random() < 0.6:
        options += ["--chunk-size", chance.choice(["16K", "64K", "256K", "1M"])]
    if chance.random() < 0.3:
        options += ["--checksum", chance.choice(["sha1", "sha256"])]
    if chance.random() < 0.3:
        options += ["--limit-rate", chance.choice(["1M", "4M", "16M"])]
    options += ["--verify"] if verify else []
    options += ["--skip-existing"] if chance.random() < 0.2 else []
    options += ["--fail-fast"] if chance.random() < 0.1 else []
    options += ["--cancel-on-interrupt"] if chance.random() < 0.15 else []
    options += ["--category", "scenic"] if chance.random() < 0.1 else []
    options += ["--analyze", "content"] if analyze else []
    options += [chance.choice(["--quiet", "-v", "-vv"])] if chance.random() < 0.5 else []
    options += ["--log-level", chance.choice(["debug", "info"])]
    return options


def _server(chance: random.Random, *, reference: bool) -> list[str]:
    if reference:
        return ["--as", "reference", "--processing", chance.choice(["0", "0.1", "0.4"]), "--rate-limit", "0"]
    options = ["--durability", chance.choice(["fsync", "none", "none"]), "--analysis-seconds", "0.3"]
    options += ["--max-files", str(chance.choice([2, 7, 50]))] if chance.random() < 0.2 else []
    options += ["--no-packs"] if chance.random() < 0.1 else []
    return options
