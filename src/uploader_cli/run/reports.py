"""`--report`, `--failed-to` and GitHub's step summary: the files written at the end of a run."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli import __version__
from uploader_cli.core.plan import Shard
from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from uploader_cli.report.document import RunFacts
    from uploader_cli.report.recorder import Notices, Output, Recorder
    from uploader_cli.report.spool import Spool
    from uploader_cli.settings import Settings
    from uploader_cli.settings.values import ReportFile

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Variable with the path of the Markdown file that GitHub Actions shows on a job's page."""


class Reports:
    """The report files of a run. They are checked on construction, before anything is sent."""

    def __init__(self, reports: Sequence[ReportFile], failed_to: Path | None, env: Mapping[str, str], tag: str) -> None:
        """`tag` distinguishes temporary files of different runs. Raises `UsageError` for an invalid path."""
        places = [("--report", report.path) for report in reports]
        places += [("--failed-to", failed_to)] if failed_to is not None else []
        if places:
            _check(places)
        if failed_to is not None:
            _check_list(failed_to)
        real = [path.resolve() for _, path in places]
        twice = next((path for (_, path), same in zip(places, real, strict=True) if real.count(same) > 1), None)
        if twice is not None and not str(twice).startswith(os.devnull):
            raise UsageError(f"{twice} would be written twice", hint="use different files")
        self._summary = Path(env[STEP_SUMMARY]) if env.get(STEP_SUMMARY) else None
        self.outputs: list[Output] = [partial(_write, report=report, tag=tag) for report in reports]
        if failed_to is not None:
            self.outputs.append(partial(_write_again, path=failed_to, tag=tag))
        if self._summary is not None:
            self.outputs.append(partial(_append_summary, path=self._summary))

    def recorder(self, settings: Settings, run: str, resumed_from: str | None) -> list[Recorder]:
        """Return the observer that writes the reports, if there are any."""
        if not self.outputs:
            return []
        from uploader_cli.report.recorder import Recorder

        return [Recorder(self.outputs, facts_of(settings, run, resumed_from), time.time)]


def _check(places: Sequence[tuple[str, Path]]) -> None:
    from uploader_cli.report import output_file

    for option, path in places:
        output_file.check(path, option)


def _check_list(path: Path) -> None:
    """Reject names without a list's suffix: `--failed-to a.mp4` lacks its value and would overwrite the upload."""
    from uploader_cli.report import output_file, retry_list

    if path.suffix.lower() not in retry_list.SUFFIXES and not output_file.is_special(path):
        raise UsageError(f"--failed-to: {path} is not the name of a list", hint="use the suffix .jsonl, .csv or .txt")


def facts_of(settings: Settings, run: str, resumed_from: str | None) -> RunFacts:
    """Return the facts of a report about a run that begins now, except its outcome."""
    from uploader_cli.report.document import RunFacts

    category = None if settings.tus_endpoint else settings.category
    shard = Shard.of(settings.shard)
    return RunFacts(run, __version__, time.time(), category, shard, resumed_from)


def of_settings(settings: Settings, tag: str, env: Mapping[str, str] = os.environ) -> Reports:
    """Return the reports of the settings, and of GitHub's variable in `env`. Raises `UsageError`."""
    return Reports(settings.report, settings.failed_to, env, tag)


def settled(code: int, notices: Iterable[Notices]) -> int:
    """Print what went wrong with the reports; return `code`, or 2 where only a report failed."""
    for one in notices:
        for line in (*(f"warning: {note}" for note in one.notes), *(f"error: {problem}" for problem in one.problems)):
            sys.stderr.write(safe(line) + "\n")
        if one.problems:
            code = code or Exit.USAGE
    return code


def _write(head: dict[str, Any], spool: Spool, *, report: ReportFile, tag: str) -> str:
    from uploader_cli.report import output_file

    with _named("--report", report.path):
        output_file.write(report.path, _lines(report.kind)(head, spool), tag)
    return ""


def _lines(kind: str) -> Callable[[dict[str, Any], Spool], Iterator[str]]:
    """Return the formatter for this kind of report; imported here because few runs write one."""
    match kind:
        case "json":
            from uploader_cli.report.formats import as_json

            return as_json
        case "csv":
            from uploader_cli.report.formats import as_csv

            return as_csv
        case "junit":
            from uploader_cli.report.junit import as_junit

            return as_junit
        case _:
            from uploader_cli.report.markdown import as_markdown

            return as_markdown


def _write_again(head: dict[str, Any], spool: Spool, *, path: Path, tag: str) -> str:
    from uploader_cli.report import output_file, retry_list

    with _named("--failed-to", path):
        output_file.write(path, retry_list.as_manifest(path, spool), tag)
    notes = []
    if retry_list.needs_nul(path, spool):
        notes.append(f"{path} is NUL-separated because names contain line breaks: use --from-file with -0")
    if head.get("selection_complete") is False:
        notes.append(f"the run ended before all files were found: {path} lists only the known ones")
    return f"--failed-to: {'; '.join(notes)}" if notes else ""


@contextmanager
def _named(option: str, path: Path) -> Iterator[None]:
    """Add the option and the file to an OSError."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{option}: {path} could not be written: {error.strerror or error}") from error


def _append_summary(head: dict[str, Any], spool: Spool, *, path: Path) -> str:
    """Append the summary; return why it failed, which is only a warning because no option requested it."""
    from uploader_cli.report import output_file
    from uploader_cli.report.markdown import as_markdown

    try:
        output_file.append(path, as_markdown(head, spool))
    except OSError as error:
        return f"{STEP_SUMMARY}: {path} can't be written: {error.strerror}"
    return ""
