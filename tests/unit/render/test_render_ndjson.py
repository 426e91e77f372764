"""The event stream and its schema."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import subprocess
import sys
from collections import Counter
from select import PIPE_BUF
from typing import Any

import feature_samples
import pytest
from jsonschema import Draft202012Validator, ValidationError
from unit.render.render_script import HOSTILE, MIB, SESSION, Script

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelReason, ChannelState, FailureCode, Phase, Transport
from uploader_cli.core.plan import LocalFile
from uploader_cli.render.event_schema import schema_text
from uploader_cli.render.ndjson import NdjsonView

SCHEMA: dict[str, Any] = json.loads(schema_text())
VALIDATOR = Draft202012Validator(SCHEMA)
EPOCH = 1_795_564_737.0


@pytest.mark.parametrize("name", ["\x7f", "\x9b31m", "\u202egpj.exe\u2066", "\u2028x"])
def test_control_characters_are_json_escapes(name: str) -> None:
    """They are escapes of JSON, so the value is what it was."""
    out = io.StringIO()
    view = NdjsonView(out, "run-1", lambda: EPOCH)
    Script(view).put(ev.RunStarted("http://h", 1, 5, 1, "tus"), ev.FileSelected(0, name, 5))
    view.handle(ev.FileFailed(0, name, FailureCode.VANISHED, name, retryable=False), Script().state, 0.0)
    view.refresh(Script().state, 0.0)
    last = out.getvalue().splitlines()[-1]
    assert last.isprintable()
    assert json.loads(last)["path"] == name


class Stream(Script):
    """A run into an event stream; the wall clock goes with the run's."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        super().__init__(NdjsonView(self.stream, "r-1", lambda: EPOCH + self.now), start=0.0)

    @property
    def lines(self) -> list[dict[str, Any]]:
        assert self.view is not None
        self.view.close(self.state, self.now)  # writes what waits for the end of the frame
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["type"] == kind]


INTERNAL = {
    "gone",
    "link",
    "stored",
    "forgotten",
    "left_out",
    "elsewhere",
    "wire_name",
    "packed",
    "file_path",
    "local",
    "relative_path",
    "kinds",
    "first",
    "finishes_late",
}
EVENTS: list[ev.Event] = [
    ev.RunStarted("http://h:1", None, None, 4, "batch"),
    ev.RunStarted("http://h:1", 2, 10, 4, "tus", "r-0"),
    ev.SessionCreated("s", "personal", 2),
    ev.SessionFinished("s", "completed"),
    ev.FileStarted(0, "a", 5, "s", 0, 1, "wire"),
    ev.FileProgress(0, 1, 3, 0, 5, 1.5, Phase.SENDING),
    ev.FileProgress(0, 1, 3, 0, None, 0.0, Phase.PROCESSING, 45.5),
    ev.FileRetry(0, 2, 1.5, FailureCode.NETWORK, "reset"),
    ev.FileCompleted(0, "a", 5, None, None, False, 1, 0.1),
    ev.FileCompleted(0, "a", 5, "id", "/x", True, 2, 0.1, "sha256:00", verified_by=ev.VerifiedBy.BYTES),
    ev.FileFailed(0, "b\udcff", FailureCode.OUTCOME_UNKNOWN, "who knows", False),
    ev.FileSkipped(0, "a", ev.SkipReason.EMPTY),
    ev.ChannelChanged(ChannelState.CONNECTING, ChannelState.LIVE, Transport.WEBSOCKET, ChannelReason.CONNECTED),
    ev.ChannelChanged(ChannelState.LIVE, ChannelState.RECONNECTING, None, ChannelReason.LOST, 1, 12.5),
    ev.ServerMessage("正在上传"),
    ev.RunWarning(ev.WarningCode.STALLED, "nothing moves"),
    ev.RunPaused(),
    ev.RunResumed(),
    ev.RunFinished(True, 1, 0, 0, 0, 5, 1.0, 5.0, 0, ev.ChannelStats(None, 1, 2, 3, 4), 1000),
    *feature_samples.EVENTS.values(),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_each_event_is_a_valid_line(event: ev.Event) -> None:
    run = Stream()
    assert run.view is not None
    run.view.handle(event, run.state, 0.0)
    (line,) = run.lines
    VALIDATOR.validate(line)
    assert list(line)[:5] == ["v", "seq", "run", "ts", "type"]
    assert line["type"] == event.type


def test_examples_cover_every_public_event() -> None:
    assert {type(event) for event in EVENTS} == set(ev.public_events())


def test_schema_knows_exactly_the_public_events() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    kinds = {option["properties"]["type"]["const"] for option in SCHEMA["oneOf"]}
    assert kinds == {event.type for event in ev.public_events()}
    assert all(option["additionalProperties"] is False for option in SCHEMA["oneOf"])


def test_schema_requires_the_fields_that_are_never_omitted() -> None:
    """It has each field of an event with everything set, but no internal one."""
    by_type = {option["title"]: option for option in SCHEMA["oneOf"]}
    for kind in ev.public_events():
        option = by_type[kind.type]
        fields = {field.name.rstrip("_") for field in dataclasses.fields(kind)} - INTERNAL
        always = set.intersection(*(set(ev.as_fields(event)) for event in EVENTS if type(event) is kind))
        common = {"v", "seq", "run", "ts", "type"}
        assert set(option["properties"]) - common - {"path_b64"} == fields
        assert set(option["required"]) == always | common


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"seq": 0}, {"ts": "2026-01-01T00:00:00Z"}, {"code": "other"}, {"extra": 1}, {"type": "file.lost"}],
)
def test_schema_refuses_unknown_fields_and_values(change: dict[str, Any]) -> None:
    run = Stream()
    assert run.view is not None
    run.view.handle(ev.RunWarning(ev.WarningCode.STALLED, "x"), run.state, 0.0)
    with pytest.raises(ValidationError):
        VALIDATOR.validate(run.lines[0] | change)


