"""Interrupts of a run: which one counts, and where one raises."""

from __future__ import annotations

import pytest

from uploader_cli.exit_status import Exit
from uploader_cli.run.interrupts import Interrupts


def test_first_interrupt_decides_the_exit_code() -> None:
    interrupts = Interrupts()
    interrupts.raise_(Exit.SIGTERM)
    interrupts.raise_(Exit.SIGINT)
    assert (interrupts.pending(), interrupts.code) == (2, Exit.SIGTERM)


def test_key_that_stops_counts_once() -> None:
    """A second interrupt would end the requests at once."""
    interrupts = Interrupts()
    assert [interrupts.keys["q"](), interrupts.keys["q"]()] == ["stopping", "stopping"]
    assert (interrupts.pending(), interrupts.code) == (1, Exit.SIGINT)


def test_interrupt_raises_only_within_the_block_and_before_the_end_of_the_run() -> None:
    interrupts = Interrupts()
    with pytest.raises(SystemExit) as end, interrupts.raising():
        interrupts.raise_(Exit.SIGTERM)
    assert end.value.code == Exit.SIGTERM
    interrupts.raise_(Exit.SIGTERM)
    interrupts.finished = True
    interrupts.checkpoint()
