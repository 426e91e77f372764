"""The workers of an import as the driver knows them: their phases, their tasks, and which gets the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from features.fleet.fake_cluster import CALL, FakeCluster
from time_limits import PATIENCE

from uploader_cli import errors
from uploader_cli.core import events as ev
from uploader_cli.features.fleet import members
from uploader_cli.features.fleet.events import WorkerPhase
from uploader_cli.features.fleet.members import Member, Members

if TYPE_CHECKING:
    import pytest

    from uploader_cli.features.fleet.members import Sample

ANY_FILE: Sample = ()


class Seen:
    """The workers of a fake cluster; `look` with `sample=None` is before there are files."""

    def __init__(self, *names: str, threads: int = 1) -> None:
        self.cluster, self.told, self.waits = FakeCluster(*names, threads=threads), list[ev.Event](), 0
        self.woken = 0
        self.members = Members(self.cluster, {}, self.told.append, wake=self._wake, outlast=self._outlast)

    def look(self, sample: Sample | None = ANY_FILE, times: int = 1) -> list[Member]:
        return [gone for _ in range(times) for gone in self.members.look(lambda: sample)]

    @property
    def phases(self) -> list[tuple[str, WorkerPhase]]:
        return [(one.name, one.phase) for one in self.members.shown()]

    def _wake(self) -> None:
        self.woken += 1

    def _outlast(self, _error: errors.UploaderError) -> None:
        self.waits += 1


def test_worker_is_checked_with_a_file_before_it_gets_a_task() -> None:
    """And is shown by its number."""
    seen = Seen("w10", "w2", threads=3)
    assert (len(seen.members), seen.look(None), seen.cluster.checked) == (0, [], [])
    assert seen.phases == [("w2", WorkerPhase.CHECKED), ("w10", WorkerPhase.CHECKED)]
    assert (seen.members.free(), seen.members.slots, len(seen.members)) == (None, 6, 2)
    seen.look(times=2)
    assert seen.phases == [("w2", WorkerPhase.READY), ("w10", WorkerPhase.READY)]
    assert (seen.cluster.checked, seen.woken, seen.members.slots) == (["w10", "w2"], 2, 6)
    assert seen.told == [CALL, CALL]
    seen.look(times=2)
    assert seen.cluster.checked == ["w10", "w2"], "once"


def test_next_task_goes_to_the_worker_with_the_fewest_for_its_threads() -> None:
    """None has more than one that waits."""
    seen = Seen("a", "b")
    seen.cluster.workers["b"] = seen.cluster.workers["b"]._replace(threads=2)
    seen.look(times=2)
    order = ""
    while (member := seen.members.free()) is not None:
        member.tasks.add(len(order))
        order += member.name
    assert order == "abbab"


def test_worker_that_hangs_gets_no_task_until_it_passes_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "CHECKED_AGAIN", 0.0)
    seen = Seen("a", "b")
    seen.look(times=2)
    member = seen.members.free()
    assert member is not None
    seen.members.hangs(member)
    assert (seen.phases, seen.members.slots) == ([("a", WorkerPhase.SILENT), ("b", WorkerPhase.READY)], 1)
    assert seen.cluster.stopped == ["a"]
    seen.look(times=2)
    assert seen.phases == [("a", WorkerPhase.READY), ("b", WorkerPhase.READY)]
    assert [event.text for event in seen.told if isinstance(event, ev.RunWarning)] == ["worker a takes part again"]


def test_worker_that_is_kept_out_is_checked_again_later() -> None:
    """Ten seconds after the last check; no task is sent there until then."""
    seen = Seen("a")
    seen.cluster.check = lambda _name: errors.UsageError("it has another file at /a")
    seen.look(times=5)
    assert (seen.cluster.checked, seen.phases) == (["a"], [("a", WorkerPhase.KEPT_OUT)])
    assert (seen.members.slots, seen.members.free(), seen.members.promising(PATIENCE)) == (0, None, False)
    assert str(seen.members.unfit()) == "worker a takes no part: it has another file at /a"
    assert members.CHECKED_AGAIN == 10
    seen.cluster.join("b")
    seen.look(None)
    assert (seen.members.unfit(), seen.members.promising(PATIENCE), seen.members.promising(0)) == (None, True, False)


def test_worker_without_this_version_of_the_package_is_named() -> None:
    """Its check raises what Python raises there."""
    seen = Seen("a")
    seen.cluster.check = lambda _name: ModuleNotFoundError("No module named 'uploader_cli'")
    seen.look(times=2)
    problem = seen.members.unfit()
    assert str(problem) == "worker a takes no part: it can't run imports: No module named 'uploader_cli'"
    assert problem is not None
    assert problem.hint.startswith("install the same version")


def test_worker_that_may_have_met_an_outage_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first failure is waited out; a second one is a problem, which may pass."""
    monkeypatch.setattr(members, "CHECKED_AGAIN", 0.0)
    seen = Seen("a")
    seen.cluster.check = lambda _name: errors.ConnectFailed("no connection")
    seen.look(times=2)
    assert (seen.waits, seen.phases, seen.told) == (1, [("a", WorkerPhase.CHECKED)], [CALL])
    seen.look(times=2)
    assert (seen.waits, seen.phases, seen.members.unfit()) == (1, [("a", WorkerPhase.KEPT_OUT)], None)
    assert [event.text for event in seen.told if isinstance(event, ev.RunWarning)] == [
        "worker a takes no part: no connection"
    ]
    seen.look(times=2)
    assert seen.waits == 2, "a first failure again"


def test_heartbeat_is_a_sign_of_life_and_a_worker_that_left_is_returned() -> None:
    seen = Seen("a")
    seen.look(times=2)
    member = seen.members.free()
    assert member is not None
    member.heard = 0.0
    seen.look()
    assert member.heard == 0.0
    seen.cluster.beats()
    seen.look()
    assert member.heard > 0.0
    member.bytes, member.sending = 5, {1: 2, 2: 1}
    (shown,) = seen.members.shown()
    assert (0 <= shown.silent < PATIENCE, shown.bytes) == (True, 8)
    del seen.cluster.workers["a"]
    assert seen.look() == [member]
    assert (len(seen.members), seen.members.free(), seen.members.unfit()) == (0, None, None)
