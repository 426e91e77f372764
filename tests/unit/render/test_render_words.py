"""Sizes, times and names as people read them."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from unit.render.render_script import HOSTILE

from uploader_cli.render import words


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (310 * 2**20, "310.0 MiB"),
        (1000 * 2**20, "1.0 GiB"),
        (5 * 2**50, "5.0 PiB"),
    ],
)
def test_sizes_are_shown_with_units(count: int, text: str) -> None:
    assert words.size(count) == text


def test_no_size_is_wider_than_its_column() -> None:
    for power in range(1, 500):
        assert len(words.size(1.1**power)) <= words.SIZE_WIDTH


@pytest.mark.parametrize(("done", "text"), [(0, "0.0 of 310.0 MiB"), (155 << 20, "155.0 of 310.0 MiB")])
def test_a_pair_of_sizes_has_one_unit(done: int, text: str) -> None:
    assert words.size_of(done, 310 << 20) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65, "1:05"), (3723, "1:02:03"), (360_000, "4 d 4 h"), (-3, "0:00")]
)
def test_clock_shows_seconds_to_days(seconds: float, text: str) -> None:
    assert words.clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (0.0001, "1 ms"),
        (0.04, "40 ms"),
        (0.42, "0.4 s"),
        (12.3, "12.3 s"),
        (59.99, "1:00"),
        (65, "1:05"),
    ],
)
def test_span_is_shown_in_words(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.mp4", "plain name.mp4"),
        ("a\x1b[31m\x07", "a\\x1b[31m\\x07"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\u3164.mp4", "\\u3164.mp4"),  # a letter that is drawn as a blank
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("b\udcff.bin", "b\\xff.bin"),
        ("lone\ud800", "lone\\ud800"),
        ("cafe\u0301", "caf\u00e9"),
        ("日本語\u3000名", "日本語  名"),
        ("3.00\u202fPM", "3.00 PM"),
        ("❤\ufe0f👍🏽", "❤👍"),
    ],
)
def test_control_characters_of_names_are_escaped(name: str, shown: str) -> None:
    assert words.safe(name) == shown


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_shown_is_printable_and_encodable(name: str) -> None:
    shown = words.safe(name)
    assert shown.isprintable()
    shown.encode("utf-8")


@pytest.mark.parametrize("name", HOSTILE)
def test_cut_names_fit_as_the_terminal_counts(name: str) -> None:
    shown = words.safe(name)
    for width in range(41):
        for cut in (words.clip(shown, width), words.elide(shown, width)):
            assert words.cells(cut) <= width
            assert cell_len(cut) <= width
        assert words.cells(words.pad(shown, width)) == width


@pytest.mark.thorough
def test_width_is_never_below_that_of_the_terminal_library() -> None:
    """Every printable character, as `safe` shows it."""
    shown = (words.safe(chr(code)) for code in range(32, 0x30000) if chr(code).isprintable())
    assert [text for text in shown if words.cells(text) < cell_len(text)] == []


def test_long_name_is_shortened_in_its_middle() -> None:
    assert words.elide("holiday/2024/IMG_0001.mp4", 16) == "holida…_0001.mp4"
    assert words.elide("short.mp4", 16) == "short.mp4"


@pytest.mark.parametrize("name", HOSTILE)
def test_wrapped_lines_fit_and_lose_nothing(subtests: pytest.Subtests, name: str) -> None:
    shown = words.safe(f"the file {name} is not there")
    for width in (20, 40, 80):
        with subtests.test(width=width):
            lines = words.wrap(shown, width, first="✗ ", rest="  ")
            assert all(words.cells(line) <= width for line in lines)
            assert "".join(line[2:] for line in lines).replace(" ", "") == shown.replace(" ", "")
