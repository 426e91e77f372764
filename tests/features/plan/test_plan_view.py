"""The plan for people, as it stands in a terminal."""

from __future__ import annotations

import io

import pytest

from uploader_cli.core import events as ev
from uploader_cli.core.events import FailureCode, SkipReason
from uploader_cli.features.plan.events import LimitsOrigin, PlanFile, PlanFinished, PlanSession, PlanStarted
from uploader_cli.features.plan.plan_view import ROWS, PlanView
from uploader_cli.render.words import cells

MIB = 1 << 20
START = PlanStarted("http://h:1", "batch", 1, LimitsOrigin.ASSUMED, 3, 300 * MIB, ("avi", "mp4"))
SESSIONS: list[ev.Event] = [
    PlanSession(1, "personal", 3, 30 * MIB, ("mp4",), ("holiday/a.mp4", "holiday/b.mp4", "holiday/c.mp4")),
    PlanFile(0, "holiday/a.mp4", 10 * MIB, "holiday/a.mp4", 1),
    PlanSession(2, "personal", 5, 1234, ("avi", ""), ("x.avi", "旅行/电影.avi", "z")),
    PlanFile(4, "/data/x.avi", 1234, "here/y.avi", 2),
]
LEFT_OUT: list[ev.Event] = [
    *(ev.FileSkipped(10 + number, f"{number}.txt", SkipReason.TYPE) for number in range(1200)),
    ev.FileSkipped(5, "link", SkipReason.SYMLINK),
    ev.FileFailed(6, "a\x1b[31m.mp4", FailureCode.REFUSED_SIZE, "too large", False),
]
END = PlanFinished(8, 31 * MIB, 2, 1201, 1, 4)


def shown(*events: ev.Event, width: int = 80, verbose: bool = False) -> list[str]:
    stream = io.StringIO()
    view = PlanView(stream, width=width, verbose=verbose)
    for event in events:
        view.tell(event)
    lines = stream.getvalue().splitlines()
    assert max(map(cells, lines)) <= width
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    return lines


def test_a_table_in_80_columns() -> None:
    assert shown(START, *SESSIONS, *LEFT_OUT, END) == [
        "plan for http://h:1 (batch); limits assumed (the server has reported none): 3",
        "  files a session, at most 300.0 MiB each, avi, mp4",
        "",
        "session   files       size  type   destinations",
        "      1       3   30.0 MiB  mp4    personal: holiday/a.mp4, holiday/b.mp4, holi…",
        "      2       5    1.2 KiB  mixed  personal: x.avi, 旅行/电影.avi, z, …",
        "",
        "- 1,200 skipped (type): 0.txt, 1.txt, 2.txt, and 1,197 more",
        "- 1 skipped (symlink): link",
        r"✗ a\x1b[31m.mp4: too large",
        "",
        "8 files, 31.0 MiB in 2 sessions; 1 file would fail (exit code 4); no file was",
        "  sent",
    ]


def test_a_table_in_40_columns() -> None:
    lines = shown(START, *SESSIONS, END, width=40)
    table = lines[lines.index("") + 1 :]
    assert table[:3] == [
        "  # files      size  destinations",
        "  1     3  30.0 MiB  personal: holiday/…",
        "  2     5   1.2 KiB  personal: x.avi, …",
    ]


def test_verbose_names_every_file() -> None:
    lines = shown(START, *SESSIONS, *LEFT_OUT, END, verbose=True)
    assert "   10.0 MiB  holiday/a.mp4 → personal/holiday/a.mp4" in lines
    assert "    1.2 KiB  /data/x.avi → personal/here/y.avi" in lines
    assert "- 1199.txt: type" in lines
    assert len(lines) > 1200


@pytest.mark.parametrize("verbose", [False, True])
def test_long_lists_are_bounded(verbose: bool) -> None:
    """A row for each of the first sessions, a line for each of the first failures, then numbers; all with -v."""
    sessions = [PlanSession(number, "personal", 3, MIB, ("mp4",), ("a",)) for number in range(1, 101)]
    failed = [ev.FileFailed(number, f"f{number}", FailureCode.EMPTY, "empty", False) for number in range(100)]
    lines = shown(START, *sessions, *failed, PlanFinished(300, 100 * MIB, 100, 0, 100, 4), verbose=verbose)
    assert (len(lines) > 200) is verbose
    if not verbose:
        assert f"… and {100 - ROWS} more sessions: 210 files, 70.0 MiB (-v lists all)" in lines
        assert sum(line.startswith("✗ f") for line in lines) == ROWS
        assert "✗ 100 files can't be sent (100 empty)" in lines


def test_plan_of_a_tus_endpoint_without_remarks() -> None:
    start = PlanStarted("http://h/files/", "tus", 4, LimitsOrigin.SEEN, None, None, ("*",))
    assert shown(start, PlanFinished(0, 0, 0, 0, 0, 0), width=200) == [
        "plan for http://h/files/ (tus); limits as last reported: any number of files a session, any size, any type",
        "",
        "0 files, 0 B; no file was sent",
    ]
