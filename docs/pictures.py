"""Makes the pictures of the docs from a real run, so that they can't lie: `python docs/pictures.py`.

Starts the bundled server, uploads files to it, and keeps the frames of the live view at chosen moments as SVG.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from server_stub.config import ServerConfig
from server_stub.serving import EmbeddedServer
from uploader_cli import Settings
from uploader_cli.core.events import ChannelState, Event, Phase
from uploader_cli.render.frame import Frame
from uploader_cli.run.upload import Interrupts, execute, select

if TYPE_CHECKING:
    from collections.abc import Callable

    from uploader_cli.core.state import ProgressState

HERE = Path(__file__).resolve().parent / "pictures"
WIDTH, HEIGHT = 80, 18
NAMES = (
    "holiday.mp4",
    "城市夜景.mp4",
    "party 🎉.mp4",
    "notes [draft].mp4",
    "long ride.mp4",
    "night.avi",
    "harbour.avi",
)


class Camera:
    """An observer that keeps the first frame for which `moment` is true."""

    def __init__(self, name: str, title: str, moment: Callable[[ProgressState], bool]) -> None:
        self._name, self._title, self._moment = name, title, moment
        self._frame = Frame()
        self.taken = False

    def handle(self, event: Event, _state: ProgressState, now: float) -> None:
        self._frame.note(event, now)

    def refresh(self, state: ProgressState, now: float) -> None:
        rows = self._frame.rows(state, now, WIDTH, HEIGHT)
        if self.taken or not self._moment(state):
            return
        self.taken = True
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
        for row in rows:
            console.print(Text.assemble(*((text, style or "") for text, style in row)), soft_wrap=True)
        HERE.mkdir(exist_ok=True)
        console.save_svg(str(HERE / f"{self._name}.svg"), title=self._title, unique_id=self._name)

    def close(self, _state: ProgressState, _now: float) -> None:
        pass


def shoot(camera: Camera, config: ServerConfig) -> None:
    """One run against a server of this kind, until the picture is taken and the run is over."""
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer(config) as server, contextlib.chdir(directory):
        videos = Path("videos")
        videos.mkdir()
        for number, name in enumerate(NAMES):
            (videos / name).write_bytes(os.urandom(2_000_000 + number * 900_000))
        settings = Settings(server=server.url)
        execute(settings, select(settings, ["videos"]), [camera], Interrupts())
    if not camera.taken:
        raise SystemExit("the moment of the picture never came")


def main() -> None:
    title = "uploader upload videos"
    busy = ServerConfig(flavour="reference", processing_seconds=1.2)
    processing = Camera(
        "live",
        title,
        lambda state: (
            state.completed >= 3
            and any(
                file.phase is Phase.PROCESSING and (file.server_percent or 0) > 40 for file in state.running.values()
            )
        ),
    )
    shoot(processing, busy)
    fallback = Camera(
        "fallback", title, lambda state: state.channel.state is ChannelState.POLLING and state.completed >= 3
    )
    shoot(fallback, ServerConfig(flavour="reference", processing_seconds=1.2, realtime="off"))


if __name__ == "__main__":
    main()
