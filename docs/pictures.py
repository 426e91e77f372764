"""Makes the pictures of the docs from real runs, so that they can't lie.

`pip install -e '.[server,dask,docs]' && python docs/pictures.py [NAME…]`

Starts the bundled server, runs the command in a terminal that is none (a pseudo-terminal, read by a
terminal emulator), and keeps what stands on its screen at a chosen moment, or at the end, as SVG.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass, field
from pathlib import Path

import pyte
import requests
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from uploader_server.config import ServerConfig
from uploader_server.http.auth import issue_token
from uploader_server.serving import EmbeddedServer

HERE = Path(__file__).resolve().parent / "pictures"
PATIENCE = 120.0
VIDEOS = {
    "holiday.mp4": 12,
    "城市夜景.mp4": 4.2,
    "party 🎉.mp4": 2.4,
    "notes [draft].mp4": 5.6,
    "long ride.mp4": 28,
    "night.avi": 3.4,
    "harbour.avi": 14.8,
}
"""Sizes in MB."""


@dataclass(frozen=True)
class Picture:
    """The screen of `command` when `moment` (a pattern) is first found on it; without one, at the command's end."""

    name: str
    command: str
    moment: str | None = None
    server: dict[str, object] = field(default_factory=dict)
    limit_rate: str = "none"
    size: tuple[int, int] = (80, 24)
    faults: tuple[str, ...] = ()
    beside: str = ""
    """A command that runs at the same time, without a terminal."""


SENDING = r"[34] of 7\b[\s\S]*↑[^\n]* [2-7]\d %"
"""Some files are complete, others are being sent."""
PICTURES = (
    Picture("live", "uploader upload videos", rf"● live[\s\S]*{SENDING}", limit_rate="4M"),
    Picture(
        "live-120x40",
        "uploader upload videos",
        rf"● live[\s\S]*{SENDING}",
        {"fail_files": ("party*",)},
        limit_rate="4M",
        size=(120, 40),
    ),
    Picture("live-40x24", "uploader upload videos", rf"● live[\s\S]*{SENDING}", limit_rate="4M", size=(40, 24)),
    Picture(
        "fallback", "uploader upload videos", rf"polling every[\s\S]*{SENDING}", {"realtime": "off"}, limit_rate="4M"
    ),
    Picture(
        "stages",
        "uploader upload videos/holiday.mp4 --analyze content",
        r"▶[^\n]* [3-8]\d %",
        {"analysis_seconds": 6.0},
    ),
    Picture(
        "retries",
        "uploader upload videos --chunk-size 4M",
        r"● live[\s\S]*╍[\s\S]*[1-4] of 7\b[\s\S]*↻",
        limit_rate="6M",
        faults=("cut:patch#/4:3M",),
    ),
    Picture("report", "uploader upload videos", None, {"fail_files": ("party*", "night*")}),
    Picture(
        "watch",
        "uploader watch",
        r"[34] of 7\b[\s\S]*↑[^\n]* [2-7]\d %[^\n]*left",
        limit_rate="4M",
        beside="uploader upload videos",
    ),
    Picture("plan", "uploader upload videos --dry-run", None, {"types": ("mp4",)}),
    Picture("doctor", "uploader doctor", None, size=(80, 40)),
    Picture("smoke", "uploader smoke", None, size=(80, 70)),
    Picture(
        "import",
        "uploader import videos --on local:2",
        r"2 workers[\s\S]*[1-6] of 7\b[\s\S]*↑[^\n]* [1-9]\d %",
        limit_rate="4M",
    ),
)


class _Terminal(pyte.Screen):
    """A terminal that shows dim text in grey; that of pyte ignores the attribute."""

    def select_graphic_rendition(self, *attributes: int, **private: bool) -> None:
        super().select_graphic_rendition(*((90,) if attributes == (2,) else attributes), **private)


