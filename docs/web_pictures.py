"""Makes the pictures of docs/web.md from a real server and Debian's Chromium.

`pip install -e '.[dev]' && python docs/web_pictures.py`
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

import requests
from playwright.sync_api import sync_playwright

from uploader_cli import UploaderError, upload
from uploader_server.config import ServerConfig
from uploader_server.serving import EmbeddedServer

HERE = Path(__file__).resolve().parent / "pictures"
DESKTOP, PHONE = (1280, 760), (390, 844)
VIDEOS = {
    "day-16/sunrise over the lake.mp4": 96,
    "day-17/clip.mp4": 150,
    "day-18/raw.mov": 60,
    "day-18/harbour.avi": 200,
}
"""Sizes in MB."""
SECONDS = 40
"""Time until the pictures are taken, for the plot."""


def make_files(trip: Path) -> None:
    """Make photos, two of which the server refuses, and large videos."""
    for name in (f"day-{day}/IMG_{number:04}.jpg" for day in (16, 17, 18) for number in range(60)):
        (trip / name).parent.mkdir(parents=True, exist_ok=True)
        (trip / name).write_bytes(name.encode())
    for name in ("day-16/broken.png", "day-17/broken clip.mov"):
        (trip / name).write_bytes(name.encode())
    for name, size in VIDEOS.items():
        (trip / name).write_bytes(os.urandom(size * 1_000_000))


def send(server: str, home: Path, *paths: Path, category: str = "personal") -> None:
    """Upload; the end of the server ends it, too."""
    try:
        upload([str(path) for path in paths], server=server, state_dir=str(home / "state"), category=category)
    except UploaderError as error:
        print(error)


def main() -> None:
    """Start sessions in several states and an analysis, and take the pictures."""
    config = ServerConfig(faults=("slow:patch:2M", "fail-file:*broken*"), analysis_seconds=60)
    with tempfile.TemporaryDirectory() as temporary, EmbeddedServer(config) as server, sync_playwright() as driver:
        home = Path(temporary)
        trip = home / "trip"
        make_files(trip)
        send(server.url, home, trip / "day-16/IMG_0001.jpg")
        send(server.url, home, trip / "day-17/IMG_0002.jpg", trip / "day-16/broken.png", category="scenic")
        threading.Thread(target=send, args=(server.url, home, trip), daemon=True).start()
        video = {"videoPath": "/uploads/personal/IMG_0001.jpg"}
        analysis = {"target": requests.post, "args": (f"{server.url}/api/ai/analyze/content",)}
        threading.Thread(**analysis, kwargs={"json": video}, daemon=True).start()
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        pages = {}
        for name, (width, height), scheme in (
            ("web", DESKTOP, "light"),
            ("web-dark", DESKTOP, "dark"),
            ("web-phone", PHONE, "dark"),
            ("web-phone-sessions", PHONE, "light"),
        ):
            context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            pages[name] = context.new_page()
            pages[name].goto(server.url)
        pages["web-phone"].locator("#sessions a").first.click()
        pages["web"].wait_for_timeout(SECONDS * 1000)
        for name, page in pages.items():
            page.screenshot(path=HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
    os._exit(0)  # the upload may still wait for the server
