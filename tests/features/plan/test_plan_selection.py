"""What a plan leaves out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from fakes import local_files

from uploader_cli import Settings
from uploader_cli.core.plan import Limits
from uploader_cli.core.terms import Offer
from uploader_cli.features.plan.dry_run import Plan
from uploader_cli.run.known_servers import KnownServer, remember

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.features.plan.events import PlanFinished
    from uploader_cli.transfer.journal.journal import History

BUNDLED = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def plan_of(files: list[LocalFile], known: KnownServer, asked: str, **options: Any) -> PlanFinished:
    """Plan an upload to a known server; `asked` is what the journal is asked, which says yes for files named b."""
    remember("http://h", known)
    answers = {"done": lambda _file: False, "sent_before": lambda _file: False, "receipts": lambda _files: [None]}
    history = SimpleNamespace(**answers | {asked: lambda file: file.name == "b"})
    return Plan(Settings(server="http://h", **options), lambda _event: None, cast("History", history)).run(files)


def test_plan_of_a_resumed_run_skips_files_with_receipts() -> None:
    plan = plan_of(local_files("a 1/b 2/b 3/b"), KnownServer(Offer(BUNDLED)), "done")
    assert (plan.files, plan.skipped) == (1, 3)


@pytest.mark.parametrize(
    ("relative_paths", "trusts", "skipped"), [(True, False, 1), (False, True, 1), (False, False, 0)]
)
def test_plan_skips_files_with_receipts_that_count(relative_paths: bool, trusts: bool, skipped: int) -> None:
    """A server without paths can't be asked, so that receipts count only with `--trust-receipts`."""
    known = KnownServer(Offer(replace(BUNDLED, relative_paths=relative_paths)))
    plan = plan_of(local_files("a b"), known, "sent_before", skip_existing=True, trust_receipts=trusts)
    assert plan.skipped == skipped
