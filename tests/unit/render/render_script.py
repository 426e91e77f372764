"""A scripted run: events go through the real reducer into a renderer, with a clock that the test sets."""

from __future__ import annotations

from uploader_cli.core import events as ev
from uploader_cli.core.alarms import Alarms
from uploader_cli.core.reducer import reduce
from uploader_cli.core.state import Observer, ProgressState

MIB = 1 << 20
SESSION = "2ba25c4c-a0ea-4983-89fc-cf63711e7de2"

HOSTILE = [
    "a[bold]b[/x].bin",
    "[red]",
    "evil\x1b[31m\x1b]0;owned\x07.mp4",
    "line\r\nbreak\tname\x7f.mp4",
    "\u202egpj.exe\u2066 txt.mp4",
    "zero\u200bwidth\u200d\ufeff.mp4",
    "测试视频文件名很长很长很长很长很长很长很长很长很长很长很长很长.mp4",
    "👨\u200d👩\u200d👧 family ❤\ufe0f 👍🏽 🇩🇪.avi",
    "cafe\u0301 " + "z\u0300\u0301\u0302\u0303" * 8 + ".mp4",
    "\u1112\u1161\u11ab\u1100\u1173\u11af.mp4",
    "b\udcff\udcfe\udc80.bin",
    "lone\ud800.bin",
    "日本語\u3000スペース.mp4",
    "☰ ䷀ 𝌆 trigram.mp4",
    "deep/" * 60 + "file.mp4",
    "x" * 300,
]


class Script:
    """Plays events; `now` moves only when a test moves it."""

    def __init__(self, view: Observer | None = None, start: float = 100.0) -> None:
        self.state = ProgressState()
        self.view = view
        self.now = start
        self.alarms = Alarms()

    def put(self, *events: ev.Event) -> None:
        for event in events:
            for out in reduce(self.state, event, self.now):
                if self.view is not None:
                    self.view.handle(out, self.state, self.now)

    def tick(self, seconds: float = 0.1) -> None:
        self.now += seconds
        if self.view is not None:
            self.view.refresh(self.state, self.now)

    def begin(self, files: int = 3, size: int = 10 * MIB, names: list[str] | None = None) -> None:
        """A run whose files are selected and whose session is open."""
        names = names or [name_of(number) for number in range(files)]
        self.put(ev.RunStarted("http://127.0.0.1:8765", len(names), size * len(names), 4, "batch"))
        self.put(ev.CallMade("GET", "http://127.0.0.1:8765/health", None, 200, 0.01, None))
        self.put(*(ev.FileSelected(number, name, size) for number, name in enumerate(names)))
        self.put(ev.SelectionEnded(), ev.SessionCreated(SESSION, "personal", len(names)))

    def start(
        self, *numbers: int, size: int = 10 * MIB, attempt: int = 1, offset: int = 0, names: list[str] | None = None
    ) -> None:
        for number in numbers:
            name = names[number] if names else name_of(number)
            self.put(ev.FileStarted(number, name, size, SESSION, offset, attempt, name))

    def sent(self, number: int, count: int, attempt: int = 1) -> None:
        self.put(ev.BytesSent(number, attempt, count))

    def server(self, number: int, percent: float, message: str = "") -> None:
        status = ev.FileStatus(name_of(number), "processing", percent)
        self.put(
            ev.SessionProgress(
                SESSION, ev.Transport.WEBSOCKET, self.now, "uploading", None, files=(status,), message=message
            )
        )

    def complete(self, number: int, size: int = 10 * MIB) -> None:
        self.sent(number, size)
        self.put(ev.FileCompleted(number, name_of(number), size, f"id-{number}", None, False, 1, 1.5))

    def fail(
        self, number: int, code: ev.FailureCode = ev.FailureCode.SERVER_FAILED, message: str = "disk full"
    ) -> None:
        self.put(ev.FileFailed(number, name_of(number), code, message, retryable=False))

    def stall(self) -> None:
        """The alarms of a run, with their defaults."""
        self.put(*self.alarms.look(self.state, self.now))

    def live(self, latency: float | None = 12.3) -> None:
        self.channel(ev.ChannelState.CONNECTING, ev.ChannelState.LIVE, ev.Transport.WEBSOCKET, latency=latency)

    def channel(
        self,
        before: ev.ChannelState,
        to: ev.ChannelState,
        transport: ev.Transport | None = None,
        reason: ev.ChannelReason = ev.ChannelReason.CONNECTED,
        attempt: int | None = None,
        latency: float | None = None,
    ) -> None:
        self.put(ev.ChannelChanged(before, to, transport, reason, attempt, latency))

    def end(self, exit_code: int = 0, seconds: float = 12.3) -> ev.RunFinished:
        s = self.state
        outcome = ev.RunFinished(
            exit_code == 0,
            s.completed,
            s.failed,
            s.skipped,
            s.cancelled,
            s.completed_bytes,
            seconds,
            s.completed_bytes / seconds,
            exit_code,
            ev.ChannelStats(12.0, 5, 0, 0, 0),
            50 * MIB,
        )
        self.put(outcome)
        return outcome


def name_of(number: int) -> str:
    return f"film-{number:04d}.mp4"
