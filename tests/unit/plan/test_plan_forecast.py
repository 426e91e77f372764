"""How many calls a session takes, and what a plan leaves out."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from fakes import local_files

from uploader_cli import Settings
from uploader_cli.core.capabilities import CONCATENATION, CREATION_WITH_UPLOAD, LARGE, Capabilities
from uploader_cli.core.packs import LookupOffer, PackOffer
from uploader_cli.core.plan import ASSUMED, MIB, Limits
from uploader_cli.core.terms import Offer
from uploader_cli.plan.dry_run import Plan
from uploader_cli.plan.forecast import Forecast
from uploader_cli.plan.known_servers import KnownServer, remember

if TYPE_CHECKING:
    from pathlib import Path

    from uploader_cli.core.events import PlanFinished
    from uploader_cli.core.plan import LocalFile
    from uploader_cli.transfer.journal import History

BUNDLED = Limits(1000, 1 << 40, frozenset({"*"}), mixed_types=True, relative_paths=True)
TUS = Capabilities("http://h/files/", extensions=frozenset({CREATION_WITH_UPLOAD, CONCATENATION}))
PLAIN = replace(TUS, extensions=frozenset())
BATCH = Forecast(BUNDLED, None, metered=False, sessions=True, chunk_size=8 * MIB, jobs=4)
REFERENCE = replace(BATCH, limits=ASSUMED, metered=True)
RESUMABLE = replace(BATCH, tus=TUS)
ENDPOINT = replace(RESUMABLE, sessions=False, tus=PLAIN, limits=replace(BUNDLED, relative_paths=False))


@pytest.mark.parametrize(
    ("forecast", "files", "calls"),
    [
        # the session, one request
        (REFERENCE, "a.mp4 b.mp4 c.mp4", 2),
        (BATCH, "a.mp4 b.mp4 c.mp4", 2),
        # what should arrive in 150 s; what is not metered goes in small requests
        (REFERENCE, f"a.mp4={100 * MIB} b.mp4={100 * MIB}", 3),
        (BATCH, " ".join(f"{number}.mp4" for number in range(33)), 4),
        # a creation that carries all, or the creation and its chunks
        (RESUMABLE, "a.mp4 b.mp4=0", 3),
        (RESUMABLE, f"a.mp4={8 * MIB}", 2),
        (RESUMABLE, f"a.mp4={8 * MIB + 1}", 4),
        (ENDPOINT, "a.mp4", 2),
        (ENDPOINT, "a.mp4=0", 2),
        (replace(ENDPOINT, empty_at_creation=True), "a.mp4=0", 1),
        # parts, where workers are idle and the server can join them
        (RESUMABLE, f"a.mp4={LARGE}", 1 + 4 * 9 + 1),
        (RESUMABLE, f"a.mp4={LARGE} b.mp4 c.mp4 d.mp4", 1 + 33 + 3),
        (ENDPOINT, f"a.mp4={LARGE}", 33),
        # a look at each before, and at each after
        (replace(RESUMABLE, look=True), "a.mp4 b.mp4", 5),
        (replace(RESUMABLE, verify=True), "a.mp4 b.mp4", 5),
        (replace(REFERENCE, verify=True, look=True), "a.mp4 b.mp4", 6),
    ],
)
def test_forecast_of_calls(forecast: Forecast, files: str, calls: int) -> None:
    assert forecast.calls(local_files(files)) == calls


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def plan_of(files: list[LocalFile], known: KnownServer, asked: str, **options: Any) -> PlanFinished:
    """Plan an upload to a known server; `asked` is what the journal is asked, which says yes for files named b."""
    remember("http://h", known)
    answers = {"done": lambda _file: False, "sent_before": lambda _file: False, "receipts": lambda _files: [None]}
    history = SimpleNamespace(**answers | {asked: lambda file: file.name == "b"})
    return Plan(Settings(server="http://h", **options), lambda _event: None, cast("History", history)).run(files)


@pytest.mark.parametrize(("lookup", "calls"), [(1, 3), (2, 2), (1000, 1)])
def test_plan_of_a_resumed_run_looks_up_stored_files_in_groups(lookup: int, calls: int) -> None:
    known = KnownServer(Offer(BUNDLED, lookup=LookupOffer("", lookup)))
    first, *others = local_files("a 1/b 2/b 3/b")
    alone, resumed = plan_of([first], known, "done"), plan_of([first, *others], known, "done")
    assert (resumed.files, resumed.skipped, resumed.calls) == (1, 3, alone.calls + calls)


@pytest.mark.parametrize(("lookup", "calls"), [(1, 4), (1000, 1)])
def test_plan_with_skip_existing_looks_up_all_files(lookup: int, calls: int) -> None:
    files, known = local_files("a c d e"), KnownServer(Offer(BUNDLED, lookup=LookupOffer("", lookup)))
    plain, looking = (plan_of(files, known, "done", skip_existing=skips) for skips in (False, True))
    assert (looking.files, looking.calls) == (4, plain.calls + calls)


@pytest.mark.parametrize(
    ("relative_paths", "trusts", "skipped"), [(True, False, 1), (False, True, 1), (False, False, 0)]
)
def test_plan_skips_files_with_receipts_that_count(relative_paths: bool, trusts: bool, skipped: int) -> None:
    """A server without paths can't be asked, so that receipts count only with `--trust-receipts`."""
    known = KnownServer(Offer(replace(BUNDLED, relative_paths=relative_paths)))
    plan = plan_of(local_files("a b"), known, "sent_before", skip_existing=True, trust_receipts=trusts)
    assert plan.skipped == skipped


@pytest.mark.parametrize(("protocol", "calls"), [("tus", 1), ("ietf", 8)])
def test_plan_counts_packs_only_beside_tus(protocol: str, calls: int) -> None:
    """Each file is created empty with the IETF's protocol, and sent after that."""
    known = KnownServer(Offer(BUNDLED, TUS, PackOffer("http://h/packs", 100, MIB, MIB)))
    plan = plan_of(local_files("a c d e"), known, "done", protocol=protocol)
    assert plan.calls == calls + 2, "and the first contact, and the session"
