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
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
SECONDS = 20
"""Time until the pictures are taken, for speeds and the plot."""
CLIPS = 10
"""Number of files that the page sends."""


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


def opened(browser: Browser, size: tuple[int, int], scheme: str = "light") -> Page:
    width, height = size
    return browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]


def show_commands(browser: Browser, home: Path) -> None:
    """Follow sessions of commands in several states, and an analysis."""
    config = ServerConfig(faults=("slow:patch:2M", "fail-file:*broken*"), analysis_seconds=60)
    trip = home / "trip"
    with EmbeddedServer(config) as server:
        make_files(trip)
        send(server.url, home, trip / "day-16/IMG_0001.jpg")
        send(server.url, home, trip / "day-17/IMG_0002.jpg", trip / "day-16/broken.png", category="scenic")
        threading.Thread(target=send, args=(server.url, home, trip), daemon=True).start()
        video = {"videoPath": "/uploads/personal/IMG_0001.jpg"}
        analysis = {"target": requests.post, "args": (f"{server.url}/api/ai/analyze/content",)}
        threading.Thread(**analysis, kwargs={"json": video}, daemon=True).start()
        pages = {
            "web": opened(browser, DESKTOP),
            "web-dark": opened(browser, DESKTOP, "dark"),
            "web-phone": opened(browser, PHONE, "dark"),
            "web-phone-sessions": opened(browser, PHONE),
        }
        for page in pages.values():
            page.goto(server.url)
        pages["web-phone"].locator("#sessions a").first.click()
        pages["web"].wait_for_timeout(SECONDS * 1000)
        for name, page in pages.items():
            page.screenshot(path=HERE / f"{name}.png")


def show_an_upload(browser: Browser, home: Path) -> None:
    """Upload files of the page: a failing and a cancelled one, and a server that is away for a while."""
    clips = [home / f"clip {number}.mp4" for number in range(1, CLIPS + 1)]
    for number, clip in enumerate(clips, 2):
        clip.write_bytes(os.urandom(number * 1_500_000))
    with EmbeddedServer(ServerConfig(faults=("slow:patch:1500K", "fail-file:clip 1.mp4"))) as server:
        page = opened(browser, DESKTOP)
        page.goto(server.url)
        expect(page.locator("#add")).to_be_visible()
        page.screenshot(path=HERE / "web-empty.png")
        page.get_by_label("Choose files").set_input_files(clips)
        expect(page.locator("#counted")).to_contain_text("1 failed", timeout=60_000)
        page.get_by_role("button", name="Cancel clip 9.mp4").click()
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(3000)
        page.screenshot(path=HERE / "web-upload.png")
        server.faults.restart(down=12)
        expect(page.locator("#paused")).to_contain_text("8 s", timeout=60_000)
        page.screenshot(path=HERE / "web-offline.png")
        expect(page.locator("#more")).to_contain_text("stored in", timeout=120_000)
        expect(page.locator("#traffic")).to_be_hidden()
        page.screenshot(path=HERE / "web-partial.png")


def main() -> None:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        show_an_upload(browser, Path(temporary))
        show_commands(browser, Path(temporary))
        browser.close()


if __name__ == "__main__":
    main()
    os._exit(0)  # the upload may still wait for the server