class Screen:
    """What a person would see."""

    def __init__(self, columns: int, lines: int) -> None:
        self._screen = _Terminal(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._screen.set_mode(pyte.modes.LNM)

    def feed(self, output: bytes) -> None:
        self._stream.feed(output)

    @property
    def text(self) -> str:
        return "\n".join(self._screen.display)

    def save(self, name: str, title: str) -> None:
        rows = [self._row(number) for number in range(self._screen.lines)]
        while rows and not rows[-1].plain.strip():
            rows.pop()
        console = Console(
            record=True, width=self._screen.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
        )
        for row in rows:
            console.print(row, soft_wrap=True)
        HERE.mkdir(exist_ok=True)
        picture = console.export_svg(title=title, unique_id=name)
        (HERE / f"{name}.svg").write_text(_WIDE.sub(_stretched, picture), encoding="utf-8")

    def _row(self, number: int) -> Text:
        row, line = Text(), self._screen.buffer[number]
        cells = (line[column] for column in range(self._screen.columns))
        for style, run in itertools.groupby(cells, _style):
            row.append("".join(cell.data for cell in run), style)
        row.rstrip()
        return row


_WIDE = re.compile(r'textLength="([\d.]+)"([^>]*>)([^<\x00-\u10ff]+)<')


def _stretched(text: re.Match[str]) -> str:
    """Give wide characters two cells each, of which rich gives them one."""
    length = float(text[1]) * cell_len(text[3]) / len(text[3])
    return f'textLength="{length:g}"{text[2]}{text[3]}<'


def _style(cell: pyte.screens.Char) -> Style:
    """Return the style of a cell; wide characters are marked, so that their text has a place of its own."""
    is_wide = not cell.data or cell_len(cell.data) > 1  # the second cell of a wide character is empty
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        reverse=cell.reverse,
        meta={"wide": True} if is_wide else None,
    )


def _colour(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    name = {"brown": "yellow", "brightbrown": "brightyellow"}.get(name, name)
    return re.sub(r"^bright(?=\w)", "bright_", name)


def shoot(picture: Picture) -> None:
    """One run against a server of this kind, in a directory with the videos of everybody's example."""
    config = ServerConfig(**picture.server)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as home, EmbeddedServer(config) as server:
        for rule in picture.faults:
            server.faults.add(rule)
        videos = Path(home, "videos")
        videos.mkdir()
        for name, size in VIDEOS.items():
            (videos / name).write_bytes(os.urandom(int(size * 1e6)))
        main, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *reversed(picture.size), 0, 0))
        environment = {
            "HOME": home,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "UPLOADER_SERVER": server.url,
            "UPLOADER_LIMIT_RATE": picture.limit_rate,
            "UPLOADER_TOKEN": issue_token(config.jwt_secret),  # analyses need one
        }
        other = None
        if picture.beside:
            other = subprocess.Popen(picture.beside.split(), cwd=home, env=environment, stderr=subprocess.DEVNULL)
            while not requests.get(f"{server.url}/api/activity", timeout=PATIENCE).json()["sessions"]:
                time.sleep(0.1)
        process = subprocess.Popen(
            picture.command.split(),
            stdin=child,
            stdout=child,
            stderr=child,
            cwd=home,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(child)
        screen = Screen(*picture.size)
        came = _watch(main, screen, picture.moment)
        if came:
            screen.save(picture.name, picture.command)
            process.terminate()
        os.close(main)
        process.wait()
        if other is not None:
            other.terminate()
            other.wait()
    if not came:
        raise SystemExit(f"{picture.name}: the moment of the picture never came; at last it was\n{screen.text}")


def _watch(terminal: int, screen: Screen, moment: str | None) -> bool:
    """Read until the moment comes, which is the end of the command where it is None; False if it never came."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            output = os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            break
        screen.feed(output)
        if moment is not None and re.search(moment, screen.text):
            return True
    return moment is None


def main() -> None:
    wanted = set(sys.argv[1:])
    for picture in PICTURES:
        if not wanted or picture.name in wanted:
            shoot(picture)


if __name__ == "__main__":
    main()
