"""`python -m benchmarks [CASE …]`: run cases and print Markdown. docs/performance.md says how to read it."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import CASES, Case, Setup
from benchmarks.contest import in_turns, tell_stderr
from benchmarks.measure import BenchmarkError
from benchmarks.report import machine, table
from benchmarks.servers import has_option


def main() -> int:
    options = _options()
    if options.list:
        print("| case | what is uploaded |\n| --- | --- |")
        print("\n".join(f"| {case.name} | {case.what} |" for case in CASES.values()))
        return 0
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="uploader-benchmarks-", dir=options.where))
    try:
        setup = _setup(options, directory)
        print(machine(directory, setup.own), end="\n\n", flush=True)
        failed = sum([_run(CASES[name], setup, options.runs) for name in options.cases or CASES])
    finally:
        shutil.rmtree(directory)
    if setup.installed.missing:
        print("Not measured:\n" + "\n".join(f"- {name}: {why}" for name, why in setup.installed.missing.items()) + "\n")
    print(f"{'Full' if options.full else 'Quick'} form, {time.monotonic() - began:.0f} s in all.")
    return 1 if failed else 0


def _run(case: Case, setup: Setup, runs: int | None) -> int:
    """Run a case and print its table; return how many of its entries failed."""
    print(f"### {case.name}\n\n{case.what[0].upper()}{case.what[1:]}.\n")
    try:
        entries = case.entries(setup)
    except BenchmarkError as error:
        print(f"Skipped: {error}.\n")
        return 0
    directory = setup.directory / case.name
    directory.mkdir()
    runs = runs or (case.full_runs if setup.full else case.quick_runs)
    samples, failed = in_turns(entries, runs, directory, lambda line: tell_stderr(f"{case.name} {line}"))
    print(table(samples, case.unit, case.extras), end="\n\n", flush=True)
    for label, why in failed.items():
        print(f"**{label} failed**: {why}\n", flush=True)
    return len(failed)


def _setup(options: argparse.Namespace, directory: Path) -> Setup:
    """Find the commands, and report what is not available."""
    own = {"uploader": _command(options.uploader)}
    servers = dict(own)
    if options.baseline:
        own["baseline"] = _command(options.baseline)
        servers["baseline"] = _command(options.baseline_server) if options.baseline_server else own["uploader"]
    for command in dict.fromkeys(servers.values()):
        if options.durability and not has_option(command, "--durability"):
            tell_stderr(f"{command} serve has no --durability: it runs without")
    return Setup(directory, options.full, own, servers, options.durability or "none")


def _command(given: str) -> str:
    found = shutil.which(given)
    if found is None:
        raise SystemExit(f"There is no command {given}: install it, or name one with --uploader or --baseline.")
    return found


def _options() -> argparse.Namespace:
    beside = Path(sys.executable).with_name("uploader")
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").replace("`", ""))
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which cases (default: all)")
    parser.add_argument("--list", action="store_true", help="list the cases, and end")
    parser.add_argument("--full", action="store_true", help="sizes and runs that goals are measured with: 30 minutes")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each entry (default: as the case says)")
    parser.add_argument("--where", type=Path, metavar="DIR", help="keep files below DIR (default: the temporary one)")
    parser.add_argument(
        "--durability", metavar="KIND", help="of the bundled server, where it knows that: none or fsync"
    )
    command = str(beside) if beside.exists() else "uploader"
    parser.add_argument("--uploader", default=command, metavar="COMMAND", help="what is measured, and what serves")
    parser.add_argument("--baseline", metavar="COMMAND", help="another uploader, as one more client")
    parser.add_argument("--baseline-server", metavar="COMMAND", help="an uploader that serves the baseline")
    options = parser.parse_args()
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"there is no case {', '.join(unknown)}; --list shows them")
    if options.runs is not None and options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers and files go away then, too
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
