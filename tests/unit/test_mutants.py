"""The table of mutants fits the code: each can be applied, and its tests exist."""

from __future__ import annotations

from mutants.table import MUTANTS
from pages import ROOT


def test_each_mutant_can_be_applied_and_its_tests_exist() -> None:
    """A change of the code that a mutant names is followed in `tests/mutants/table.py`."""
    counts = {mutant.breaks: (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.text) for mutant in MUTANTS}
    assert {breaks: count for breaks, count in counts.items() if count != 1} == {}
    assert {
        test for mutant in MUTANTS for test in mutant.tests.split() if not (ROOT / "tests" / test).exists()
    } == set()
    assert len(counts) == len(MUTANTS) >= 60
