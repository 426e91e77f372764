"""The commands `upload` and `resume`."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, safe
from uploader_cli.run.from_file import as_typed, drop, readable_list
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.run.reports import facts_of, settled
from uploader_cli.run.state import writable_state
from uploader_cli.run.upload import begin, execute, prepare
from uploader_cli.run.views import observers, print_notes, resume_hint
from uploader_cli.settings import resolve, user_config_file, working_directory
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uploader_cli.run.upload import Prepared
    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal import RunHandle


def upload_command(settings: Settings, paths: Sequence[str], *, lasting: bool = True) -> int:
    """Upload `paths` with the fitting view; return the exit code.

    With `lasting=False` the server or the journal is temporary, so no hint about resuming is shown.
    """
    with writable_state(settings) as (able, notices), readable_list(able, paths) as ready:
        prepared = prepare(ready, paths)
        with interruptible() as interrupts, Journal(ready.state_path, check=interrupts.check) as journal:
            journal.notices += notices
            run = begin(ready, paths, journal)
            hint = resume_hint(ready) if lasting and not notices else ""
            return _show(ready, prepared, interrupts, journal, run, hint)


def resume_command(run_id: str | None, flags: Mapping[str, object]) -> int:
    """Resume an interrupted run, by default the newest; `flags` override its options."""
    interrupts = Interrupts()
    with Journal(_state_path(flags), check=interrupts.check) as journal:
        stored_id, settings, cwd, paths = stored_run(journal, run_id, flags)
        print_notes(settings)
        try:
            os.chdir(cwd)
        except OSError as error:
            raise UsageError(
                f"the run's working directory {cwd} is unavailable: {error.strerror}", hint="nothing was sent"
            ) from None
        if settings.dry_run:
            from uploader_cli.run.dry_run import dry_run

            return dry_run(settings, paths)
        with readable_list(settings, paths):
            prepared = prepare(settings, paths)
            with interruptible(interrupts):
                run = journal.resume(stored_id)
                return _show(settings, prepared, interrupts, journal, run, resume_hint(settings))


def stored_run(
    journal: Journal, run_id: str | None, flags: Mapping[str, object]
) -> tuple[str, Settings, str, list[str]]:
    """Return the ID of a run, by default the newest that was interrupted, its settings, working directory and paths.

    `flags` override its settings. Raises `UsageError` if there is no such run.
    """
    info = journal.run(run_id) if run_id is not None else journal.newest_unfinished()
    if info is None:
        raise UsageError("no interrupted run to resume", hint="list the runs with: uploader resume --list")
    stored, cwd, paths, listed = (info.arguments.get(name) for name in ("options", "cwd", "paths", "list"))
    if not (isinstance(stored, dict) and isinstance(cwd, str) and isinstance(paths, list)):
        raise UsageError(
            f"run {info.id} can't be resumed: its journal entry is incomplete",
            hint=f"delete it with: uploader resume --forget {info.id}",
        )
    settings = resolve(flags, env=os.environ, cwd=working_directory(), user_config=user_config_file(), stored=stored)
    return info.id, replace(settings, from_file=Path(listed) if isinstance(listed, str) else None), cwd, paths


def resume_list(flags: Mapping[str, object]) -> int:
    """Print the stored runs, newest first."""
    state = _state_path(flags)
    with Journal(state) as journal:
        runs = journal.runs()
    if flags.get("json"):
        sys.stdout.write(json.dumps([asdict(info) for info in runs], ensure_ascii=True) + "\n")
        return Exit.OK
    for info in runs:
        when = datetime.fromtimestamp(info.updated_at).astimezone().strftime("%Y-%m-%d %H:%M")
        done = f"{plural(info.completed_files, 'file')} done, {info.open_files} unfinished"
        paths, listed = info.arguments.get("paths"), info.arguments.get("list")
        names = [str(path) for path in paths[:3]] if isinstance(paths, list) else []
        names += [as_typed(Path(str(listed)), state)] if listed else []
        what = " ".join(map(safe, names))
        sys.stderr.write(f"{info.id}  {when}  {info.state:<11}  {done}  {info.server} ({info.destination})  {what}\n")
    if not runs:
        sys.stderr.write("no runs are stored\n")
    return Exit.OK


def resume_forget(run_id: str, flags: Mapping[str, object]) -> int:
    """Delete a run from the journal, so that it can't be resumed."""
    state = _state_path(flags)
    with Journal(state) as journal:
        listed = journal.run(run_id).arguments.get("list")
        journal.forget(run_id)
    drop(state, [Path(listed)] if isinstance(listed, str) else [])
    sys.stderr.write(f"run {run_id} deleted; its unfinished uploads expire on the server\n")
    return Exit.OK


def _state_path(flags: Mapping[str, object]) -> Path:
    given = {name: flags.get(name) for name in ("profile", "state_dir")}
    own = user_config_file()
    return resolve(given, env=os.environ, cwd=working_directory(), user_config=own, need_server=False).state_path


def _show(
    settings: Settings, prepared: Prepared, interrupts: Interrupts, journal: Journal, run: RunHandle, hint: str
) -> int:
    """Execute the run with the views of a command; `hint` is the command that resumes it."""
    views = observers(settings, run.id, resume_hint=hint)
    if settings.on_failure is not None:
        from uploader_cli.run.on_failure import OnFailure

        views.append(OnFailure(settings.on_failure, facts_of(settings, run), lambda: interrupts.count))
    outcome, notices = execute(settings, prepared, views, interrupts, journal=journal, run=run)
    return settled(outcome.exit_code, notices)
