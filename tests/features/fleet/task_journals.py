"""Journals of tasks."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from uploader_cli.features.fleet.task_journal import TaskJournal
from uploader_cli.features.fleet.tasks import TaskInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.transfer.journal.reading import PendingUpload
    from uploader_cli.transfer.journal.receipts import Stored

SECRET = b"s" * 32


def a_task(
    *, again: bool = False, uploads: Mapping[int, PendingUpload] | None = None, receipts: Mapping[int, Stored] = {}
) -> TaskInput:
    return TaskInput("run", 1, "process", {}, SECRET, again, (), uploads, receipts)


def of_task(task: TaskInput) -> TaskJournal:
    return TaskJournal(task, lambda _news: None, nullcontext)
