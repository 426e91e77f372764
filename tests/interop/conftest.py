"""Fixtures of the tests with foreign tus software, and the table of their results in `docs/tus-servers.md`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from interop.foreign import Destination, Node, open_session
from interop.partners import PARTNERS, Partner, PartnerServer
from interop.table import Table, table_of
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from uploader_server.serving import EmbeddedServer

HERE = Path(__file__).parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
INSTALL = ("--engine-strict", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline")
NEWEST = ("python3.14", "python3.13")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--interop-table", type=Path, metavar="PAGE", help="write the table of partners and cases there")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Table(config.getoption("--interop-table", None)), "interop-table")


def printed(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed and return what it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))} has failed:\n{done.stdout}{done.stderr}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Install the packages of npm in a temporary directory and return its scripts."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.fail(f"the interop tests run tus-js-client and @tus/server, and need {' and '.join(missing)} in PATH")
    directory = tmp_path_factory.mktemp("node")
    for path in (HERE / "package.json", *HERE.glob("*.mjs")):
        shutil.copy(path, directory)
    printed("npm", "install", *INSTALL, cwd=directory)
    found = json.loads(printed("npm", "ls", "--json", "--depth", "0", cwd=directory))["dependencies"]
    table_of(request).versions |= {name: package["version"] for name, package in found.items()}
    return Node(directory)


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages of PyPI in an environment of their own; return its directory, with the script beside."""
    newest = sys.executable if sys.version_info >= (3, 13) else next(filter(None, map(shutil.which, NEWEST)), None)
    if newest is None:
        pytest.fail("the interop tests run litestar-tus, and need Python 3.13 or newer in PATH")
    directory = tmp_path_factory.mktemp("python")
    shutil.copy(HERE / "python_servers.py", directory)
    printed(newest, "-m", "venv", directory)
    pip = (directory / "bin/python", "-m", "pip", "--disable-pip-version-check")
    printed(*pip, "install", "-r", HERE / "requirements.txt")
    found = json.loads(printed(*pip, "list", "--format", "json"))
    table_of(request).versions |= {package["name"]: package["version"] for package in found}
    return directory


@pytest.fixture(scope="module", params=PARTNERS, ids=lambda partner: partner.name)
def partner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PartnerServer]:
    """Run a tus server of npm or PyPI with an empty store."""
    partner: Partner = request.param
    is_node = partner.command[0] == "node"
    directory = request.getfixturevalue("node").directory if is_node else request.getfixturevalue("python")
    with PartnerServer(partner, directory, tmp_path_factory.mktemp("store")) as server:
        yield server


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