def test_sequence_time_and_run() -> None:
    run = Stream()
    run.begin(2)
    run.tick(0.25)
    run.start(0)
    run.complete(0)
    run.end()
    assert [line["seq"] for line in run.lines] == list(range(1, len(run.lines) + 1))
    assert {line["run"] for line in run.lines} == {"r-1"}
    assert run.lines[0]["ts"] == "2026-11-24T23:58:57.000Z"
    assert run.of("file.started")[0]["ts"] == "2026-11-24T23:58:57.250Z"


def test_at_most_four_progress_lines_a_second_and_the_newest_is_not_lost() -> None:
    run = Stream()
    run.begin(1, size=1000)
    run.start(0, size=1000)
    for step in range(1, 501):
        run.tick(0.01)
        run.sent(0, step)
    run.tick(1)
    progress = run.of("file.progress")
    stamps = [line["ts"] for line in progress]
    assert len(progress) >= 12
    assert max(Counter(stamp[:19] for stamp in stamps).values()) <= 4
    assert progress[-1]["sent"] == 500
    assert [line["sent"] for line in progress] == sorted(line["sent"] for line in progress)


def test_last_progress_line_comes_before_the_end_of_a_file() -> None:
    run = Stream()
    run.begin(1)
    run.start(0)
    for step in range(1, 11):
        run.tick(0.001)
        run.sent(0, step * MIB)
    run.complete(0)
    assert [line["type"] for line in run.lines[-3:]] == ["file.progress", "file.progress", "file.completed"]
    assert run.lines[-2]["confirmed"] == 10 * MIB
    assert not run.view.files  # type: ignore[union-attr]


def test_stream_always_has_a_cancelled_file() -> None:
    run = Stream()
    run.begin(1)
    run.start(0)
    run.sent(0, 1)
    run.sent(0, 2)
    run.put(ev.FilesCancelled((0,), (LocalFile(0, "f0.mp4", "f0.mp4", 1, 0),)))
    run.tick(1)
    assert [line["phase"] for line in run.of("file.progress")] == ["sending", "cancelled"]


def test_progress_that_is_due_replaces_the_pending_one() -> None:
    """Between two frames."""
    run = Stream()
    run.begin(1)
    run.start(0)
    for mebibytes in (1, 2, 3):
        run.sent(0, mebibytes * MIB)
        run.now += 0.2
    run.tick(1)
    assert [line["sent"] for line in run.of("file.progress")] == [MIB, 3 * MIB]


def test_pending_progress_of_an_ended_attempt_is_dropped() -> None:
    run = Stream()
    run.begin(1)
    run.start(0)
    run.sent(0, 5 * MIB)
    run.sent(0, 9 * MIB)
    run.put(ev.FileRetry(0, 2, 0.1, FailureCode.NETWORK, "reset"))
    run.tick(0.5)
    run.start(0, attempt=2)
    run.sent(0, MIB, attempt=2)
    run.tick(1)
    assert [(line["attempt"], line["sent"]) for line in run.of("file.progress")] == [(1, 5 * MIB), (2, MIB)]


