"""What the tests of the core need of the feature."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uploader_cli.transfer.journal.upload_journal import UploadJournal

TEXTS = {"on": "local:9"}
VALUES = {"on": [None, "local:4", "dask://scheduler:8786"]}


def _of_task(*, told: bool) -> UploadJournal:
    from features.fleet.task_journals import a_task, of_task

    return of_task(a_task(uploads={} if told else None))


JOURNALS = {"task": partial(_of_task, told=False), "task at an endpoint": partial(_of_task, told=True)}
