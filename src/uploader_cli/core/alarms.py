"""Thresholds that warn once when they are crossed and once when they are met again."""

from __future__ import annotations

from uploader_cli.core import events as ev
from uploader_cli.core.events import ChannelState, Phase, WarningCode
from uploader_cli.core.state import ProgressState

FEWEST_TIMES, FEWEST_TRIES = 2, 10
"""Minimum measurements before a warning: one slow response is no latency, one failure no rate."""
CALM = 0.8  # share of a threshold below which an alarm ends, so that it does not flap at the threshold


class Alarms:
    """Checks the state periodically; stores only the raised alarms."""

    def __init__(
        self, *, stall: float = 30.0, latency_ms: float | None = None, error_percent: float | None = None
    ) -> None:
        """`stall`: seconds without progress. None disables an alarm."""
        self._stall, self._latency, self._errors = stall, latency_ms, error_percent
        self._raised: set[WarningCode] = set()

    def look(self, state: ProgressState, now: float) -> list[ev.Event]:
        """Return new warnings and ended alarms; `now` is the run clock."""
        return [*self._of_stall(state, now), *self._of_latency(state), *self._of_errors(state)]

    def _of_stall(self, state: ProgressState, now: float) -> list[ev.Event]:
        idle = now - state.advanced
        if idle >= self._stall and (state.paused(now) or state.waiting):
            return []  # the reason is known
        text = f"no progress for {idle:.0f} s: {why_nothing_moves(state)}"
        return self._judge(WarningCode.STALLED, text, crossed=idle >= self._stall, over=idle < self._stall)

    def _of_latency(self, state: ProgressState) -> list[ev.Event]:
        if self._latency is None:
            return []
        slowest, what = max(_latencies(state), default=(0.0, ""))
        text = f"latency of {slowest:.0f} ms, more than {self._latency:g} ms: {what}"
        crossed, over = slowest > self._latency, slowest < self._latency * CALM
        return self._judge(WarningCode.LATENCY, text, crossed=crossed, over=over)

    def _of_errors(self, state: ProgressState) -> list[ev.Event]:
        tries = state.measures.tries
        if self._errors is None or len(tries) < FEWEST_TRIES:
            return []
        failed = tries.count(False)
        percent = 100 * failed / len(tries)
        text = f"error rate of {percent:.0f} %, more than {self._errors:g} %: {failed} of the last {len(tries)} calls,"
        text += " dials and files failed"
        crossed, over = percent > self._errors, percent <= self._errors * CALM
        return self._judge(WarningCode.ERROR_RATE, text, crossed=crossed, over=over)

    def _judge(self, code: WarningCode, text: str, *, crossed: bool, over: bool) -> list[ev.Event]:
        if crossed and code not in self._raised:
            self._raised.add(code)
            return [ev.RunWarning(code, text)]
        if over and code in self._raised:
            self._raised.remove(code)
            return [ev.AlarmOver(code)]
        return []


def _latencies(state: ProgressState) -> list[tuple[float, str]]:
    measures, channel = state.measures, state.channel
    both = ((measures.latencies, "the server responds slowly"), (measures.lags, "the server's messages arrive late"))
    found = [(sum(times) / len(times), what) for times, what in both if len(times) >= FEWEST_TIMES]
    if channel.state is ChannelState.LIVE and channel.latency_ms is not None:
        found.append((channel.latency_ms, "connecting was slow"))
    return found


def why_nothing_moves(state: ProgressState) -> str:
    files = state.running.values()
    if state.unsized and all(file.sent == file.confirmed for file in files):
        return "no more input arrives"
    if any(file.phase is Phase.SENDING and file.size is not None and file.sent < file.size for file in files):
        return "the server accepts no bytes"
    if any(file.phase in (Phase.SENDING, Phase.PROCESSING) and file.size is not None for file in files):
        waits = "the server is finishing" if state.finishes_late else "waiting for the server's response"
        return f"everything is sent, {waits}"
    if any(file.phase is Phase.QUEUED for file in files):
        return "waiting to retry"
    return f"{state.checking} is being compared with the list" if state.checking else "no message from the server"
