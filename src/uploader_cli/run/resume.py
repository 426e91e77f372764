"""`uploader resume`: resume an interrupted run, list the stored runs, or delete one."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from uploader_cli.errors import UsageError
from uploader_cli.exit_status import Exit
from uploader_cli.render.words import plural, safe
from uploader_cli.run import analysis
from uploader_cli.run.dry_run import dry_run
from uploader_cli.run.from_file import as_typed, drop, readable_list
from uploader_cli.run.on_failure import on_failure
from uploader_cli.run.reports import of_settings, settled
from uploader_cli.run.terminal import print_notes
from uploader_cli.run.upload import Interrupts, execute, select
from uploader_cli.run.views import interruptible, observers, resume_hint
from uploader_cli.settings import resolve, user_config_file
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uploader_cli.settings import Settings
    from uploader_cli.transfer.journal import RunInfo


def resume_command(run_id: str | None, flags: Mapping[str, object]) -> int:
    """Resume an interrupted run, by default the newest; `flags` override its options."""
    interrupts = Interrupts()
    with Journal(_state_path(flags), check=interrupts.check) as journal:
        info = pick_run(journal, run_id)
        settings, cwd, paths = stored_run(info, flags)
        print_notes(settings)
        try:
            os.chdir(cwd)
        except OSError as error:
            raise UsageError(
                f"the run's working directory {cwd} is unavailable: {error.strerror}", hint="nothing was sent"
            ) from None
        if settings.dry_run:
            return dry_run(settings, paths)
        with readable_list(settings, paths):
            return _resume(journal, info.id, settings, paths, interrupts)


def _resume(journal: Journal, run_id: str, settings: Settings, paths: Sequence[str], interrupts: Interrupts) -> int:
    found = select(settings, paths)
    analysis.check(settings, found)
    new_id = secrets.token_hex(8)
    written = of_settings(settings, new_id)
    with interruptible(interrupts):
        run = journal.resume(run_id, new_id=new_id)
        kept = written.recorder(settings, new_id, run.resumed_from)
        helped = on_failure(settings, new_id, run.resumed_from, lambda: interrupts.count)
        views = [*observers(settings, new_id, resume_hint=resume_hint(settings)), *helped]
        outcome = execute(settings, found, views, interrupts, journal=journal, run=run, kept=kept)
        return settled(outcome.exit_code, [recorder.notices for recorder in kept])


def pick_run(journal: Journal, run_id: str | None) -> RunInfo:
    """Return the run with this id, by default the newest that was interrupted. Raises `UsageError`: there is none."""
    info = journal.run(run_id) if run_id is not None else journal.newest_unfinished()
    if info is None:
        raise UsageError("no interrupted run to resume", hint="list the runs with: uploader resume --list")
    return info


def stored_run(info: RunInfo, flags: Mapping[str, object]) -> tuple[Settings, str, list[str]]:
    """Return a run's settings, with `flags` in place of some, the directory it was started in, and its paths there."""
    stored, cwd, paths = (info.arguments.get(name) for name in ("options", "cwd", "paths"))
    if not (isinstance(stored, dict) and isinstance(cwd, str) and isinstance(paths, list)):
        raise UsageError(
            f"run {info.id} can't be resumed: its journal entry is incomplete",
            hint=f"delete it with: uploader resume --forget {info.id}",
        )
    settings = resolve(flags, env=os.environ, cwd=Path.cwd(), user_config=user_config_file(), stored=stored)
    listed = info.arguments.get("list")
    return replace(settings, from_file=Path(listed) if isinstance(listed, str) else None), cwd, paths


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
        paths = info.arguments.get("paths")
        listed = [as_typed(Path(str(info.arguments["list"])), state)] if info.arguments.get("list") else []
        what = " ".join(safe(str(path)) for path in [*paths[:3], *listed]) if isinstance(paths, list) else ""
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
    settings = resolve(
        {name: flags.get(name) for name in ("profile", "state_dir")},
        env=os.environ,
        cwd=Path.cwd(),
        user_config=user_config_file(),
        need_server=False,
    )
    return settings.state_path
