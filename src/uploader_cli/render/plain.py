"""Lines for a pipe, a log or a CI job, limited in number."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from uploader_cli.core import events as ev
from uploader_cli.core.state import Observer, ProgressState
from uploader_cli.feature import words_of
from uploader_cli.render import overview
from uploader_cli.render.feature_views import views
from uploader_cli.render.words import clock, plural, safe, size, span

FILES_LISTED = 20  # maximum number of files with a line each
CONNECTS = 1.0  # seconds after which a line says that the channel is still being connected
CONNECTING = "connecting"
_SLOWEST = 60.0
FAILURE_LINES = 50  # maximum lines about failures unless verbose
OTHER_LINES = 50  # maximum number of lines of each other kind
_LIMITS = {"failure": FAILURE_LINES, "file": FILES_LISTED, "retry": 30, "channel": 30, "warning": 20, "recovery": 20}
"""Maximum lines of each kind unless verbose; progress lines and the summary include the rest."""


class PlainView(Observer):
    """Prints one line per event. `verbose` 1 adds each file, 2 the server's messages; `quiet` shows only problems."""

    def __init__(
        self, stream: TextIO, *, verbose: int = 0, quiet: bool = False, interval: float = 5.0, annotated: int = 0
    ) -> None:
        """`interval`: minimum seconds between progress lines, which grow to one minute in a long run.

        `annotated` is the number of failures that annotations show.
        """
        self._stream = stream
        self._verbose = verbose
        self._quiet = quiet
        self._interval = interval
        self._annotated = annotated
        self._due: float | None = None
        self._lines: Counter[str] = Counter(failure=annotated)
        self._channel = ""
        self._dialled: float | None = None  # the time of its start, until it is connected or fails
        self._waits = False
        self._said: set[str] = set()  # lines of features that are printed once

    def handle(self, event: ev.Event, state: ProgressState, now: float) -> None:
        few = self._verbose or state.incomplete is not None or (state.selected <= FILES_LISTED and not state.walking)
        match event:
            case ev.FileProgress() | ev.CallMade() | ev.FileEnded():  # the most frequent ones
                return
            case ev.FileStarted() if self._verbose > 1:
                self._say(f"  {safe(event.path)}: {f'resumed at {size(event.offset)}' if event.offset else 'started'}")
            case ev.FileStarted() if event.offset and event.size and event.attempt == 1 and few:
                self._say(f"↻ {safe(event.path)}: resuming at {overview.percent(event.offset / event.size).strip()}")
            case ev.FileRetry():
                self._retry(event, state)
            case ev.FileCompleted() if few:
                known = "" if event.size is None else f"{size(event.size)}, "
                name = f", stored as {safe(event.stored_as)}" if event.stored_as else ""
                self._say(f"✓ {safe(event.path)} ({known}{span(event.seconds)}{name}{_added(event)})", kind="file")
            case ev.FileFailed() if state.failed > self._annotated:
                self._say(f"✗ {safe(event.path)}: {_brief(event.message)}", kind="failure", wrong=True)
            case ev.FileSkipped() if self._verbose or (few and event.reason is not ev.SkipReason.NOT_TRIED):
                self._say(f"- {safe(event.path)}: skipped ({event.reason}{_added(event)})", kind="skip")
            case ev.FileStarted() | ev.FileCompleted() | ev.FileFailed() | ev.FileSkipped():
                return
            case _:
                self._of_the_run(event, state, now)

    def _of_the_run(self, event: ev.Event, state: ProgressState, now: float) -> None:
        match event:
            case ev.RunStarted():
                self._started(event)
            case ev.SessionCreated() if self._verbose:
                self._say(f"session {safe(event.session)}: {plural(event.files, 'file')}, {safe(event.category)}")
            case ev.SessionFinished() if state.watched:
                self._say(f"session {safe(event.session)}: {safe(event.status)}", kind="session")
            case ev.ServerMessage() if self._verbose > 1:
                self._say(f"server: {_brief(event.text)}", kind="message")
            case ev.ChannelChanged():
                self._channel_line(event, state, now)
            case ev.RunWarning(ev.WarningCode.RECOVERED):
                self._say(f"✓ {_brief(event.text)}", kind="recovery")
            case ev.RunWarning(ev.WarningCode.DEADLINE):
                pass  # the summary names it
            case ev.RunWarning() if not (self._annotated and event.code is ev.WarningCode.RUN_ENDED):
                self._say(f"warning: {_brief(event.text)}", kind="warning", wrong=True)
        for view, own in views(state):
            for line in view.lines(event, own, now, verbose=self._verbose > 0):
                self._say(line, kind=event.type)

    def refresh(self, state: ProgressState, now: float) -> None:
        if self._quiet or not state.server or state.outcome is not None:
            return
        if state.waiting:
            self._wait(state)
            return
        self._waits = False
        for line in (line for view, own in views(state) for line in view.once(own) if line not in self._said):
            self._said.add(line)
            self._say(line)
        if self._dialled is not None and now - self._dialled >= CONNECTS and state.sessions:
            self._dialled, self._channel = None, CONNECTING
            self._say(f"channel: {CONNECTING}", kind="channel")
        if self._due is None:
            self._due = now + self._interval
        if now < self._due:
            return
        self._due = now + max(self._interval, min(_SLOWEST, (now - state.started) / 20))
        self._say(progress_line(state, now))

    def _wait(self, state: ProgressState) -> None:
        """Print once that nothing is left to send; the limits of lines count anew."""
        if not self._waits:
            self._waits, self._due = True, None
            self._lines = Counter(failure=self._annotated)
            self._say(overview.waiting(state))

    def _started(self, event: ev.RunStarted) -> None:
        if event.protocol == "watch":
            self._say(f"uploader: watching sessions on {overview.host(event.server)}")
            return
        what = "uploading" if event.files is None else plural(event.files - event.left_out, "file")
        what += f", {size(event.bytes)}" if event.bytes is not None else ""
        resumed = f", resuming run {safe(event.resumed_from)}" if event.resumed_from else ""
        how = "" if event.protocol == "auto" else f" ({safe(event.protocol)}, {event.jobs} in parallel)"
        self._say(f"uploader: {what} → {overview.host(event.server)}{how}{resumed}")

    def _retry(self, event: ev.FileRetry, state: ProgressState) -> None:
        file = state.running.get(event.file)
        path = safe(file.path) if file is not None else f"file {event.file}"
        wait = f" in {clock(event.delay + 0.5)}" if event.delay >= 0.5 else ""
        self._say(f"↻ {path}: retry {event.attempt - 1}{wait} ({_brief(event.message)})", kind="retry")

    def _channel_line(self, event: ev.ChannelChanged, state: ProgressState, now: float) -> None:
        """Print a change of the channel, once there is a session of which it may tell.

        That it connects is printed only if that takes `CONNECTS`, and its end only where nothing came of that.
        """
        if event.to is ev.ChannelState.CONNECTING:
            self._dialled = now if self._dialled is None else self._dialled
            return
        self._dialled, words = None, overview.channel(state, now)[1]
        if not state.sessions and event.to is not ev.ChannelState.LIVE:
            return
        if event.to is ev.ChannelState.CLOSED:
            words = "closed before it was connected" if self._channel == CONNECTING else self._channel
        if words == self._channel:
            return
        self._channel = words
        known = event.to in (ev.ChannelState.LIVE, ev.ChannelState.CLOSED) or not event.reason
        self._say(f"channel: {words}" + ("" if known else f" ({event.reason.replace('_', ' ')})"), kind="channel")

    def _say(self, line: str, *, kind: str = "", wrong: bool = False) -> None:
        """Print a line up to the limit of its kind; the first one beyond it announces the limit."""
        if self._quiet and not wrong:
            return
        if kind and (kind == "channel" or not self._verbose):
            limit = _LIMITS.get(kind, OTHER_LINES)
            self._lines[kind] += 1
            if self._lines[kind] > limit + 1:
                return
            if self._lines[kind] > limit:
                line = f"(more than {limit} {kind} lines: further ones are not shown)"
        self._stream.write(line + "\n")
        self._stream.flush()


def progress_line(state: ProgressState, now: float) -> str:
    """Format `42 % · 7 of 20 done · 130.2 of 310.0 MiB · 12.1 MiB/s · 0:15 left · live websocket`."""
    parts = [overview.share(state).strip(), overview.counts(state), overview.failed(state)]
    if not state.watched or state.bytes_through:
        parts += [
            overview.amount(state),
            overview.speed(state, now),
            overview.pace(state, now),
            overview.left(state, now),
        ]
    if state.elsewhere and state.retries:
        parts.append(f"{state.retries:,} retried")
    parts += [overview.finishing(state, now), overview.channel(state, now, latency=False)[1]]
    return " · ".join(filter(None, [*parts, overview.alert(state, now)]))


def _added(event: ev.FileCompleted | ev.FileSkipped) -> str:
    """Return what features say of a file, as the end of a list."""
    return "".join(words.ending(event) for words in words_of(event))


def _brief(text: str) -> str:
    return safe(text[:500])
