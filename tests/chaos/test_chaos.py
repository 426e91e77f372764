"""Random trees, faults and kills, from fixed seeds: every invariant of `chaos.invariants` holds.

`python -m tests.chaos` runs more of them (CONTRIBUTING.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.plan import make_plan
from chaos.run import run
from uploader_server.faults.rules import parse_rule
from uploader_server.faults.table import FAULTS

if TYPE_CHECKING:
    from pathlib import Path


def test_every_fault_occurs_in_plans_and_can_be_read() -> None:
    rules = [parse_rule(rule) for seed in range(1500) for rule in make_plan(seed).rules]
    assert {rule.kind for rule in rules} == set(FAULTS)


def test_seed_decides_the_plan() -> None:
    assert make_plan(7) == make_plan(7)
    assert make_plan(7) != make_plan(8)


@pytest.mark.parametrize("seed", [1, 2])
def test_short_chaos(tmp_path: Path, seed: int) -> None:
    assert run(seed, 5, tmp_path, rounds=1, say=print).finds == []


@pytest.mark.acceptance
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [10_000, 20_000])
def test_long_chaos(tmp_path: Path, seed: int) -> None:
    """Twenty minutes each."""
    assert run(seed, 20, tmp_path, say=print).finds == []