def test_pending_progress_is_written_before_the_last_line() -> None:
    run = Stream()
    run.begin(1)
    run.start(0)
    run.sent(0, 1)
    run.sent(0, 2)
    run.end(130)
    run.put(ev.RunWarning(ev.WarningCode.STALLED, "late"))
    run.tick(1)
    assert [line["type"] for line in run.lines[-2:]] == ["file.progress", "run.finished"]
    assert run.lines[-2]["sent"] == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_stream_keeps_any_name(name: str) -> None:
    run = Stream()
    run.begin(names=[name])
    run.start(0, names=[name])
    run.put(ev.FileFailed(0, name, FailureCode.NETWORK, f"no {name}", retryable=True))
    run.stream.getvalue().encode("utf-8")
    for line in run.lines:
        VALIDATOR.validate(line)
    (failed,) = run.of("file.failed")
    if name.isprintable():
        assert failed["path"] == name
    if "path_b64" in failed:
        assert (
            base64.b64decode(failed["path_b64"]).decode(
                "utf-8", "surrogateescape" if "\udcff" in name else "surrogatepass"
            )
            == name
        )
    else:
        assert failed["path"] == name


def test_only_undecodable_names_come_as_bytes_too() -> None:
    run = Stream()
    run.put(ev.FileSkipped(0, "b\udcff.bin", ev.SkipReason.TYPE), ev.FileSkipped(1, "测试.bin", ev.SkipReason.TYPE))
    first, second = run.lines
    assert first["path"] == "b\\xff.bin"
    assert base64.b64decode(first["path_b64"]) == b"b\xff.bin"
    assert second["path"] == "测试.bin"
    assert "path_b64" not in second
    assert "测试" in run.stream.getvalue()


def test_bytes_are_utf8_whatever_the_encoding_of_the_stream() -> None:
    raw = io.BytesIO()
    run = Script(NdjsonView(io.TextIOWrapper(raw, encoding="latin-1"), "r", lambda: 0.0))
    run.put(ev.ServerMessage("正在上传"))
    run.tick()
    assert json.loads(raw.getvalue().decode("utf-8"))["text"] == "正在上传"


def test_each_write_has_whole_lines_and_fits_into_a_pipe() -> None:
    """A reader of a killed run gets no part of a line, unless the line is longer than what a pipe takes at once."""
    written = []

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, piece: Any) -> int:
            written.append(bytes(piece))
            return len(piece)

    run = Script(NdjsonView(io.TextIOWrapper(io.BufferedWriter(Pipe())), "r", lambda: 0.0))
    run.put(*(ev.ServerMessage("x" * length) for length in [10] * 100 + [5000] + [300] * 100))
    run.tick()
    assert all(piece.endswith(b"\n") for piece in written)
    assert [piece.count(b"\n") for piece in written if len(piece) > PIPE_BUF] == [1]
    assert b"".join(written).count(b"\n") == 201


def test_lines_of_a_frame_are_flushed_at_its_end_and_the_last_line_at_once() -> None:
    flushed = []

    class Counting(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue().count("\n"))

    run = Script(NdjsonView(Counting(), "r", lambda: 0.0))
    run.put(ev.ServerMessage("a"), ev.ServerMessage("b"))
    assert flushed == []
    run.tick()
    run.tick()
    assert flushed == [2]
    run.end()
    assert flushed == [2, 3]


def test_a_large_batch_is_written_in_parts() -> None:
    run = Stream()
    run.put(*(ev.RunWarning(ev.WarningCode.STALLED, "x") for _ in range(2500)))
    assert run.stream.getvalue().count("\n") == 2000
    assert [line["seq"] for line in run.lines] == list(range(1, 2501))


def test_lines_of_a_run_that_breaks_are_written_at_its_end() -> None:
    stream = io.StringIO()
    run = Script(NdjsonView(stream, "r", lambda: 0.0))
    run.put(ev.ServerMessage("a"))
    assert run.view is not None
    run.view.close(run.state, run.now)
    run.view.close(run.state, run.now)
    assert stream.getvalue().count("\n") == 1


def test_closed_pipe_raises_once() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    run = Script(NdjsonView(Closed(), "r", lambda: 0.0))
    run.put(ev.ServerMessage("a"))
    with pytest.raises(BrokenPipeError):
        run.tick()
    assert run.view is not None
    run.view.close(run.state, run.now)  # the run closes its observers on the way out


def test_a_watched_file_has_no_size() -> None:
    run = Stream()
    run.put(ev.SessionWatched(SESSION))
    files = (ev.FileStatus("a.mp4", "uploading", 45.0),)
    run.put(ev.SessionProgress(SESSION, Transport.WEBSOCKET, 1.0, "uploading", 60.0, 1, 0, 2, files))
    (progress,) = run.of("file.progress")
    assert progress["size"] is None
    assert progress["server_percent"] == 45.0


def test_lines_and_streams_don_t_load_rich() -> None:
    code = (
        "import sys, uploader_cli.render.plain, uploader_cli.render.ndjson, uploader_cli.render.summary;"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
