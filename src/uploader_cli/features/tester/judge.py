"""`uploader judge`: the results of all situations, printed and reported as those of `smoke`."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from uploader_cli.core.names import json_line
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.features.checks.check import Check, Checked, CheckReport, Finding, Stopped, Verdict, run
from uploader_cli.features.checks.junit import junit
from uploader_cli.features.smoke.smoke_report import SmokePage, check_json, exit_of, report_json, sentence
from uploader_cli.features.tester import ietf_situations, tus_situations
from uploader_cli.features.tester.bench import Bench
from uploader_cli.features.tester.ietf_server import IetfPlay
from uploader_cli.features.tester.play import Play, Situation
from uploader_cli.features.tester.tus_server import TusPlay
from uploader_cli.named_files import check_output
from uploader_cli.render.words import plural, span
from uploader_cli.report import output_file
from uploader_cli.report.recorder import Notices
from uploader_cli.report.run_files import settled
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.settings import Settings


def situations_of(module: Any) -> tuple[Situation, ...]:
    """Return the situations of a module, in the order of their definition."""
    return tuple(each for each in vars(module).values() if isinstance(each, Situation))


_MOST = 12
"""Maximum requests of a situation that are shown, unless `verbose`."""
PROTOCOLS: dict[str, tuple[type[Play], tuple[Situation, ...]]] = {
    "ietf": (IetfPlay, situations_of(ietf_situations)),
    "tus": (TusPlay, situations_of(tus_situations)),
}
"""The server and the situations, by protocol."""


def list_situations(protocol: str) -> int:
    """Print the IDs and descriptions."""
    checks = [one.check for one in PROTOCOLS[protocol][1]]
    longest = max(len(check.id) for check in checks)
    for check in checks:
        optional = "" if check.required else " (not required)"
        sys.stdout.write(f"{check.id:<{longest}}  {check.description}{optional}\n")
    return Exit.OK


def chosen(protocol: str, only: Sequence[str], skip: Sequence[str]) -> tuple[Situation, ...]:
    """Return the situations that match one of `only` (empty: all) and none of `skip`; both are IDs or globs.

    Raises `UsageError` for a pattern without a match, and if none is left.
    """
    known = PROTOCOLS[protocol][1]

    def matching(patterns: Sequence[str]) -> list[Situation]:
        return [one for one in known if any(fnmatchcase(one.check.id, pattern) for pattern in patterns)]

    for option, patterns in (("--only", only), ("--skip", skip)):
        for pattern in patterns:
            if not matching([pattern]):
                ids = ", ".join(one.check.id for one in known)
                raise UsageError(f"{option}: no situation matches {pattern!r}", hint=f"the situations are {ids}")
    unwanted = matching(skip)
    if found := tuple(one for one in matching(only or ["*"]) if one not in unwanted):
        return found
    raise UsageError("--skip excludes all situations of --only", hint="omit one of them")


class JudgePage(SmokePage):
    """The page of `smoke`, without a budget."""

    command = "judge"

    def __init__(self, *, client: str, **how: Any) -> None:
        """`client` is the command, or what else is judged; `how` is for `SmokePage`."""
        super().__init__(**how)
        self._client = client

    def heading(self, _server: str) -> list[str]:
        return super().heading(self._client)

    def row(self, result: Checked) -> list[str]:
        """Return the lines of `smoke`, and what the client did unless the row stays below its notice."""
        lines, did = super().row(result), result.finding.details.get("requests", ())
        shown = did if len(did) <= _MOST or self._verbose else [*did[:_MOST], f"{len(did) - _MOST} more"]
        return [*lines, *self._beside("  did       ", ", ".join(shown))] if lines and shown else lines

    def end(self, report: CheckReport) -> list[str]:
        """Return the requests and the time, and the summary."""
        if self._quiet and report.ok:
            return []
        lines = self._summary(report, f"{plural(report.calls, 'request')} of the client, {span(report.seconds)}")
        return lines[1:] if self._quiet else lines


def judge(
    settings: Settings,
    protocol: str,
    situations: Sequence[Situation],
    *,
    command: str | None,
    file: Path | None = None,
    strict: bool = False,
    seconds: float,
    port: int = 0,
) -> int:
    """Judge a client, or without a `command` all that comes until an interrupt; return the exit code.

    Raises `UsageError` for a file that can't be written or a port that is taken.
    """
    if file is not None:
        check_output(file, "--junit")
    try:
        bench = Bench(PROTOCOLS[protocol][0], situations, port)
    except OSError as error:
        raise UsageError(f"--port: {port} can't be used: {error.strerror}", hint="give another one") from None
    client = command or "the clients at the URLs"
    ours = replace(settings, server=bench.address)  # a page is about a server
    page = None if settings.json else JudgePage.begun(ours, strict=strict, client=client)
    checks = [one.check for one in situations]

    def tell(result: Checked) -> None:
        if page is None:
            _write({**check_json(result), "requests": result.finding.details.get("requests", [])})
        else:
            page.tell(result)

    try:
        interrupts = Interrupts(error=Stopped)
        with interruptible(interrupts), interrupts.raising():
            began = time.perf_counter()
            if command is None:
                _wait(bench, checks)
            look = partial(_look, bench, command, seconds)
            begin = page.begin if page is not None else lambda _check: None
            target: Any = bench  # of which `run` counts the calls, and which it closes
            results, stopped = run(target, checks, look, clean_up=lambda: None, begin=begin, tell=tell)
            for check in checks[len(results) :]:
                results.append(Checked(check, Finding(Verdict.NOT_RUN, "interrupted", exit=Exit.RETRY_MAY_HELP)))
                tell(results[-1])
            code = stopped or exit_of(results, strict=strict, speaks=True, refused=False)
            verdict, summary = Verdict.FAIL if code else Verdict.PASS, sentence(results, code, strict=strict)
            took = time.perf_counter() - began
            report = CheckReport(client, tuple(results), verdict, summary, code, bench.calls, took, strict)
            if page is None:
                _write(_report_json(report))
            else:
                page.print(page.end(report))
            return settled(report.exit_code, [_save(file, report)])
    except Stopped as stop:  # a signal after the last situation
        return stop.code


def _look(bench: Bench, command: str | None, seconds: float, check: Check, _before: Sequence[Checked]) -> Checked:
    return bench.result(check) if command is None else bench.run(check, command, seconds)


def _wait(bench: Bench, checks: Sequence[Check]) -> None:
    """Print what a client is to do, and wait for an interrupt."""
    lines = [f"Send {bench.file} to each of these URLs, then press Ctrl-C:", *(f"  {bench.url(one)}" for one in checks)]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
    with suppress(Stopped):
        threading.Event().wait()


def _save(file: Path | None, report: CheckReport) -> Notices:
    notices = Notices()
    if file is not None:
        known = {"client": report.server, "requests": report.calls}
        try:
            output_file.write(file, junit(report, "judge", datetime.now(UTC), known), secrets.token_hex(4))
        except OSError as error:
            notices.problems.append(f"--junit: {file} can't be written: {error.strerror}")
    return notices


def _write(line: dict[str, object]) -> None:
    sys.stdout.write(json_line(line))
    sys.stdout.flush()


def _report_json(report: CheckReport) -> dict[str, object]:
    """Return the last line, as that of `smoke` with the client in place of the server."""
    line, of_smoke = report_json(report), ("budget", "left", "notes")
    return {"client" if name == "server" else name: line[name] for name in line if name not in of_smoke}
