"""The live view, on consoles of a fixed size."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console
from unit.render.render_script import HOSTILE, MIB, SESSION, Script, name_of

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelState, FailureCode, SkipReason, Transport
from uploader_cli.render.frame import Frame, Slots
from uploader_cli.render.live import LiveView
from uploader_cli.render.plain import progress_line

CODE = r"\x1b(?:\[[?0-9;]*[A-Za-z]|[78D])"
"""A control sequence of the view."""
SIZES = [(20, 5), (20, 24), (23, 10), (30, 12), (40, 24), (59, 24), (60, 24), (80, 24), (100, 30), (120, 40)]


class Screen:
    """A frame's rows as text, for any size."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.frame = Frame()

    def lines(self, width: int = 80, height: int = 24) -> list[str]:
        rows = self.frame.rows(self.script.state, self.script.now, width, height)
        return ["".join(text for text, _ in row) for row in rows]

    def text(self, width: int = 80, height: int = 24) -> str:
        return "\n".join(self.lines(width, height))


@pytest.fixture
def run() -> Script:
    return Script()


@pytest.fixture
def screen(run: Script) -> Screen:
    return Screen(run)


def busy(run: Script, names: list[str]) -> None:
    """Files in every phase, a failure, a message and a warning."""
    run.begin(names=names)
    run.start(*range(len(names)), names=names)
    for number, name in enumerate(names):
        run.now += 0.3
        run.sent(number, (number + 1) * MIB // 2)
        match number % 5:
            case 1:
                run.put(ev.BodySent((number,)))
            case 2:
                run.put(ev.FileRetry(number, 2, 4.0, FailureCode.NETWORK, f"lost {name}"))
            case 3:
                run.put(ev.FileFailed(number, name, FailureCode.SERVER_REFUSED, f"no {name}", retryable=False))
    run.put(ev.FileCompleted(0, names[0], 10 * MIB, None, None, False, 1, 2.0))
    run.put(ev.RunWarning(ev.WarningCode.INSECURE, f"about {names[0]}"))
    run.put(ev.SessionProgress(SESSION, Transport.HTTP, run.now, "uploading", message=f"正在上传 {names[1]}..."))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_row_fits_whatever_the_names(run: Script, screen: Screen, width: int, height: int) -> None:
    busy(run, HOSTILE)
    lines = screen.lines(width, height)
    assert len(lines) < height
    for line in lines:
        assert cell_len(line) <= width
        assert line.isprintable()


def test_names_are_no_markup(run: Script, screen: Screen) -> None:
    run.begin(names=["a[bold]b[x].bin"])
    run.start(0, names=["a[bold]b[x].bin"])
    assert "a[bold]b[x].bin" in screen.text()


def test_live_row_is_below_100_before_the_confirmation(run: Script, screen: Screen) -> None:
    run.begin(1)
    run.start(0)
    seen = []
    for step in range(11):
        run.now += 1
        run.sent(0, step * MIB)
        seen.append(screen.text())
    run.put(ev.BodySent((0,)))
    seen.append(screen.text())
    run.server(0, 100.0)
    seen += [screen.text(width) for width in (20, 40, 80)]
    assert not any("100 %" in text for text in seen)
    run.complete(0)
    assert "100 %" in screen.text()


def test_live_view_shows_the_totals(run: Script, screen: Screen) -> None:
    run.begin(5)
    run.put(ev.FileSkipped(4, "notes.txt", ev.SkipReason.TYPE))
    run.start(0, 1)
    run.now += 4
    run.sent(0, 10 * MIB)
    run.complete(0)
    run.fail(2)
    header, bar, counts = screen.lines()[:3]
    assert header.endswith(" 0:04")
    assert re.fullmatch(r"━+╸?─+  33 %", bar)
    assert counts == "1 of 4 done · 1 failed · 10.0 of 30.0 MiB · 2.5 MiB/s · 0:08 left · 1 skipped"


def test_header_says_what_goes_where(run: Script, screen: Screen) -> None:
    run.begin(names=["trip/day-1/a.mp4", "trip/day-2/b.mp4"])
    run.live()
    assert re.fullmatch(
        r"uploader  trip/ → 127\.0\.0\.1:8765/personal · session 2ba25c4c +● live +0:00", screen.lines(100)[0]
    )
    assert re.fullmatch(r"trip/ → 127\.0\.0\.1:8765/personal +● live", screen.lines(45)[0])
    assert re.fullmatch(r"→ 127\.0\.0\.…765/personal ● live", screen.lines(30)[0])


def test_names_lose_the_directory_that_all_files_share(run: Script, screen: Screen) -> None:
    names = ["trip/day-1/a.mp4", "trip/day-10/b.mp4"]
    run.begin(names=names)
    run.start(0, 1, names=names)
    run.put(ev.FileFailed(1, names[1], FailureCode.SERVER_REFUSED, "type not allowed", retryable=False))
    assert screen.lines()[4].startswith("↑ day-1/a.mp4 ")
    assert screen.lines()[5] == "✗ day-10/b.mp4  type not allowed"


@pytest.mark.parametrize(
    ("ended", "row"),
    [
        (ev.FileSkipped(1, name_of(1), SkipReason.PRESENT), "- film-0001.mp4  present"),
        (ev.FilesCancelled((1,)), "■ film-0001.mp4  cancelled"),
    ],
)
def test_file_that_was_begun_and_not_sent_shows_the_reason(
    ended: ev.Event, row: str, run: Script, screen: Screen
) -> None:
    run.begin()
    run.start(0, 1)
    run.now += 2
    run.put(ended)
    assert screen.lines()[-1] == row


def test_finished_directory_is_one_line(run: Script, screen: Screen) -> None:
    names = [f"trip/day-{day}/{number}.mp4" for day in (1, 2) for number in range(3)]
    run.begin(names=names)
    run.start(*range(6), names=names)
    run.now += 2
    for number in (0, 1, 3):
        run.put(ev.FileCompleted(number, names[number], 10 * MIB, None, None, False, 1, 2.0))
    assert sum(line.startswith("✓ day-") for line in screen.lines()) == 3
    run.put(ev.FileCompleted(2, names[2], 10 * MIB, None, None, False, 1, 2.0))
    done = [line for line in screen.lines() if line.startswith("✓ ")]
    assert done[0].startswith("✓ day-2/0.mp4 ")
    assert done[1:] == ["✓ day-1  3 files  30.0 MiB"]


def test_directory_that_the_walk_is_in_has_not_ended(run: Script, screen: Screen) -> None:
    names = ["trip/a/1.mp4", "trip/a/2.mp4", "trip/a/b/3.mp4", "trip/c/4.mp4"]
    run.put(ev.RunStarted("http://127.0.0.1:8765", None, None, 4, "tus"))
    for number, name in enumerate(names):
        run.put(ev.FileSelected(number, name, 10))
        assert ("✓ a  2 files  20 B" in screen.lines()) == (number == 3)
        run.put(ev.FileStarted(number, name, 10, SESSION, 0, 1, name))
        run.put(ev.FileCompleted(number, name, 10, None, None, False, 1, 0.1))


def test_free_rows_have_the_files_that_are_sent_next(run: Script, screen: Screen) -> None:
    """Below those being sent, above those that ended; small ones are only counted."""
    run.begin(names=["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    run.put(ev.FileSelected(4, "small.txt", 1000))
    run.start(0, 1, names=["a.mp4", "b.mp4"])
    run.now += 2
    run.put(ev.FileCompleted(0, "a.mp4", 10 * MIB, None, None, False, 1, 2.0))
    shown = [line.split()[-3 if line.startswith("  ") else 1] for line in screen.lines()[4:]]
    assert shown == ["b.mp4", "c.mp4", "d.mp4", "a.mp4"]
    assert [line.startswith("↑") for line in screen.lines(80, 7)[3:]] == [True, False, False]


def test_live_row_shows_the_time_left(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.start(0)
    for step in range(1, 5):
        run.now += 1
        run.sent(0, step * MIB)
    assert screen.lines()[4].endswith(" 1.0 MiB/s   0:06 left")
    assert screen.lines(40)[6].endswith(" 10.0 MiB   0:06 left")
    run.now += 4
    assert screen.lines()[4].endswith(" 0:12 left")


def test_only_file_has_one_bar_and_a_row_for_its_status(run: Script, screen: Screen) -> None:
    """Its first bytes fill the buffers of the system, and are no speed."""
    run.begin(1)
    run.start(0)
    run.sent(0, 4 * MIB)
    assert screen.lines()[2:] == ["4.0 of 10.0 MiB", ""]
    run.now += 1
    run.sent(0, 5 * MIB)
    run.now += 1
    assert screen.lines()[2:] == ["5.0 of 10.0 MiB · 512.0 KiB/s · 0:10 left", ""]
    run.put(ev.FileRetry(0, 2, 4.0, FailureCode.NETWORK, "lost"))
    assert screen.lines()[4:] == ["↻ film-0000.mp4  retry 1 in 0:04 · lost"]


def test_what_must_be_sent_again_is_shaded_until_it_is_sent(run: Script, screen: Screen) -> None:
    """What the server has confirmed stays solid, in the bar of the file and in that of the run."""
    run.begin(2)
    run.start(0)
    run.sent(0, 8 * MIB)
    run.put(ev.BytesConfirmed(0, 1, 4 * MIB), ev.FileRetry(0, 2, 0.0, FailureCode.NETWORK, "lost"))
    run.start(0, attempt=2, offset=4 * MIB)
    for count in (4, 6, 8):
        run.sent(0, count * MIB, attempt=2)
        for width in (40, 80, 120):
            whole, row = screen.lines(width)[1], next(line for line in screen.lines(width)[4:] if "━" in line)
            assert whole.endswith(f" {count * 5} %")
            for bar, parts in ((whole, 20), (row, 10)):
                (drawn,) = re.findall(r"━+╸?╍*─*", bar)
                solid, reached = count / parts * len(drawn), 8 / parts * len(drawn)
                assert abs(drawn.count("━") + drawn.count("╸") / 2 - solid) < 1
                assert abs(len(drawn.rstrip("─")) - reached) <= 1


def test_long_reason_has_up_to_four_rows_without_the_url_of_the_server(run: Script, screen: Screen) -> None:
    run.begin(3)
    run.fail(0, message=f"http://127.0.0.1:8765/files/a: {'no space left ' * 30}")
    run.fail(1, message="the connection to http://127.0.0.1:8765 broke: reset")
    assert screen.lines()[-5:] == [
        f"✗ film-0000.mp4  {'no space left ' * 4}no",
        f"    {'space left no ' * 5}space",
        f"    {'left no space ' * 5}left",
        f"    {'no space left ' * 5}no sp…",
        "✗ film-0001.mp4  the connection to the server broke: reset",
    ]


def test_small_files_are_counted(run: Script, screen: Screen) -> None:
    """A row is for a file that is large for the speed, or slow."""
    run.begin(9, size=1000)
    run.start(0, 1, size=1000)
    run.start(2)
    lines = screen.lines()
    assert "2 small files under way" in lines[2]
    assert [name_of(number) in screen.text() for number in (0, 1, 2)] == [False, False, True]
    run.now += 1.5
    run.sent(1, 500)
    assert name_of(1) in screen.text()
    assert "1 small file under way" in screen.text()


def test_files_per_second_are_shown(run: Script, screen: Screen) -> None:
    run.begin(100, size=1000)
    for number in range(60):
        run.now += 0.1
        run.complete(number, size=1000)
        run.put(ev.Ticked())
    assert screen.lines()[2].startswith("60 of 100 done · 58.6 of 97.7 KiB · 10 files/s")


def test_running_files_have_all_rows_of_a_low_terminal(run: Script, screen: Screen) -> None:
    run.begin(20)
    run.start(*range(12))
    run.fail(9)
    run.complete(10)
    assert [line[:1] for line in screen.lines(80, 8)[3:]] == ["↑", "↑", "↑", " "]


def test_failures_and_messages_have_lines_of_their_own_in_a_wide_terminal(run: Script, screen: Screen) -> None:
    screen.frame = Frame(messages=True)
    run.begin(30)
    run.live()
    run.start(*range(9))
    for number in range(5, 9):
        run.fail(number, message="no space left")
    run.server(0, 10.0, "Receiving one")
    lines = screen.lines(120, 30)
    assert "✗ film-0008.mp4  no space left" in lines
    assert "» Receiving one" in lines
    assert sum(line.startswith("✗") for line in lines) == 4


def test_resumed_run_says_what_was_done_before_until_it_completes_a_file(run: Script, screen: Screen) -> None:
    run.put(ev.RunStarted("http://127.0.0.1:8765", 3, 30 * MIB, 4, "tus", "r-1"))
    run.put(*(ev.FileSelected(number, name_of(number), 10 * MIB) for number in range(3)), ev.SelectionEnded())
    run.put(ev.FileSkipped(0, name_of(0), SkipReason.RECEIPT))
    assert "↻ resuming: 1 of 3 files done" in screen.lines()
    run.start(1)
    run.complete(1)
    assert "resuming" not in screen.text()


def test_failed_files_leave_the_total_and_keep_it_below_100(run: Script, screen: Screen) -> None:
    run.begin(5)
    run.start(0, 1, 2, 3, 4)
    for number in (0, 1):
        run.sent(number, 10 * MIB)
        run.complete(number)
    for number in (2, 3, 4):
        run.fail(number)
    for width in (40, 80):
        lines = screen.lines(width)
        assert "100 %" not in lines[1]
        assert any("20.0 of 20.0 MiB" in line for line in lines[1:4])
        assert any(line.startswith("2 of 5 done · 3 failed") for line in lines)


def test_there_is_no_percentage_and_no_time_left_while_files_are_searched(run: Script, screen: Screen) -> None:
    """A segment moves along the bar. The totals appear when the search has ended."""
    run.put(ev.RunStarted("https://user:secret@host:99/x", None, None, 4, "tus"))
    run.put(*(ev.FileSelected(number, name_of(number), 5 * MIB) for number in range(3)))
    assert screen.lines()[2] == "3 files found · 15.0 MiB · searching …"
    assert "host:99" in screen.text()
    assert "secret" not in screen.text()
    run.complete(0, size=5 * MIB)
    bars = []
    for _ in range(3):
        run.now += 1
        bars.append(screen.lines()[1])
        assert screen.lines()[2].startswith("1 done · 5.0 MiB · ")
    assert len(set(bars)) == 3
    assert not any(sign in screen.text() for sign in ("%", "left", "≥"))
    run.put(ev.SelectionEnded())
    assert screen.lines()[1].endswith("  33 %")
    assert screen.lines()[2].startswith("1 of 3 done · 5.0 of 15.0 MiB")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ((ChannelState.LIVE, Transport.WEBSOCKET, None, 12.3), "● live websocket 12 ms"),
        ((ChannelState.LIVE, Transport.POLLING, None, None), "● live long polling"),
        ((ChannelState.CONNECTING, None, None, None), "◌ connecting"),
        ((ChannelState.RECONNECTING, None, 2, None), "↻ reconnecting 2/3"),
        ((ChannelState.POLLING, Transport.HTTP, None, None), "◔ polling"),
    ],
)
def test_the_channel_has_a_glyph_and_a_word(
    run: Script, screen: Screen, change: tuple[ChannelState, Transport | None, int | None, float | None], shown: str
) -> None:
    run.begin()
    to, transport, attempt, latency = change
    run.channel(ChannelState.CONNECTING, to, transport, attempt=attempt, latency=latency)
    assert f"  {shown}  " in screen.lines(120)[0]
    assert f" {shown.removesuffix(' websocket 12 ms')}" in screen.lines(40)[0]


def test_header_names_run_and_session(run: Script, screen: Screen) -> None:
    """As much of each as `resume` and `watch` need; in a narrow terminal the run is dropped first."""
    screen.frame = Frame("0123456789abcdef")
    run.begin()
    run.live()
    assert "/personal · run 01234567 · session 2ba25c4c " in screen.lines(100)[0]
    assert "/personal · session 2ba25c4c " in screen.lines(80)[0]


def test_foreign_server_is_finishing_after_the_last_byte(run: Script, screen: Screen) -> None:
    """In the row of the file at once, and where it takes long beside the totals, as in a plain line."""
    run.put(ev.RunStarted("http://127.0.0.1:1080", 1, 10 * MIB, 1, "tus", finishes_late=True))
    run.put(ev.FileSelected(0, name_of(0), 10 * MIB), ev.SelectionEnded())
    run.start(0)
    run.sent(0, 10 * MIB)
    run.now += 1
    for _ in range(2):
        for width in (40, 60, 80, 120):
            assert "the server is finishing" in screen.text(width)
            assert "closed" not in screen.text(width)
        run.put(ev.BodySent((0,)))
    run.now += 30
    (warning,) = run.alarms.look(run.state, run.now)
    assert isinstance(warning, ev.RunWarning)
    assert warning.text.endswith(": everything is sent, the server is finishing")


def test_processing_is_a_phase_of_its_own(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.start(0, 1)
    run.sent(0, 10 * MIB)
    assert "sent, not confirmed" not in screen.lines()[4], "of small files it would only flicker"
    run.now += 1
    assert "sent, not confirmed" in screen.lines()[4]
    run.put(ev.BodySent((0,)))
    assert "waiting for the server" in screen.lines()[4]
    run.server(0, 45.0)
    for width in (40, 60, 80, 120):
        assert "processing 45 %" in screen.text(width)


def test_part_that_was_received_is_no_percentage_of_processing(run: Script, screen: Screen) -> None:
    """The bundled server tells the bytes of a file that it has, and no steps of its processing."""
    run.begin(2)
    run.start(0, 1)
    run.sent(0, 10 * MIB)
    status = ev.FileStatus(name_of(0), "uploading", 89.0, bytes=9 * MIB)
    run.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, run.now, "uploading", files=(status,)))
    run.put(ev.BodySent((0,)))
    run.now += 4
    for width in (40, 60, 80, 120):
        assert "processing 0:04" in screen.text(width)


def test_live_row_shows_delay_and_reason_of_a_retry(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.start(0)
    run.put(ev.FileRetry(0, 2, 4.0, FailureCode.NETWORK, "http://127.0.0.1:8765/files/a-1: connection reset"))
    assert "retry 1 in 0:04 · connection reset" in screen.text()
    assert "retry 1 in 0:04" in screen.text(40)
    run.start(0, attempt=2)
    assert re.search(r"film-0000\.mp4 +retry 1 ─", screen.lines()[4])


def test_live_row_shows_the_resumed_offset(run: Script, screen: Screen) -> None:
    """In its row, while it runs and where it fits; the rate starts there."""
    run.begin(2)
    run.start(0, offset=5 * MIB)
    run.tick(1)
    assert re.search(r"film.*\.mp4 +resumed at 50 % ━", screen.lines()[4])
    assert screen.lines()[4].endswith(" –"), "nothing was sent yet"
    assert "resumed at 50 %" in screen.text(40)
    assert "resumed" not in screen.text(30)
    run.start(0, attempt=2, offset=7 * MIB)
    assert "resumed" not in screen.text()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_thousand_running_files_draw_only_what_fits(run: Script, screen: Screen, width: int, height: int) -> None:
    run.begin(1000)
    run.start(*range(1000))
    lines = screen.lines(width, height)
    shown = sum("↑" in line for line in lines)
    assert len(lines) < height
    assert shown < height
    if height >= 10:
        assert f"  … and {1000 - shown:,} more" in lines


def test_a_running_file_keeps_its_row_and_the_next_takes_it_over(run: Script, screen: Screen) -> None:
    run.begin(6)
    run.start(0, 1, 2)
    before = screen.lines()[4:7]
    run.complete(1)
    run.start(3)
    after = screen.lines()[4:7]
    assert after[0] == before[0]
    assert after[2] == before[2]
    assert name_of(3) in after[1]


def test_there_are_no_free_rows(run: Script) -> None:
    slots = Slots()
    run.begin(3)
    run.start(0, 1, 2)
    assert slots.assign(run.state.running, 8) == [0, 1, 2]
    run.complete(0)
    assert slots.assign(run.state.running, 8) == [1, 2]


def test_live_view_shows_the_active_file_of_a_large_batch(run: Script, screen: Screen) -> None:
    run.begin(40)
    run.start(*range(40))
    screen.lines()
    for number in range(36):
        run.sent(number, 10 * MIB)
    run.sent(36, 3 * MIB)
    assert name_of(36) in screen.text()


def test_newest_failure_stays_visible(run: Script, screen: Screen) -> None:
    run.begin(200)
    run.start(*range(200))
    run.fail(0, message="no space left")
    for number in range(1, 150):
        run.complete(number)
    assert "✗ film-0000.mp4  no space left" in screen.lines()


def test_failures_stay_visible_above_completed_files(run: Script, screen: Screen) -> None:
    """The newest three keep their rows above the files that finished last."""
    run.begin(30)
    run.start(*range(30))
    for number in range(5):
        run.fail(number)
    for number in range(5, 20):
        run.complete(number)
    marks = [line[0] for line in screen.lines(height=30) if line[:1] in ("✗", "✓")]
    assert marks == ["✗"] * 3 + ["✓"] * 6
    assert "film-0004.mp4" in screen.text()
    assert "film-0001.mp4" not in screen.text()


def test_server_message_is_shown_on_request_while_the_channel_is_connected(run: Script, screen: Screen) -> None:
    """One row, the newest; when the connection is lost it would be old."""
    run.begin(2)
    run.start(0)
    run.live()
    run.server(0, 10.0, "Receiving one")
    run.server(0, 20.0, "Receiving two")
    assert "»" not in screen.text()
    screen.frame = Frame(messages=True)
    assert [line for line in screen.lines() if line.startswith("»")] == ["» Receiving two"]
    run.channel(ChannelState.LIVE, ChannelState.RECONNECTING, attempt=1)
    assert "»" not in screen.text()


def test_counts_of_thousands_are_grouped(run: Script, screen: Screen) -> None:
    run.begin(1200)
    for number in range(1000):
        run.complete(number)
    assert screen.lines()[2].startswith("1,000 of 1,200 done")


def test_a_stall_says_why(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.live()
    run.start(0)
    calm = screen.lines()
    run.now += 42
    run.stall()
    lines = screen.lines()
    assert lines[3] == "! no progress for 0:42: the server accepts no bytes"
    assert lines[4] == calm[4].replace("   10.0 MiB            –", "  no progress 0:42"), "the file keeps its row"
    run.put(ev.BodySent((0,)))
    run.now += 60
    run.stall()
    assert "! no progress for 1:00: everything is sent, waiting for the server's response" in screen.lines()


def test_a_pause_counts_down(run: Script, screen: Screen) -> None:
    run.begin(1)
    run.put(ev.Paused(843.0, ev.PauseReason.RATE_LIMIT))
    assert "! rate limited: waiting 14:03" in screen.lines()
    assert " left" not in screen.text()
    run.now += 844
    assert "rate limited" not in screen.text()


def test_outage_is_shown_until_it_ends(run: Script, screen: Screen) -> None:
    run.begin(1)
    run.put(ev.Paused(4.0, ev.PauseReason.UNREACHABLE, 17.0))
    assert "! paused, server unreachable 0:17, next try in 4 s" in screen.lines()
    run.now += 5
    assert "! paused, server unreachable 0:22, trying now" in screen.lines()
    run.put(ev.Paused(0.0, ev.PauseReason.UNREACHABLE))
    assert "paused" not in screen.text()


def test_answered_poll_in_an_outage_is_tried_at_once(run: Script, screen: Screen) -> None:
    """The server is back: the next try is not counted down any more."""
    run.begin()
    run.start(0)
    run.channel(ChannelState.LIVE, ChannelState.POLLING, Transport.HTTP, ev.ChannelReason.DEADLINE)
    run.now += 5
    run.put(ev.Paused(8.0, ev.PauseReason.UNREACHABLE, 3.0))
    assert "! paused, server unreachable 0:03, next try in 8 s" in screen.lines()
    run.now += 1
    run.put(ev.SessionProgress(SESSION, Transport.HTTP, run.now, "uploading"))
    assert "! paused, server unreachable 0:04, trying now" in screen.lines()


def test_pause_of_the_user_is_shown_without_rates(run: Script, screen: Screen) -> None:
    """What is being sent is completed first; after the pause speed is measured again."""
    run.begin(2)
    run.start(0)
    for step in range(1, 5):
        run.now += 1
        run.sent(0, step * MIB)
    run.put(ev.RunPaused())
    assert "! pausing: requests being sent are completed" in screen.lines()
    run.now += 60
    run.stall()
    lines = screen.lines()
    assert lines[2] == "0 of 2 done · 4.0 of 20.0 MiB"
    assert lines[3] == "! paused 1:00, p resumes"
    assert lines[4].endswith(" paused")
    run.put(ev.RunResumed())
    run.now += 1
    run.sent(0, 5 * MIB)
    run.stall()
    assert screen.lines()[2].endswith(" 1.0 MiB/s · 0:15 left")
    assert "!" not in screen.text()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_list_of_failures_takes_all_rows(run: Script, screen: Screen, width: int, height: int) -> None:
    screen.frame.expanded = True
    run.begin(40)
    assert "no file has failed" in screen.lines(80)
    run.start(0)
    for number in range(1, 31):
        run.fail(number)
    lines = screen.lines(width, height)
    assert min(height - 2, 33) <= len(lines) <= min(height - 1, 34), "a failure has one row, or two"
    assert all(cell_len(line) <= width for line in lines)
    if height > 5:
        shown = sum(line.startswith("✗") for line in lines)
        assert f"  … {30 - shown} earlier" in lines or shown == 30
        assert lines[-1].startswith("✗ film-0030") or width < 30


def test_stale_progress_shows_its_age(run: Script, screen: Screen) -> None:
    run.begin(1)
    run.put(ev.SessionProgress(SESSION, Transport.HTTP, None, "uploading"))
    run.now += 7
    run.put(ev.PollFailed(SESSION, "no answer within 5 s"))
    assert "! no update for 7 s (no answer within 5 s)" in screen.lines()


def test_watched_session_is_shown_in_percent(run: Script, screen: Screen) -> None:
    run.put(ev.RunStarted("http://h:1", None, None, 1, "watch"), ev.SessionWatched("s-1"))
    files = (ev.FileStatus("a.mp4", "uploading", 45.0), ev.FileStatus("b.mp4", "completed", 100.0))
    run.put(ev.SessionProgress("s-1", Transport.WEBSOCKET, 1.0, "uploading", 60.0, 1, 0, 2, files))
    for width, height in SIZES:
        assert all(cell_len(line) <= width for line in screen.lines(width, height))
    lines = screen.lines()
    assert lines[1].endswith("─  60 %")
    assert lines[2].startswith("1 of 2 done")
    assert "uploading 45 %" in lines[4]
    assert "✓ b.mp4" in screen.text()


def test_watched_session_is_shown_in_bytes_where_the_server_tells_them(run: Script, screen: Screen) -> None:
    """What arrived before the watch began is no speed."""
    run.put(ev.RunStarted("http://h:1", None, None, 1, "watch"), ev.SessionWatched("s-1"))
    for second, (arrived, file) in enumerate(((12, 2), (14, 4), (16, 6)), 1):
        files = (ev.FileStatus("a.mp4", "uploading", 10.0 * file, bytes=file << 20, size=10 << 20),)
        progress = {"files": files, "bytes": arrived << 20, "size": 40 << 20}
        run.now += 1
        run.put(ev.SessionProgress("s-1", Transport.WEBSOCKET, second, "uploading", 90.0, 9, 0, 10, **progress))  # type: ignore[arg-type]
    lines = screen.lines()
    assert lines[1].endswith("  40 %")
    assert lines[2].startswith("9 of 10 done · 16.0 of 40.0 MiB · 2.0 MiB/s · 0:12 left")
    assert re.search(r"a.mp4 .* 60 % +10.0 MiB +2.0 MiB/s +0:02 left", lines[4])


def test_watched_sessions_weigh_as_many_files_as_they_have(run: Script, screen: Screen) -> None:
    """A small completed session adds little to the total; a failed file adds nothing."""
    run.put(ev.RunStarted("http://h:1", None, None, 1, "watch"), ev.SessionWatched("s-1"), ev.SessionWatched("s-2"))
    run.put(ev.SessionProgress("s-1", Transport.WEBSOCKET, 1.0, "completed", 100.0, 1, 0, 1))
    run.put(ev.SessionProgress("s-2", Transport.WEBSOCKET, 1.0, "uploading", 37.0, 30, 0, 99))
    assert screen.lines()[1].endswith("  37 %")
    run.put(ev.SessionProgress("s-2", Transport.WEBSOCKET, 2.0, "uploading", 80.0, 30, 49, 99))
    assert screen.lines()[1].endswith("  61 %")  # 1 + 30.2 of 51


# --- on a console ----------------------------------------------------------------------------------------------------


def console(width: int = 80, height: int = 24, **more: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=height, _environ={}, **more)  # type: ignore[arg-type]


def out(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_it_draws_at_most_ten_frames_a_second() -> None:
    terminal = console()
    run = Script(LiveView(terminal))
    run.begin()
    for _ in range(500):
        run.tick(0.01)
    assert 40 <= out(terminal).count("uploader") <= 51


def test_a_caller_with_jitter_still_gets_ten_frames() -> None:
    terminal = console()
    run = Script(LiveView(terminal))
    run.begin()
    for step in range(50):
        run.tick(0.1 + (0.001 if step % 2 else -0.001))
    assert out(terminal).count("uploader") >= 49


def test_window_title_says_that_the_server_processes_the_last_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not 99 %, which would be of bytes: the server has all of them."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = console()
    monkeypatch.setattr(terminal.file, "isatty", lambda: True)
    run = Script(LiveView(terminal))
    run.begin(files=2)
    run.start(0, 1)
    run.tick()  # the first frame of a terminal waits
    titles = []
    for step in range(2):
        run.sent(step, 10 * MIB)
        run.put(ev.BodySent((step,)))
        run.tick(2.0)
        run.tick()
        titles.append(re.findall(r"\x1b\]2;(.*?)\x1b", out(terminal))[-1])
    assert titles == ["50 % 2 files – uploader", "processing 2 files – uploader"]


def test_close_restores_the_terminal() -> None:
    """Everything from the place on where the view begins is erased; closing twice is harmless."""
    terminal = console()
    run = Script(LiveView(terminal))
    run.begin()
    run.start(0, 1)
    run.tick()
    drawn = out(terminal)
    assert run.view is not None
    run.view.close(run.state, run.now)
    run.view.close(run.state, run.now)
    rest = out(terminal)[len(drawn) :]
    assert drawn.endswith("\x1b8\x1b[?7h\x1b[?25h\x1b[?2026l")  # the cursor is where the view begins
    assert rest == "\r\x1b[K\x1b[C\x1b[J\r"


def test_close_before_the_first_frame() -> None:
    terminal = console()
    view = LiveView(terminal)
    view.close(Script().state, 0.0)
    assert out(terminal) == ""


def test_hostile_names_bring_no_control_codes_of_their_own() -> None:
    terminal = console(120, 60)
    run = Script(LiveView(terminal))
    busy(run, HOSTILE)
    run.tick()
    codes = re.findall(CODE, out(terminal))
    plain = re.sub(CODE, "", out(terminal)).replace("\r", "")
    assert {code[-1] for code in codes} <= set("mhlABKJD78")
    assert plain.isprintable()


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_view_has_signs_of_ascii_where_the_terminal_has_no_utf8(width: int) -> None:
    """Rows keep their width, whatever the names."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii")
    run = Script(LiveView(Console(file=stream, force_terminal=True, width=width, height=40, _environ={})))
    busy(run, HOSTILE)
    run.tick()
    rows = re.sub(CODE, "", written.getvalue().decode("ascii")).strip("\r").split("\r")
    assert all(len(row) <= width for row in rows)
    assert {"#", "-"} <= set(rows[1])
    assert not any("\\u" in row for row in rows[:3])
    assert any(row.startswith("^ ") for row in rows)


@pytest.mark.parametrize("color", [True, False])
def test_colour_only_on_request(color: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    run = Script(LiveView(stream, color=color))
    run.begin()
    run.start(0)
    run.tick()
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-7]m", stream.getvalue())) is color


def test_silent_server_is_named_within_a_second(run: Script, screen: Screen) -> None:
    run.put(ev.RunStarted("http://127.0.0.1:8765", 1, 10 * MIB, 4, "auto"), ev.FileSelected(0, "a.mp4", 10 * MIB))
    run.put(ev.SelectionEnded())
    for seconds, words in [(1, "connecting to 127.0.0.1:8765"), (6, "no answer from 127.0.0.1:8765 for 7 s")]:
        run.now += seconds
        assert f"! {words}" in screen.lines(), seconds
        assert words in progress_line(run.state, run.now)
    run.put(ev.CallMade("GET", "http://127.0.0.1:8765/health", None, 200, 7.0, None))
    assert "!" not in screen.text()


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_run_that_stands_still_says_so_without_rates_and_ends(
    run: Script, screen: Screen, width: int, height: int
) -> None:
    """Rows, total, channel and notice agree; all measure anew when it goes on."""
    run.begin(2)
    run.live(None)
    run.start(0, 1)
    for step in range(1, 31):
        run.now += 0.1
        run.sent(0, step * MIB // 10)
        run.sent(1, step * MIB // 10)
    run.now += 4.9
    assert "no progress" not in screen.text(width, height)
    run.now += 1
    text = screen.text(width, height)
    assert not re.search(r"B/s|\d left|live", text)
    if height > 6:
        assert text.count("no progress") == 3
    if width >= 60:
        assert "! no progress for 0:05: the server accepts no bytes" in text.splitlines()
        assert text.splitlines()[0].split()[-3:] == ["no", "answer", "0:08"]
    run.now += 60
    for step in range(1, 21):
        run.now += 0.1
        run.sent(0, (30 + step) * MIB // 10)
        run.sent(1, (30 + step) * MIB // 10)
    assert run.state.rate(run.now) == pytest.approx(2 * MIB, rel=0.1)
    assert "no progress" not in screen.text(width, height)


def test_hanging_file_has_no_rate_beside_one_that_moves(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.start(0, 1)
    run.sent(1, MIB)
    for step in range(1, 81):
        run.now += 0.1
        run.sent(0, step * MIB // 10)
    assert [line.endswith(" left") for line in screen.lines()[4:6]] == [True, False]
    assert screen.lines()[5].endswith("  10 %  no progress 0:07")
    assert "! no progress" not in screen.text()


def test_run_whose_files_all_wait_for_an_answer_has_no_rate(run: Script, screen: Screen) -> None:
    """Neither while they are processed nor while they wait to be tried again; a part of the files is still to come."""
    run.begin(6)
    run.start(0, 1)
    for step in range(1, 31):
        run.now += 0.1
        run.sent(0, step * MIB // 3)
        run.sent(1, step * MIB // 3)
    run.put(ev.BodySent((0,)), ev.FileRetry(1, 2, 9.0, FailureCode.SERVER_ERROR, "the server answered 500"))
    run.now += 2.1
    assert not re.search(r"B/s|\d left", screen.text())


def test_name_of_a_failure_has_a_row_of_its_own_where_it_takes_more_than_half(run: Script, screen: Screen) -> None:
    run.begin(2, names=["video-from-the-mountains-01.mp4", "b.mp4"])
    why = "no space left " * 3
    run.put(ev.FileFailed(0, "video-from-the-mountains-01.mp4", FailureCode.NETWORK, why, retryable=False))
    assert screen.lines(40)[-3:] == [
        "✗ video-from-the-mountains-01.mp4",
        "    no space left no space left no space",
        "    left",
    ]


@pytest.mark.parametrize("width", [20, 23, 40, 60])
def test_number_of_failures_is_shown_at_every_width(run: Script, screen: Screen, width: int) -> None:
    run.begin(30)
    run.start(*range(6))
    for number in range(5):
        run.complete(number)
    run.fail(5)
    assert all(words in screen.text(width) for words in ("5 of 30 done", "1 failed", " of 290.0 MiB"))


def test_pace_is_of_more_files_than_a_few(run: Script, screen: Screen) -> None:
    run.begin(12)
    run.start(*range(12))
    for number in range(12):
        run.now += 0.3
        run.complete(number)
        assert ("files/s" in screen.text()) is (number >= 5), number


def test_call_that_is_repeated_before_the_first_file_counts_down_with_its_reason(run: Script, screen: Screen) -> None:
    """Nothing else is on the screen that moves."""
    run.begin()
    run.put(ev.CallRepeats(7.0, "the server failed: 503 BUSY, request ab12-0001 (later)"))
    run.now += 2.2
    words = "next try in 5 s: the server failed: 503 BUSY (later)"
    assert f"! {words}" in screen.lines()
    assert words in progress_line(run.state, run.now)
    assert "! next try 5 s: the server failed: 503 …" in screen.lines(40)
    run.now += 5.5
    assert "! trying now: " in screen.text()
    run.start(0)
    assert "trying now" not in screen.text()


def test_rate_limit_is_said_once(run: Script, screen: Screen) -> None:
    run.begin()
    run.start(0)
    run.put(ev.Paused(8.0, ev.PauseReason.RATE_LIMIT))
    run.put(ev.RunWarning(ev.WarningCode.RATE_LIMITED, "rate limited: waiting 8 s as the server asked"))
    assert screen.text().count("rate limited") == 1


def test_file_that_waits_for_its_turn_in_a_batch_is_not_called_hanging(run: Script, screen: Screen) -> None:
    run.begin(2)
    run.start(0, 1)
    for step in range(1, 81):
        run.now += 0.1
        run.sent(0, step * MIB // 10)
    assert "no progress" not in screen.text()


def test_retry_that_begins_now_has_no_countdown(run: Script, screen: Screen) -> None:
    run.begin(1)
    run.start(0)
    run.put(ev.FileRetry(0, 2, 4.0, FailureCode.NETWORK, "connection reset"))
    run.now += 3.8
    assert "retry 1 · connection reset" in screen.text()
