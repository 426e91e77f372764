"""Fixtures of the tests with foreign tus software."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from interop.foreign import Destination, Node, open_session
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from uploader_server.serving import EmbeddedServer

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
INSTALL = ["npm", "install", "--engine-strict", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Install the packages of npm in a temporary directory and return its scripts."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.fail(f"the interop tests run tus-js-client and @tus/server, and need {' and '.join(missing)} in PATH")
    directory = tmp_path_factory.mktemp("node")
    for path in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(path, directory)
    done = subprocess.run(INSTALL, cwd=directory, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        pytest.fail(f"npm could not install what tests/interop/package.json names:\n{done.stderr}", pytrace=False)
    return Node(directory)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run Debian's Chromium: Playwright's own browsers need not be installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.fail("the test needs chromium in PATH (Debian: apt-get install chromium)", pytrace=False)
    from playwright.sync_api import expect, sync_playwright  # at the top it would slow every run of the other tests

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a new page, which must have no exception and no violation of its policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "Policy" in message.text else None)
    yield page
    context.close()
    assert problems == []


@pytest.fixture(params=["in a session", "without a session"])
def destination(request: pytest.FixtureRequest, server: EmbeddedServer) -> Destination:
    """Return the bundled server as a destination, with and without a session."""
    return Destination(server, open_session(server) if request.param == "in a session" else None)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[str, int], Path]:
    """Make files of random bytes, which are the same in each run."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(random.Random(size).randbytes(size))
        return path

    return make
