"""Makes the pictures of the docs from real runs, so that they can't lie.

`pip install -e '.[server,dask,docs]' && python docs/pictures.py [NAME…]`

Starts the bundled server, runs the command in a terminal that is none (a pseudo-terminal, read by a
terminal emulator), and keeps what stands on its screen at a chosen moment, or at the end, as SVG.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import itertools
import os
import pty
import re
import select
import socket
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
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text

from uploader_server.auth import issue_token
from uploader_server.config import ServerConfig
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
    Picture("fallback", "uploader upload videos", rf"polling[\s\S]*{SENDING}", {"realtime": "off"}, limit_rate="4M"),
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
        HERE.mkdir(exist_ok=True)
        (HERE / f"{name}.svg").write_text(self.drawn(name, title), encoding="utf-8")

    def drawn(self, name: str, title: str, rows: int = 0, template: str = CONSOLE_SVG_FORMAT) -> str:
        """Return the screen as SVG, with at least so many rows."""
        texts = [self._row(number) for number in range(self._screen.lines)]
        while len(texts) > rows and not texts[-1].plain.strip():
            texts.pop()
        console = Console(
            record=True, width=self._screen.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
        )
        for row in texts:
            console.print(row, soft_wrap=True)
        return _WIDE.sub(_stretched, console.export_svg(title=title, unique_id=name, code_format=template))

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
        environment = {
            "UPLOADER_SERVER": server.url,
            "UPLOADER_LIMIT_RATE": picture.limit_rate,
            "UPLOADER_TOKEN": issue_token(config.jwt_secret),  # analyses need one
        }
        other = None
        if picture.beside:
            other = subprocess.Popen(
                picture.beside.split(), cwd=home, env=_around(home, environment), stderr=subprocess.DEVNULL
            )
            while not requests.get(f"{server.url}/api/activity", timeout=PATIENCE).json()["sessions"]:
                time.sleep(0.1)
        main, process = _start(picture.command, home, environment, picture.size)
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


def _around(home: str, environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command, with what a terminal has."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    usual = {"LANG": "C.UTF-8", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    return {"HOME": home, "PATH": path, **usual, **environment}


def _start(
    command: str, home: str, environment: dict[str, str], size: tuple[int, int]
) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a command in a terminal of this size; return our end of the terminal, and the process."""
    terminal, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", *reversed(size), 0, 0))
    process = subprocess.Popen(
        command.split(),
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=home,
        env=_around(home, environment),
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(child)
    return terminal, process


def _watch(terminal: int, screen: Screen, moment: str | None, until: float | None = None) -> bool:
    """Read until the moment comes, which is the end of the command where it is None; False if it never came.

    With `until`, read to that time; return False at the end of the command.
    """
    timed, until = until is not None, time.monotonic() + PATIENCE if until is None else until
    while time.monotonic() < until:
        if not select.select([terminal], [], [], max(0.0, min(1.0, until - time.monotonic())))[0]:
            continue
        try:
            output = os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            break
        screen.feed(output)
        if moment is not None and re.search(moment, screen.text):
            return True
    else:
        return timed
    return moment is None and not timed


def _wait_for(port: int) -> None:
    """Return when a server accepts connections."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)


FILM, FILM_ROWS = "outage", 14
SOME_DONE, DOWN = r"[1-6] of 7 done", 7.0
"""When the server of the film goes, and for how many seconds."""
FRAME_SVG = (
    "<style>.{unique_id}-matrix {{ font-family: Fira Code, monospace; font-size: {char_height}px; "
    "line-height: {line_height}px }} {styles}</style><defs>{lines}</defs>"
    '<g class="frame {unique_id}" transform="translate({terminal_x}, {terminal_y})">{backgrounds}'
    '<g class="{unique_id}-matrix">{matrix}</g></g>'
)
"""A frame of the film, within the window of the first one."""


def film() -> None:
    """Film an upload whose server goes down and comes back, one frame a second, as an SVG that plays by itself.

    The server goes when some files are complete. The film begins with the first frame that shows something.
    """
    command = "uploader upload videos --verify"
    with tempfile.TemporaryDirectory() as home:
        videos = Path(home, "videos")
        videos.mkdir()
        for name, megabytes in VIDEOS.items():
            (videos / name).write_bytes(os.urandom(int(megabytes * 1e6)))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        serve = [
            str(Path(sys.executable).with_name("uploader")),
            "serve",
            "--port",
            str(port),
            "--root",
            f"{home}/root",
        ]
        environment = {"UPLOADER_SERVER": f"http://127.0.0.1:{port}", "UPLOADER_LIMIT_RATE": "8M"}
        server = subprocess.Popen(serve, stdout=subprocess.DEVNULL)
        _wait_for(port)
        terminal, process = _start(command, home, environment, (80, 24))
        screen, frames, killed = Screen(80, 24), list[str](), 0.0
        for second in itertools.count(int(time.monotonic()) + 1):
            if not killed and re.search(SOME_DONE, screen.text):
                server.kill()
                server.wait()
                killed = time.monotonic()
            if killed and server.poll() is not None and time.monotonic() > killed + DOWN:
                server = subprocess.Popen(serve, stdout=subprocess.DEVNULL)
            if not _watch(terminal, screen, None, until=second):
                break
            if frames or screen.text.strip():
                frames.append(screen.drawn(f"f{len(frames)}", command, FILM_ROWS, FRAME_SVG))
        last = screen.drawn(f"f{len(frames)}", command, FILM_ROWS, FRAME_SVG)
        os.close(terminal)
        process.wait()
        server.kill()
        server.wait()
    if not killed:
        raise SystemExit(f"{FILM}: the upload ended before the server went down")
    window = Screen(80, 24).drawn(FILM, command, FILM_ROWS)
    stills = [*frames, *[last] * 5]
    whole, share = len(stills), 100 / len(stills)
    rules = "".join(
        f".f{number} {{ animation-name: k{number} }} @keyframes k{number} {{ 0% {{ visibility: hidden }} "
        f"{number * share:.2f}% {{ visibility: visible }} "
        f"{(whole if number == len(frames) else number + 1) * share:.2f}% {{ visibility: hidden }} }}"
        for number in range(len(frames) + 1)
    )
    motion = f"<style>.frame {{ visibility: hidden; animation: {whole}s step-end infinite }} {rules}</style>"
    picture = window.replace("</svg>", "".join([motion, *frames, last, "</svg>"]))
    (HERE / f"{FILM}.svg").write_text(picture, encoding="utf-8")


def main() -> None:
    wanted = set(sys.argv[1:])
    if not wanted or FILM in wanted:
        film()
    for picture in PICTURES:
        if not wanted or picture.name in wanted:
            shoot(picture)


if __name__ == "__main__":
    main()
