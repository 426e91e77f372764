"""The cases: what is uploaded, by whom, and where to. Each has a quick and a full form."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.clients import Installed, curl_patch, curl_post, importer, tus_js, tuspy, uploader, uploaders_at_once
from benchmarks.contest import Entry, Start
from benchmarks.files import GIB, KIB, MIB, Files, log_normal, make
from benchmarks.measure import BenchmarkError
from benchmarks.servers import bundled, has_option, tus_node

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.clients import Client
    from benchmarks.servers import Serve

JOBS = 4
TUS_JS_JOBS = 8
ROUND_TRIP, RATE = 0.08, 4_000_000
"""Of the slow link: seconds, and bytes a second for each connection."""
SLOW_LINK = ("--round-trip", str(ROUND_TRIP), "--rate", str(RATE))


@dataclass
class Setup:
    """What a case can use: commands, a directory, and whether it is to take the time of its full form."""

    directory: Path
    full: bool
    own: dict[str, str]
    """Commands that are an `uploader`: first the one that is measured, then what it is compared to."""
    servers: dict[str, str]
    """The `uploader` commands that serve those clients."""
    durability: str = "none"
    installed: Installed = field(default_factory=lambda: Installed({}))
    _made: dict[str, Files] = field(default_factory=dict)

    @property
    def server(self) -> str:
        """The command that serves the other clients."""
        return next(iter(self.servers.values()))

    def files(self, name: str, sizes: Sequence[int], suffix: str = ".bin") -> Files:
        """Return files of these sizes; they are made once for all cases that name them so."""
        if name not in self._made:
            self._made[name] = make(self.directory / "files" / name, sizes, suffix)
        return self._made[name]

    def bundled(self, command: str, *options: str, endpoint: bool = False) -> Serve:
        """Return the bundled server, with the durability that was asked for where it knows that."""
        if has_option(command, "--durability"):
            options = ("--durability", self.durability, *options)
        return bundled(command, *options, endpoint=endpoint)

    def own_entries(self, files: Files, *options: str, serving: Sequence[str] = ()) -> list[Entry]:
        """Return an entry for each `uploader`, on a bundled server that is started with the options in `serving`."""
        return [
            Entry(name, uploader(command, *options), files, self.bundled(self.servers[name], *serving))
            for name, command in self.own.items()
        ]

    def peers(self, jobs: int = 1, parts: int = 1, *, curl: bool = True, tuspy_too: bool = True) -> dict[str, Client]:
        """Return the other clients that are installed; with several jobs, curl sends a file in one POST, not PATCH."""
        found: dict[str, Client] = {}
        if curl and jobs == 1:
            found = self.curl()
        elif curl and self.installed.curl:
            found[f"curl, one POST a file, {jobs} at once"] = curl_post(jobs)
        if tuspy_too and self.installed.tuspy:
            found["tuspy"] = tuspy
        if self.installed.node:
            at_once = TUS_JS_JOBS if jobs > 1 else 1
            how = f", {at_once} at once" if jobs > 1 else f", {parts} parts" if parts > 1 else ""
            found[f"tus-js-client{how}"] = tus_js(self.installed.node / "tus_js_client.mjs", at_once, parts)
        return found

    def curl(self) -> dict[str, Client]:
        """Return curl with one PATCH for each file, if it is installed."""
        return {"curl, one PATCH a file": curl_patch} if self.installed.curl else {}

    def peer_entries(self, files: Files, peers: dict[str, Client]) -> list[Entry]:
        """Return an entry for each of the other clients, on the bundled server."""
        serve = self.bundled(self.server)
        return [Entry(label, client, files, serve) for label, client in peers.items()]


def large(setup: Setup) -> list[Entry]:
    size = GIB if setup.full else 128 * MIB
    files = setup.files(f"large-{size // MIB}", [size])
    return [*_plain_and_checked(setup, files), *setup.peer_entries(files, setup.peers())]


def very_large(setup: Setup) -> list[Entry]:
    """Compare with curl alone: the memory that each run frees is the fast memory of the next one."""
    size = 4 * GIB if setup.full else 256 * MIB
    files = setup.files(f"large-{size // MIB}", [size])
    return [*_plain_and_checked(setup, files), *setup.peer_entries(files, setup.curl())]


def _plain_and_checked(setup: Setup, files: Files) -> list[Entry]:
    plain = setup.own_entries(files, "--checksum", "none")
    return [*plain, *_each(setup.own_entries(files), "{}, checksums as by default")]


def large_sha256(setup: Setup) -> list[Entry]:
    size = GIB if setup.full else 128 * MIB
    files = setup.files(f"large-{size // MIB}", [size])
    plain = {f"{label}, no checksum": client for label, client in setup.curl().items()}
    return [*setup.own_entries(files, "--checksum", "sha256"), *setup.peer_entries(files, plain)]


def small(setup: Setup) -> list[Entry]:
    entries = []
    for count in (2000, 10_000) if setup.full else (400,):
        files = setup.files(f"small-{count}", [4 * KIB] * count)
        peers = setup.peers(JOBS, tuspy_too=count <= 2000)  # 10,000 files take it 40 s
        both = [*setup.own_entries(files), *setup.peer_entries(files, peers)]
        entries += _each(both, f"{{}}, {count:,} files")
    return entries


def small_plain_tus(setup: Setup) -> list[Entry]:
    count = 2000 if setup.full else 300
    files = setup.files(f"small-plain-{count}", [4 * KIB] * count)
    clients = {name: uploader(command) for name, command in setup.own.items()} | setup.peers(JOBS, tuspy_too=setup.full)
    node = setup.installed.node
    serve = tus_node(node / "tus_server.mjs") if node else setup.bundled(setup.server, endpoint=True)
    where = "@tus/server" if node else "the bundled server, tus alone"
    return [Entry(f"{label} → {where}", client, files, serve) for label, client in clients.items()]


def slow_large(setup: Setup) -> list[Entry]:
    size = 60_000_000 if setup.full else 16_000_000
    files = setup.files(f"slow-large-{size}", [size])
    mine = setup.own_entries(files) + _each(setup.own_entries(files, "--jobs", str(JOBS)), f"{{}}, {JOBS} jobs")
    peers = setup.peers(parts=JOBS, tuspy_too=setup.full)
    return _each([*mine, *setup.peer_entries(files, peers)], link=SLOW_LINK)


def slow_small(setup: Setup) -> list[Entry]:
    count = 200 if setup.full else 80
    files = setup.files(f"slow-small-{count}", [20_000] * count)
    mine = setup.own_entries(files, "--jobs", str(JOBS))
    return _each([*mine, *setup.peer_entries(files, setup.peers(JOBS, tuspy_too=setup.full))], link=SLOW_LINK)


def batch_sessions(setup: Setup) -> list[Entry]:
    size, processing = (20 * MIB, "2.7") if setup.full else (MIB, "0.5")
    serving = ("--as", "reference", "--processing", processing)
    nine = setup.files(f"videos-9-{size}", [size] * 9, ".mp4")
    three = setup.files(f"videos-3-{size}", [size] * 3, ".mp4")
    entries = []
    for name, command in setup.own.items():
        serve = setup.bundled(setup.servers[name], *serving)
        entries += [
            Entry(f"{name}, 3 files: one session", uploader(command), three, serve),
            Entry(f"{name}, 9 files: three sessions", uploader(command), nine, serve),
            Entry(f"three of {name} at once, 3 files each", uploaders_at_once(command, 3), nine, serve),
        ]
    return entries


def single(setup: Setup) -> list[Entry]:
    files = setup.files("single", [4 * KIB])
    curl = {"curl, one POST": curl_post(1)} if setup.installed.curl else {}
    return [*setup.own_entries(files), *setup.peer_entries(files, curl | setup.peers(curl=False))]


def startup(setup: Setup) -> list[Start]:
    starts = [Start("python -c pass", [sys.executable, "-c", "pass"])]
    sent = str(setup.files("single", [4 * KIB]).directory)
    for name, command in setup.own.items():
        starts += [
            Start(f"{name} --version", [command, "--version"]),
            Start(f"{name} upload --help", [command, "upload", "--help"]),
            Start(f"{name} upload, until it connects", [command, "upload", sent, "--server"], connects=True),
        ]
    if rclone := shutil.which("rclone"):
        starts.append(Start("rclone version", [rclone, "version"]))
    return starts


def eight(setup: Setup) -> list[Entry]:
    size = 128 * MIB if setup.full else 16 * MIB
    files = setup.files(f"eight-{size // MIB}", [size] * 8)
    peers = setup.curl() | setup.peers(JOBS, curl=False, tuspy_too=setup.full)
    return [*setup.own_entries(files, "--checksum", "none"), *setup.peer_entries(files, peers)]


def mixed(setup: Setup) -> list[Entry]:
    count = 2000 if setup.full else 200
    files = setup.files(f"mixed-{count}", log_normal(count, KIB, 10 * MIB))
    return [*setup.own_entries(files), *setup.peer_entries(files, setup.peers(JOBS, tuspy_too=setup.full))]


def tls(setup: Setup) -> list[Entry]:
    try:
        import trustme
    except ImportError as missing:
        raise BenchmarkError("trustme makes the certificate; it comes with the extra `dev`") from missing
    authority = trustme.CA()
    ca_bundle, certificate = setup.directory / "ca.pem", setup.directory / "server.pem"
    authority.cert_pem.write_to_path(ca_bundle)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    encrypted = ("--certificate", str(certificate))
    size = 512 * MIB if setup.full else 32 * MIB
    files = setup.files(f"tls-{size // MIB}", [size])
    mine = setup.own_entries(files, "--checksum", "none")
    peers = setup.peer_entries(files, setup.peers(tuspy_too=False))
    return [
        *_each([*mine, *peers], "{}, TLS", link=encrypted, ca_bundle=ca_bundle),
        *_each(mine, "{}, the same relay without TLS", link=()),
    ]


def view(setup: Setup) -> list[Entry]:
    count = 2000 if setup.full else 200
    files = setup.files(f"view-{count}", [16 * KIB] * count)
    entries = []
    for name, command in setup.own.items():
        serve = setup.bundled(setup.servers[name])
        for shown in ("none", "live"):
            client = uploader(command, progress=shown)
            entries.append(Entry(f"{name} --progress {shown}", client, files, serve, terminal=shown == "live"))
    return entries


def watchers(setup: Setup) -> list[Entry]:
    try:
        import websockets  # noqa: F401
    except ImportError as missing:
        raise BenchmarkError("the watchers need websockets; it comes with the extra `dev`") from missing
    count = 1000 if setup.full else 100
    files = setup.files(f"watched-{count}", [64 * KIB] * count)
    entries = []
    for watching in (1, 100, 500) if setup.full else (1, 100):
        mine = setup.own_entries(files, serving=("--max-connections", "0"))
        entries += _each(mine, f"{{}}, {watching} watching", watchers=watching)
    return entries


def server_memory(setup: Setup) -> list[Entry]:
    count = 100_000 if setup.full else 500
    return setup.own_entries(setup.files(f"tiny-{count}", [KIB] * count))


def curve(setup: Setup) -> list[Entry]:
    entries = []
    for count in (1000, 10_000, 100_000, 1_000_000) if setup.full else (250, 1000):
        mine = setup.own_entries(setup.files(f"tiny-{count}", [KIB] * count))
        entries += _each(mine, f"{{}}, {count:,} files")
    return entries


def fleet(setup: Setup) -> list[Entry]:
    count, large = (50_000, 24) if setup.full else (1000, 2)
    few = setup.files(f"fleet-{count}", [4 * KIB] * count)
    big = setup.files(f"fleet-large-{large}", [64 * MIB] * large)
    entries = []
    for name, command in setup.own.items():
        serve = setup.bundled(setup.servers[name])
        for files, what in ((few, f"{count:,} files"), (big, f"{large} of 64 MiB")):
            one = uploader(command, "--jobs", str(JOBS))
            workers = importer(command, JOBS, "--jobs", "1")
            entries.append(Entry(f"{name}, one process, {JOBS} jobs, {what}", one, files, serve))
            entries.append(Entry(f"{name}, {JOBS} workers, 1 job each, {what}", workers, files, serve))
    return entries


def _each(entries: list[Entry], label: str = "{}", **changes: Any) -> list[Entry]:
    """Return the entries with other labels, and with what else is changed in each."""
    return [replace(entry, label=label.format(entry.label), **changes) for entry in entries]


@dataclass(frozen=True)
class Case:
    """One table."""

    name: str
    what: str
    entries: Callable[[Setup], list[Entry]] | Callable[[Setup], list[Start]]
    unit: str = "MiB"
    quick_runs: int = 3
    full_runs: int = 5
    extras: tuple[str, ...] = ()


_BOTH_CPU = ("client CPU, ms a file", "server CPU, ms a file")
_SLOW = f"{ROUND_TRIP * 1000:.0f} ms round trip, {RATE / 1e6:.0f} MB/s a connection"

CASES = {
    case.name: case
    for case in (
        Case("large", "one file of 1 GiB, without and with checksums (quick: 128 MiB)", large, full_runs=6),
        Case(
            "very-large",
            "one file of 4 GiB, without and with checksums (quick: 256 MiB)",
            very_large,
            "MiB",
            2,
            6,
        ),
        Case("large-sha256", "one file, SHA-256 of each chunk: 1 GiB (quick: 128 MiB)", large_sha256, full_runs=6),
        Case("small", "2,000 and 10,000 files of 4 KiB (quick: 400)", small, "files", 2, extras=_BOTH_CPU),
        Case("small-plain-tus", "2,000 files of 4 KiB to a tus server (quick: 300)", small_plain_tus, "files", 2),
        Case("slow-large", f"one file of 60 MB (quick: 16 MB); {_SLOW}", slow_large, quick_runs=1),
        Case("slow-small", f"200 files of 20 kB (quick: 80); {_SLOW}, {JOBS} jobs", slow_small, "files", 1),
        Case(
            "batch-sessions",
            "9 videos in 3 sessions on the reference backend, 2.7 s of processing a file (quick: 0.5 s)",
            batch_sessions,
            "",
            1,
            3,
        ),
        Case("single", "one file of 4 KiB", single, "", 3, 10, ("server start, s",)),
        Case("startup", "commands until they send anything", startup, "", 5, 15),
        Case("eight", "8 files of 128 MiB without checksums (quick: 16 MiB)", eight, quick_runs=2),
        Case("mixed", "2,000 files of 1 KiB to 10 MiB, log-normal (quick: 200)", mixed, quick_runs=2),
        Case("tls", "one file of 512 MiB through a relay with TLS (quick: 32 MiB)", tls, quick_runs=2),
        Case("view", "the live view, on 2,000 files of 16 KiB (quick: 200)", view, "files", 2),
        Case(
            "watchers",
            "1, 100 and 500 Socket.IO watchers of 1,000 files of 64 KiB (quick: 1 and 100 of 100 files)",
            watchers,
            "files",
            1,
            3,
            ("messages",),
        ),
        Case("server-memory", "100,000 files of 1 KiB (quick: 500)", server_memory, "files", 1, 3),
        Case(
            "fleet",
            "4 workers and one process with 4 jobs: 50,000 files of 4 KiB, 24 of 64 MiB (quick: 1,000 and 2)",
            fleet,
            "files",
            1,
            3,
            _BOTH_CPU,
        ),
        Case(
            "curve",
            "1,000 to 1,000,000 files of 1 KiB (quick: 250 and 1,000)",
            curve,
            "files",
            1,
            1,
            (*_BOTH_CPU, "journal, bytes a file"),
        ),
    )
}
