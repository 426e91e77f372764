"""The files of a run: `--report`, `--failed-to` and `--links`."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli import __version__
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.feature import formats, job_page, used
from uploader_cli.named_files import check_output
from uploader_cli.render.words import plural, safe
from uploader_cli.settings import OPTIONS, Settings
from uploader_cli.settings.values import ReportFile

if TYPE_CHECKING:
    from uploader_cli.report.document import RunFacts
    from uploader_cli.report.recorder import Notices, Output, ReportWriter, Spool
    from uploader_cli.transfer.journal.run_handle import RunHandle


def outputs(settings: Settings, env: Mapping[str, str]) -> list[Output]:
    """Return the functions that write the files at the end of a run.

    Raises `UsageError` for an invalid path, also of a file that a feature writes, before anything is sent.
    """
    failed_to, links = settings.failed_to, settings.links
    places = [("--report", report.path) for report in settings.report]
    own = [(feature, option) for feature in used(settings) for option in feature.options if option.writes]
    others = {"--failed-to": failed_to, "--links": links}
    others |= {OPTIONS[option.name].flag: getattr(settings, option.name) for _, option in own}
    places += [(option, path) for option, path in others.items() if path is not None]
    if places:
        _check(places)
    for feature, option in own:
        if (path := getattr(settings, option.name)) is not None:
            feature.load(option.writes)(path)
    out: list[Output] = [partial(_write_report, report=report) for report in settings.report]
    if failed_to is not None:
        out.append(partial(_write_failed, path=failed_to))
    if links is not None:
        out.append(partial(_write_links, path=links))
    page = job_page(env)
    return out + page.outputs() if page is not None else out


def _check(places: Sequence[tuple[str, Path]]) -> None:
    from uploader_cli.report import output_file
    from uploader_cli.report.formats import LINK_SUFFIXES, LIST_SUFFIXES

    lists = {"--failed-to": LIST_SUFFIXES, "--links": LINK_SUFFIXES}
    seen: set[str] = set()
    for option, path in places:
        check_output(path, option)
        suffixes = lists.get(option)
        if suffixes and path.suffix.lower() not in suffixes and not output_file.is_special(path):
            # `--failed-to a.mp4` lacks its value: it would be overwritten
            hint = f"use the suffix {', '.join(suffixes[1:])}, or none"
            raise UsageError(f"{option}: {path} is not the name of a list", hint=hint)
    for _, path in places:
        target = os.path.realpath(path)
        if target in seen and not str(path).startswith(os.devnull):
            raise UsageError(f"{path} would be written twice", hint="use different files")
        seen.add(target)


def writers(outputs: Sequence[Output], settings: Settings, run: RunHandle, began: float) -> list[ReportWriter]:
    """Return the observers that write the reports and the files of features; `began` as in `facts_of`."""
    found: list[ReportWriter] = []
    if outputs:
        from uploader_cli.report.recorder import Recorder

        found.append(Recorder(outputs, facts_of(settings, run, began), time.time, newest=settings.unending))
    own = [feature for feature in used(settings) if feature.writer]
    return found + [feature.load(feature.writer)(settings, facts_of(settings, run, began)) for feature in own]


def facts_of(settings: Settings, run: RunHandle, began: float) -> RunFacts:
    """Return the facts of a report about a run, except its outcome; it `began` at this time of the monotonic clock."""
    from uploader_cli.report.document import RunFacts, added_by

    started = time.time() - (time.monotonic() - began)
    return RunFacts(
        run.id, __version__, started, settings.session_category, settings.dest, run.resumed_from, added_by(settings)
    )


def settled(code: int, notices: Iterable[Notices]) -> int:
    """Print what went wrong with the reports; return `code`, or 2 where only a report failed."""
    for one in notices:
        for line in (*(f"warning: {note}" for note in one.notes), *(f"error: {problem}" for problem in one.problems)):
            sys.stderr.write(safe(line) + "\n")
        if one.problems:
            code = code or Exit.USAGE
    return code


def _write(option: str, path: Path, text: Iterable[str]) -> None:
    from uploader_cli.report import output_file

    try:
        output_file.write(path, text, secrets.token_hex(8))
    except OSError as error:
        raise OSError(f"{option}: {path} could not be written: {error.strerror or error}") from error


def _format(kind: str) -> Callable[[dict[str, Any], Spool], Iterable[str]]:
    from uploader_cli.report.formats import as_csv, as_json

    own = {"json": as_json, "csv": as_csv}.get(kind)
    if own is not None:
        return own
    feature, one = formats()[kind]
    found: Callable[[dict[str, Any], Spool], Iterable[str]] = feature.load(one.function)
    return found


def _write_report(head: dict[str, Any], spool: Spool, *, report: ReportFile) -> str:
    from uploader_cli.report.formats import without_digest

    _write("--report", report.path, _format(report.kind)(head, spool))
    if not report.digests:
        return ""
    lacking = without_digest(spool)
    return f"--report: {report.path} lacks {plural(lacking, 'file')} whose digest is not known" if lacking else ""


def _write_failed(head: dict[str, Any], spool: Spool, *, path: Path) -> str:
    from uploader_cli.report.formats import as_manifest, needs_nul

    _write("--failed-to", path, as_manifest(path, spool))
    notes = []
    if needs_nul(path, spool):
        notes.append(f"{path} is NUL-separated because names contain line breaks: use --from-file with -0")
    if head.get("selection_complete") is False:
        notes.append(f"the run ended before all files were found: {path} lists only the known ones")
    return f"--failed-to: {'; '.join(notes)}" if notes else ""


def _write_links(_head: dict[str, Any], spool: Spool, *, path: Path) -> str:
    from uploader_cli.report.formats import as_links

    _write("--links", path, as_links(spool))
    return ""
