"""Every invariant of `chaos.invariants` holds with random trees, faults and kills from fixed seeds.

`python -m tests.chaos` runs more rounds (CONTRIBUTING.md).
"""

from __future__ import annotations

import asyncio
import mmap
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from chaos import invariants
from chaos.endings import end_at_random
from chaos.plan import PLANTED, TRAPS, Invocation, Plan, Strike, make_plan
from chaos.processes import Ended, Find, Secrets
from chaos.round import Result, Round
from chaos.run import run
from uploader_server.simulation.rules import parse_rule
from uploader_server.simulation.table import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.thorough
def test_every_fault_occurs_in_plans_and_can_be_read() -> None:
    rules = [parse_rule(rule) for seed in range(1500) for rule in make_plan(seed).rules]
    assert {rule.kind for rule in rules} == set(FAULTS)


def test_plans_have_each_kind_of_server_and_protocol() -> None:
    plans = [make_plan(seed) for seed in range(100)]
    assert {plan.flavour for plan in plans} == {"bundled", "reference", "tus"}
    assert any("ietf" in plan.client for plan in plans)


def test_seed_decides_the_plan() -> None:
    assert make_plan(7) == make_plan(7)
    assert make_plan(7) != make_plan(8)


@pytest.mark.parametrize("seed", [574, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in (3049, 20, 11071))])
def test_no_invariant_is_violated_in_short_rounds(tmp_path: Path, seed: int) -> None:
    """On a bundled server, a shared server, the reference backend and a tus server, with kills and resumes."""
    assert run(seed, 5, tmp_path, rounds=1, say=print).finds == []


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(5))
def test_sessions_that_end_at_random_waits_stay_ended(tmp_path: Path, seed: int) -> None:
    """Also with requests at the same time, and after a restart."""
    asyncio.run(end_at_random(tmp_path, seed, 40))


@pytest.mark.parametrize(
    ("neighbour", "trap"),
    [
        ("journal.sqlite3-wal", "endless"),
        *(pytest.param(None, trap, marks=pytest.mark.thorough) for trap in TRAPS),
        *(pytest.param(name, "", marks=pytest.mark.thorough) for name in PLANTED),
    ],
)
def test_no_invariant_is_violated_where_others_have_prepared_something(
    tmp_path: Path, neighbour: str | None, trap: str
) -> None:
    """A state directory, one for temporary files, an output, or a source of a file."""
    plan = Plan(1, "bundled", False, {"a": 10}, [], ["--durability", "none"], neighbour=neighbour, trap=trap)
    one = Round(plan, tmp_path / "round", None, Secrets(), Result(plan))
    try:
        one.run()
    finally:
        one.close()


@pytest.mark.parametrize(
    ("whom", "act"),
    [("tree", "directory"), ("session", "cancel"), pytest.param("tree", "rewrite", marks=pytest.mark.thorough)],
)
def test_no_invariant_is_violated_when_others_act_during_an_upload(
    tmp_path: Path, whom: Literal["tree", "session"], act: str
) -> None:
    """Another program changes the files that are sent, or another client ends their session."""
    strike = Strike(whom, 0, 3, 0.0, act)
    sizes = {"deep/a": 700_000, "deep/b": 700_000, "c": 10}
    client = ["--limit-rate", "2M", "--chunk-size", "64K"]
    plan = Plan(1, "bundled", False, sizes, client, ["--durability", "none"], [], [Invocation(strikes=(strike,))])
    one = Round(plan, tmp_path / "round", None, Secrets(), Result(plan))
    try:
        one.run()
    finally:
        one.close()
    assert one.tree.changed or one.sessions_ended


@pytest.mark.thorough
def test_each_invariant_can_be_broken(tmp_path: Path) -> None:
    """After a round without faults, each change of its results is found."""
    plan = Plan(1, "bundled", False, {"a": 10, "deep/b": 20}, [], ["--durability", "none"], [], [Invocation()])
    one = Round(plan, tmp_path / "round", None, Secrets(), Result(plan))
    one.run()
    tree, server, home = one.tree, one.server, one.home
    call = tmp_path / "round" / "call-1"
    ended = Ended(0, (call / "out.jsonl").read_text(), (call / "err.txt").read_text(), [], 0, call)
    stored = server.root / "personal" / tree.top.name / "a"

    def find(words: str, check: Callable[[], object]) -> None:
        with pytest.raises(Find, match=words):
            check()

    def called(**changed: object) -> None:
        changed_call = replace(ended, **changed)
        invariants.check_invocation(tree, changed_call, invariants.events_of(changed_call))

    called()
    find("exit code 4, and run.finished says 0", lambda: called(code=4))
    find("exit code 130 without such a signal", lambda: called(code=130))
    find("the event stream", lambda: called(out=ended.out[: ended.out.rindex("\n", 0, -1) + 1]))
    find("half a line", lambda: called(out=ended.out[:-1]))
    whole = ended.out.encode() + "é".encode() * mmap.PAGESIZE
    cut = whole[: -(-len(ended.out) // mmap.PAGESIZE) * mmap.PAGESIZE].decode(errors="surrogateescape")
    find("half a line", lambda: called(out=cut))
    find("half a line", lambda: called(out=cut[:-1], code=-signal.SIGKILL))
    assert invariants.events_of(replace(ended, out=cut, code=-signal.SIGKILL)) == invariants.events_of(ended)
    (call / "failed.jsonl").write_text(f'{{"path": "{tree.top}/a"}}\n')
    find("are listed and are not left", called)
    find("a secret", lambda: invariants.check_texts([("log", b"a " + one.secrets.token.encode())], one.secrets))
    find("Traceback", lambda: invariants.check_texts([("log", b"Traceback (most recent")], one.secrets))
    (home / "tmp" / "left").touch()
    find("in TMPDIR", lambda: invariants.check_left_by_client(home, killed=False))
    (server.root / ".uploader" / "tus" / "left").touch()
    find("belong to no upload", lambda: invariants.check_left_by_server(server, unfinished=True))
    stored.with_name("a (2)").write_bytes(b"")
    find("no file of the tree", lambda: invariants.check_stored(plan, tree, server, "personal", finally_=False))
    stored.with_name("a (2)").unlink()
    stored.write_bytes(stored.read_bytes()[:9])
    find(
        "after SIGKILL: .* with 9 of 10 bytes",
        lambda: invariants.check_complete(plan, tree, server, "personal", "after SIGKILL"),
    )
    stored.write_bytes(b"other")
    find("with 5 of 10 bytes", lambda: invariants.check_stored(plan, tree, server, "personal", finally_=False))
    stored.unlink()
    find("is not stored", lambda: invariants.check_stored(plan, tree, server, "personal", finally_=False))
    stored.write_bytes(b"mixed")
    tree.change(tree.top / "a", b"after")
    find("with mixed bytes", lambda: invariants.check_stored(plan, tree, server, "personal", finally_=False))
    stored.write_bytes(b"after")
    invariants.check_stored(plan, tree, server, "personal", finally_=True)
    one.changes.make("directory", call / "out.jsonl")
    one.changes.make("link", call / "out.jsonl")
    link = next(path for path in (tree.top / "a", tree.top / "deep") if path.is_symlink())
    stored.write_bytes((link / "b" if link.is_dir() else link).read_bytes())
    find("outside the tree", lambda: one.changes.check([server.root]))


@pytest.mark.acceptance
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [10_000, 20_000])
def test_no_invariant_is_violated_in_twenty_minutes(tmp_path: Path, seed: int) -> None:
    """Run for twenty minutes."""
    assert run(seed, 20, tmp_path, say=print).finds == []
