"""`--report`, `--failed-to` and the step summary of GitHub: what is written when a run is over."""

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

    from uploader_cli.core.report import RunFacts
    from uploader_cli.report.recorder import Output, Recorder, Said
    from uploader_cli.report.spool import Spool
    from uploader_cli.settings import Settings
    from uploader_cli.settings.values import ReportFile

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file whose Markdown GitHub Actions shows on the page of a job."""


class Reports:
    """The files that a run leaves behind. They are looked at when this is made, before anything is sent."""

    def __init__(self, reports: Sequence[ReportFile], failed_to: Path | None, env: Mapping[str, str], tag: str) -> None:
        """`tag` tells files in the making from those of another run. Raises `UsageError` for a bad place."""
        places = [("--report", report.path) for report in reports]
        places += [("--failed-to", failed_to)] if failed_to is not None else []
        if places:
            _check(places)
        if failed_to is not None:
            _check_list(failed_to)
        real = [path.resolve() for _, path in places]
        twice = next((path for (_, path), same in zip(places, real, strict=True) if real.count(same) > 1), None)
        if twice is not None and not str(twice).startswith(os.devnull):
            raise UsageError(f"{twice} is to be written twice", hint="name another file for one of them")
        self._summary = Path(env[STEP_SUMMARY]) if env.get(STEP_SUMMARY) else None
        self.outputs: list[Output] = [partial(_write, report=report, tag=tag) for report in reports]
        if failed_to is not None:
            self.outputs.append(partial(_write_again, path=failed_to, tag=tag))
        if self._summary is not None:
            self.outputs.append(partial(_append_summary, path=self._summary))

    def recorder(self, settings: Settings, run: str, resumed_from: str | None) -> list[Recorder]:
        """Return the observer of a run, if there is anything to write."""
        if not self.outputs:
            return []
        from uploader_cli.report.recorder import Recorder

        return [Recorder(self.outputs, facts_of(settings, run, resumed_from), time.time)]


def _check(places: Sequence[tuple[str, Path]]) -> None:
    from uploader_cli.report import output_file

    for option, path in places:
        output_file.check(path, option)


def _check_list(path: Path) -> None:
    """Refuse a name that is no list's: without a value, the option takes the next word, which is a file to upload."""
    from uploader_cli.report import output_file, retry_list

    if path.suffix.lower() not in retry_list.SUFFIXES and not output_file.is_special(path):
        raise UsageError(f"--failed-to: {path} is not the name of a list", hint="name it .jsonl, .csv or .txt")


def facts_of(settings: Settings, run: str, resumed_from: str | None) -> RunFacts:
    """Return what a report says of a run that begins now, apart from its outcome."""
    from uploader_cli.core.report import RunFacts

    category = None if settings.tus_endpoint else settings.category
    shard = Shard.of(settings.shard)
    return RunFacts(run, __version__, time.time(), category, shard, resumed_from)


def of_settings(settings: Settings, tag: str, env: Mapping[str, str] = os.environ) -> Reports:
    """What the settings ask for, and GitHub's variable in `env`. Raises `UsageError`."""
    return Reports(settings.report, settings.failed_to, env, tag)


def settled(code: int, said: Iterable[Said]) -> int:
    """The exit code of a run whose reports are written: 2 where only one of them could not be. Says so."""
    for one in said:
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
    """Return what writes this kind of report; it is imported here, as few runs write one."""
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
        notes.append(f"names with line breaks are in it, so {path} is NUL-separated: --from-file needs -0")
    if head.get("selection_complete") is False:
        notes.append(f"the run ended before it had found all files: {path} has only those that it knew of")
    return f"--failed-to: {'; '.join(notes)}" if notes else ""


@contextmanager
def _named(option: str, path: Path) -> Iterator[None]:
    """An error says which option it was, and which file."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{option}: {path} could not be written: {error.strerror or error}") from error


def _append_summary(head: dict[str, Any], spool: Spool, *, path: Path) -> str:
    """Append the summary; return why that failed, which fails nothing: no option asked for it."""
    from uploader_cli.report import output_file
    from uploader_cli.report.markdown import as_markdown

    try:
        output_file.append(path, as_markdown(head, spool))
    except OSError as error:
        return f"{STEP_SUMMARY}: {path} can't be written: {error.strerror}"
    return ""
