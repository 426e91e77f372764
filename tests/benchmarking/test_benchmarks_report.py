"""The tables of the benchmarks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.contest import Sample, transfer_seconds
from benchmarks.files import MIB, log_normal
from benchmarks.report import number, table

if TYPE_CHECKING:
    from pathlib import Path


def sample(seconds: float, transfer: float = 0.0, size: int = 100 * MIB, **extra: float) -> Sample:
    return Sample(seconds, transfer, 0.5, 50 * MIB, 1, size, 0.25, 70 * MIB, extra)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_has_median_spread_rates_and_the_ratio_within_rounds() -> None:
    samples = {
        "uploader": [sample(2.0, 1.0), sample(4.0, 2.0), sample(8.0, 4.0)],
        "curl": [sample(1.0), sample(1.0), sample(1.0)],
    }
    head, _, first, second = map(cells, table(samples, "MiB").splitlines())
    columns = ["seconds", "of these transfer", "MiB/s", "MiB/s of transfer", "time ÷ first"]
    assert head == ["", *columns, "client CPU-s", "server CPU-s", "client MiB", "server MiB", "runs"]
    assert first == ["uploader", "4 (2–8)", "2 (1–4)", "25", "50", "1", "0.5", "0.25", "50", "70", "3"]
    assert second == ["curl", "1 (1–1)", "–", "100", "–", "0.25", "0.5", "0.25", "50", "70", "3"]


def test_rows_of_another_amount_are_compared_to_the_first_of_theirs() -> None:
    samples = {
        "a, 1": [sample(1.0)],
        "b, 1": [sample(2.0)],
        "a, 4": [sample(4.0, size=1)],
        "b, 4": [sample(2.0, size=1)],
    }
    ratio = cells(table(samples, "MiB").splitlines()[0]).index("time ÷ first")
    assert [cells(line)[ratio] for line in table(samples, "MiB").splitlines()[2:]] == ["1", "2", "1", "0.5"]


def test_columns_without_a_value_are_left_out() -> None:
    start = Sample(0.1, 0, 0.1, 8 * MIB)
    assert cells(table({"a": [start], "b": [start]}, "").splitlines()[0]) == [
        *("", "seconds", "time ÷ first", "client CPU-s", "client MiB", "runs")
    ]


def test_extra_columns_are_medians() -> None:
    text = table(
        {"a": [sample(1.0, messages=1), sample(1.0, messages=3), sample(1.0, messages=4)]}, "MiB", ["messages"]
    )
    assert dict(zip(*(cells(text.splitlines()[at]) for at in (0, 2)), strict=True))["messages"] == "3"


def test_an_entry_that_never_succeeded_has_no_row() -> None:
    assert len(table({"a": [sample(1.0)], "b": []}, "MiB").splitlines()) == 3
    assert table({"a": []}, "MiB") == "No run succeeded."


def test_transfer_is_from_the_first_start_to_the_last_finish(tmp_path: Path) -> None:
    for name, start, end in (("0.out", 1, 5), ("1.out", 2, 9)):
        lines = [
            {"ts": f"2026-01-01T00:00:0{start}.500Z", "type": "run.started"},
            {"ts": f"2026-01-01T00:00:0{end}.000Z", "type": "run.finished"},
        ]
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (tmp_path / "2.out").write_text("curl says nothing\n")
    assert transfer_seconds(tmp_path.glob("*.out")) == 7.5
    assert transfer_seconds([tmp_path / "2.out"]) == 0.0


def test_numbers_have_three_significant_digits() -> None:
    assert [number(value) for value in (0, 0.01234, 1.5, 99.96, 12345.6)] == ["–", "0.0123", "1.5", "100", "12,346"]


def test_log_normal_sizes_are_the_same_in_each_run_and_within_bounds() -> None:
    sizes = log_normal(500, 1000, 10_000_000)
    assert sizes == log_normal(500, 1000, 10_000_000)
    assert 1000 <= min(sizes) < 20_000
    assert 1_000_000 < max(sizes) <= 10_000_000
