"""The commands `upload` and `resume`."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from uploader_cli import signals
from uploader_cli.errors import UsageError
from uploader_cli.feature import instead, used
from uploader_cli.report.run_files import facts_of, settled
from uploader_cli.run import runs
from uploader_cli.run.interrupts import Interrupts, interruptible
from uploader_cli.run.piped_lists import readable_list
from uploader_cli.run.run_journal import begin, writable_state
from uploader_cli.run.upload import Upload
from uploader_cli.run.views import observers, print_notes, resume_hint
from uploader_cli.selection.standard_input import standard_input
from uploader_cli.settings import Settings, resolve_here
from uploader_cli.settings.stored import admitted
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.run_handle import RunHandle


def upload_command(settings: Settings, paths: Sequence[str], *, lasting: bool = True) -> int:
    """Upload `paths` with the fitting view, or call what a feature does instead; return the exit code.

    With `lasting=False` the server or the journal is temporary, so neither a hint about resuming nor a URL is shown.
    """
    gc.freeze()  # as in `__main__`: what was imported is never garbage
    if (other := instead(settings)) is not None:
        return int(other.load(other.instead)(settings, paths))
    settings, given = standard_input(settings, paths)
    settings, notices = writable_state(settings)
    with readable_list(settings, paths) as ready:
        upload = Upload(ready, paths, given=given)
        with interruptible() as interrupts, Journal(ready.state_path, checkpoint=interrupts.checkpoint) as journal:
            journal.notices += notices
            hint = resume_hint(ready, paths) if lasting and not notices and given is None else ""
            with begin(ready, paths, journal, lasting=given is None) as run:
                return _show(upload, run, interrupts, hint, lasting=lasting)


def resume_command(run_id: str | None, flags: Mapping[str, object]) -> int:
    """Resume an interrupted run, by default the newest or the user's choice; `flags` override its options."""
    interrupts, place = Interrupts(began=signals.command_began()), runs.place(flags)
    with signals.unwinding(), Journal(place.state_path, checkpoint=interrupts.checkpoint) as journal:
        if run_id is None:
            asked = time.monotonic()
            run_id = runs.choose(journal, place)
            interrupts.began += time.monotonic() - asked  # the user's time is not the command's
        stored_id, settings, cwd, paths = stored_run(journal, run_id, flags)
        print_notes(settings)
        try:
            os.chdir(cwd)
        except OSError as error:
            raise UsageError(
                f"the run's working directory {cwd} is unavailable: {error.strerror}", hint="nothing was sent"
            ) from None
        if (other := instead(settings)) is not None:
            return int(other.load(other.instead)(settings, paths))
        with readable_list(settings, paths):
            upload = Upload(settings, paths)
            with interruptible(interrupts):
                run = journal.resume(stored_id)
                return _show(upload, run, interrupts, resume_hint(settings, paths))


def stored_run(
    journal: Journal, run_id: str | None, flags: Mapping[str, object], env: Mapping[str, str] = os.environ
) -> tuple[str, Settings, str, list[str]]:
    """Return the ID of a run, by default the newest that was interrupted, its settings, working directory and paths.

    `flags` override its settings; `env` has those that are not stored. Raises `UsageError` if there is no such run.
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
    if info.has_secret_urls:
        words = f"run {info.id} reads URLs with a query, which may be a signature and is not stored"
        raise UsageError(words, hint="run the same command again: it continues the run")
    settings = resolve_here(flags, env=env, stored=admitted(stored))
    return info.id, replace(settings, from_file=Path(listed) if isinstance(listed, str) else None), cwd, paths


def _show(upload: Upload, run: RunHandle, interrupts: Interrupts, hint: str, *, lasting: bool = True) -> int:
    """Send the files with the views of a command; `hint` is the command that resumes the run."""
    settings = upload.settings
    with interrupts.raising():  # the log may be a pipe that nobody reads
        views = observers(settings, run.id, interrupts.keys, resume_hint=hint, lasting=lasting)
    for feature in used(settings):
        if feature.observer:
            facts = facts_of(settings, run, interrupts.began)
            views.append(feature.load(feature.observer)(settings, facts, lambda: interrupts.count))
    outcome, notices = upload.send(run, views, interrupts)
    return settled(outcome.exit_code, notices)
