"""Parts of the server that need no socket: values, limits, counters and names, with time as an argument."""

from __future__ import annotations

from itertools import islice

import pytest

from uploader_server.config import ServerConfig
from uploader_server.http.middleware import RateLimit
from uploader_server.options import parse_size
from uploader_server.session import Session
from uploader_server.simulation.state import Gate, RealtimeMode
from uploader_server.storage.clock import Clock
from uploader_server.storage.file_state import FileState
from uploader_server.storage.paths import UnsafePathError, candidates, may_become, safe_parts
from uploader_server.wire import extension, is_uuid, js_round, timestamp


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("8M", 8 << 20),
        ("8MiB", 8 << 20),
        ("8MB", 8_000_000),
        ("1.5k", 1536),
        ("2 G", 2 << 30),
        ("3tb", 3 * 10**12),
    ],
)
def test_sizes_are_read_with_their_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "8X", "0", "0.1", "1e9", "8 M B"])
def test_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "on", "flap", "flap:", "flap:x", "flap:-1", "flap:0", "off:1", "kill-after:inf"])
def test_invalid_realtime_modes(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not one of off, refuse, hang, .* kill-after:S \("):
        ServerConfig(websocket=text)


@pytest.mark.parametrize(
    ("mode", "states"),
    [
        (RealtimeMode(), "uuuuuu"),
        (RealtimeMode("off"), "oooooo"),
        (RealtimeMode("refuse"), "rrrrrr"),
        (RealtimeMode("hang"), "hhhhhh"),
        (RealtimeMode("flap", 2.0), "uurruu"),
        (RealtimeMode("kill-after", 3.0), "uuurrr"),
    ],
)
def test_realtime_gate_states_per_second(mode: RealtimeMode, states: str) -> None:
    """The clock starts with the first connection, not with the server."""
    now = 100.0
    gate = Gate(mode, lambda: now)
    setattr(gate, "schedule", lambda: None)  # noqa: B010 - no loop runs here
    assert gate.state()[0] == states[0]
    now = 200.0
    gate.arrive()
    seen = ""
    for second in range(6):
        now = 200.0 + second
        seen += gate.state()[0]
    assert seen == states


def test_rate_limit_restarts_with_each_window() -> None:
    now = 1000.0
    limit = RateLimit(2, 900.0, lambda: now)
    assert [limit.spend("a")[0] for _ in range(3)] == [True, True, False]
    assert limit.spend("b")[0]
    now = 1899.5
    passes, headers = limit.spend("a")
    assert (passes, headers["retry-after"], headers["x-ratelimit-reset"]) == (False, "1", "1900")
    now = 1900.0
    passes, headers = limit.spend("a")
    assert (passes, headers["x-ratelimit-remaining"]) == (True, "1")


def test_rate_limit_drops_old_addresses() -> None:
    now = 1000.0
    limit = RateLimit(2, 900.0, lambda: now)
    for number in range(10):
        limit.spend(f"old {number}")
    now = 1900.0
    limit.spend("new")
    assert len(limit.counts) == 1


def test_no_rate_limit_counts_nothing() -> None:
    assert RateLimit(0, 900.0).spend("a") == (True, {})


def test_taken_names_get_a_number_before_the_suffix() -> None:
    names = list(islice(candidates("a.b.txt", lambda _: False), 3))
    assert names == ["a.b.txt", "a.b (2).txt", "a.b (3).txt"]
    assert next(islice(candidates("plain", lambda _: False), 1, None)) == "plain (2)"


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("n" * 247 + ".mp4", "n" * 247 + " (2).mp4"),
        ("n" * 248 + ".mp4", "n" * 247 + " (2).mp4"),
        ("n" + "é" * 125 + ".mp4", "n" + "é" * 123 + " (2).mp4"),
        ("🙂" * 63, "🙂" * 62 + " (2)"),
        ("n." + "e" * 253, "n." + "e" * 249 + " (2)"),  # hardly an extension
    ],
)
def test_stem_of_a_long_name_is_cut_for_its_number(name: str, second: str) -> None:
    assert list(islice(candidates(name, lambda _: False), 2)) == [name, second]
    assert len(second.encode()) <= 255
    assert may_become(f"d/{name}", f"d/{second}")
    assert not may_become(f"d/{name}", f"e/{second}")
    assert not may_become(f"d/x{name}", f"d/{second}")


@pytest.mark.parametrize("path", ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/./b", "a\0"])
def test_paths_that_leave_the_root_are_refused(path: str) -> None:
    with pytest.raises(UnsafePathError):
        safe_parts(path)


def test_safe_paths_are_divided_into_names() -> None:
    assert safe_parts("videos/a b/…/x..mp4") == ["videos", "a b", "…", "x..mp4"]


@pytest.mark.parametrize(
    ("name", "ending"), [("a.MP4", "mp4"), ("a", ""), (".hidden", ""), ("a.", ""), ("d.d/a", ""), ("a.tar.gz", "gz")]
)
def test_extension_of_a_name_is_in_lower_case(name: str, ending: str) -> None:
    assert extension(name) == ending


def test_rounding_timestamps_and_uuids(subtests: pytest.Subtests) -> None:
    assert [js_round(n) for n in (2.5, 7.5, 2.4, 57.5)] == [3, 8, 2, 58]
    assert len(timestamp()) == len("2026-11-24T23:43:56.640Z")
    assert timestamp().endswith("Z")
    assert is_uuid("2ba25c4c-a0ea-4983-89fc-cf63711e7de2")
    for bad in ("", "x", None, 7, "{2ba25c4c-a0ea-4983-89fc-cf63711e7de2}", "2ba25c4ca0ea498389fccf63711e7de2"):
        with subtests.test(bad=bad):
            assert not is_uuid(bad)


def test_total_progress_with_a_dropped_file_is_100_only_at_the_end() -> None:
    session = Session("id", "personal", 2, Clock(0.0))
    one, two = FileState("one"), FileState("two")
    session.add(one)
    session.advance(one, 99)
    assert session.state()["totalProgress"] == 49
    session.drop(one)
    assert session.state()["totalProgress"] == 0
    for number, state in enumerate((one, two)):
        session.add(state)
        state.status, state.progress = "completed", 100
        session.count(state)
        assert session.state()["totalProgress"] == (50, 99)[number]
        assert session.settle() is (number == 1)
    assert (session.status, session.state()["totalProgress"]) == ("completed", 100)
