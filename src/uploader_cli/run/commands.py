"""The `upload` command."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from uploader_cli.run import analysis
from uploader_cli.run.from_file import readable_list
from uploader_cli.run.on_failure import on_failure
from uploader_cli.run.reports import of_settings, settled
from uploader_cli.run.upload import begin, execute, select
from uploader_cli.run.views import interruptible, observers, resume_hint
from uploader_cli.transfer.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uploader_cli.settings import Settings


def upload_command(settings: Settings, paths: Sequence[str], *, lasting: bool = True) -> int:
    """Upload `paths` with the fitting view; return the exit code.

    With `lasting=False` the server or the journal is temporary, so no hint about resuming is shown.
    """
    with readable_list(settings, paths) as ready:
        return _upload(ready, paths, lasting=lasting)


def _upload(settings: Settings, paths: Sequence[str], *, lasting: bool) -> int:
    found = select(settings, paths)
    analysis.check(settings, found)
    run_id = secrets.token_hex(8)
    written = of_settings(settings, run_id)
    with interruptible() as interrupts, Journal(settings.state_path, check=interrupts.check) as journal:
        run = begin(settings, paths, journal, run_id)
        kept = written.recorder(settings, run_id, run.resumed_from)
        helped = on_failure(settings, run_id, run.resumed_from, lambda: interrupts.count)
        views = [*observers(settings, run_id, resume_hint=resume_hint(settings) if lasting else ""), *helped]
        outcome = execute(settings, found, views, interrupts, journal=journal, run=run, kept=kept)
        return settled(outcome.exit_code, [recorder.notices for recorder in kept])
