"""The pytest plugin in another project: the example of the page, mistakes, and the cost of the plugin."""

from __future__ import annotations

import re
import tomllib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import requests
from docs_pages import ROOT, codes, page, rows, section

import uploader_cli
from uploader_cli.errors import UsageError
from uploader_cli.testing import running_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from uploader_cli.testing import UploadServer

    Start = Callable[..., UploadServer]

pytest_plugins = ["pytester"]

PAGE = page("tasks/embed.md")
SESSION = {"category": "personal", "expectedFiles": 1}


@pytest.fixture
def foreign(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run pytest in a project that has only the plugin and xdist."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *options: str, conftest: str = "") -> pytest.RunResult:
        pytester.makepyfile(test_them=source)
        pytester.makeconftest(conftest)
        plugins = ("-p", "xdist", "-p", "uploader_cli.pytest_plugin")
        return pytester.runpytest_subprocess(*plugins, "-p", "no:cacheprovider", "--strict-markers", *options)

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server with the keywords of markers, the closest marker first."""
    running: list[UploadServer] = []

    def call(*marks: dict[str, Any]) -> UploadServer:
        running.append(running_server([((), mark) for mark in marks]))
        return running[-1]

    yield call
    for server in running:
        with server:
            pass


def session(server: UploadServer) -> requests.Response:
    return requests.post(f"{server.url}/api/upload/session", json=SESSION, timeout=30)


def test_the_entry_point_names_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (name,) = project["entry-points"]["pytest11"].values()
    assert import_module(name).upload_server


@pytest.mark.thorough
def test_the_example_of_the_page_passes(foreign: Callable[..., pytest.RunResult]) -> None:
    """With two workers of xdist."""
    (example,) = re.findall(r"```python\n(.*?)```", section(PAGE, "### An example"), re.DOTALL)
    foreign(example, "-n", "2").assert_outcomes(passed=example.count("def test_"))


def test_a_project_that_does_not_use_it_imports_no_server(foreign: Callable[..., pytest.RunResult]) -> None:
    source = """
        import sys

        def test_nothing():
            assert "uploader_cli.pytest_plugin" in sys.modules
            own = {"uploader_cli.testing", "uploader_cli.features.demo.testing"}
            assert not (own | {"uploader_server", "granian", "starlette", "requests", "typer"}) & sys.modules.keys()
    """
    foreign(source).assert_outcomes(passed=1)


@pytest.mark.thorough
def test_plugin_errors_have_no_traceback(foreign: Callable[..., pytest.RunResult]) -> None:
    source = """
        import pytest

        @pytest.mark.upload_faults(realtme="off")
        def test_a_misspelt_option(upload_server): ...

        def test_without_the_extra(upload_server, ): ...
    """
    conftest = """
        import pytest

        @pytest.fixture(autouse=True)
        def _no_extra(request, monkeypatch):
            if request.node.name == "test_without_the_extra":
                monkeypatch.setattr("uploader_cli.extras.find_spec", lambda name: None)
    """
    result = foreign(source, conftest=conftest)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(
        [
            "upload_faults: unknown option 'realtme'",
            "did you mean realtime?",
            "*pip install 'granian*",
        ]
    )
    for noise in ("*Traceback*", "*another exception*"):
        result.stdout.no_fnmatch_line(noise)
    result.stdout.no_fnmatch_line("*raise UsageError*")


def test_missing_extra_shows_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader_cli.extras.find_spec", lambda name: None if name == "granian" else object())
    with pytest.raises(
        UsageError, match=r"fixture `upload_server` needs the bundled server, .* \(extra server: no granian\)"
    ) as error:
        running_server()
    assert error.value.hint.startswith("pip install 'granian")


def test_files_lists_completely_stored_files(start: Start) -> None:
    """By category and path in order of names, without the server's own files and active uploads."""
    server = start()
    assert server.files == {}
    made = session(server).json()
    tus = {"Tus-Resumable": "1.0.0"}
    begun = {**tus, "Upload-Length": "9", "Upload-Metadata": "filename YS5tcDQ="}
    offset = {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    location = requests.post(f"{server.url}/api/upload/files/", headers=begun, timeout=30).headers["Location"]
    requests.patch(location, data=b"half", headers=offset, timeout=30).raise_for_status()
    assert server.files == {}
    parts = [("sessionId", (None, made["sessionId"])), ("category", (None, "personal"))]
    parts += [("relativePath", (None, "deep/b.mp4")), ("files", ("b.mp4", b"bytes"))]  # type: ignore[list-item]
    requests.post(f"{server.url}/api/upload/batch", files=parts, timeout=30).raise_for_status()  # type: ignore[arg-type]
    assert list(server.files) == ["personal/deep/b.mp4"]
    assert server.files["personal/deep/b.mp4"].read_bytes() == b"bytes"


def test_faults_can_be_changed_at_any_time(start: Start) -> None:
    server = start()
    assert session(server).status_code == 201
    server.faults.next_answers("POST", "/api/upload/*", [503, None])
    assert [session(server).status_code for _ in range(3)] == [503, 201, 201]
    assert server.faults.count("POST", "/api/*") == 4


def test_innermost_marker_overrides_outer_ones(start: Start) -> None:
    """For options; of answers, those of the outer markers follow those of the inner ones."""
    call = "POST /api/upload/session"
    server = start({"max_files": 2, "answers": {call: [503]}}, {"max_files": 7, "tus": False, "answers": {call: [500]}})
    assert [session(server).status_code for _ in range(2)] == [503, 500]
    made = session(server).json()
    assert (made["maxFiles"], "tus" in made) == (2, False)


def test_each_option_on_the_page_exists(start: Start, tmp_path: Any) -> None:
    """A server starts with all examples of the table as options."""
    options: dict[str, Any] = {}
    for option, _ in rows(section(PAGE, "### The marker")):
        for code in codes(option):
            options |= eval(f"dict({code})", {"path": tmp_path})  # the page's own words
    assert len(options) == 14
    server = start(options)
    assert requests.get(f"{server.url}/health", timeout=30).status_code == 200


@pytest.mark.parametrize(
    ("mark", "message", "hint"),
    [
        ({"port": 1}, "unknown option 'port'", "see docs/tasks/embed.md"),
        ({"latency": 1}, "unknown option 'latency'", "did you mean latency_ms?"),
        ({"realtime": "of"}, "'of' is not one of off, refuse", ""),
        ({"flavour": "refrence"}, "'refrence' is not one of bundled, reference", ""),
        ({"answers": [503]}, "answers must be a dictionary", 'write answers={"POST'),
        ({"answers": {"/health": [503]}}, "answers: '/health'", 'write answers={"POST'),
        ({"answers": {"GET /health": 503}}, r"answers: 'GET /health': invalid responses 503", 'write answers={"POST'),
        ({"root": "/dev/null/x"}, "upload_server: ", ""),
    ],
)
def test_invalid_marker_is_an_error(mark: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        running_server([((), mark)])
    assert error.value.hint.startswith(hint)


def test_marker_with_positional_options_is_an_error() -> None:
    with pytest.raises(UsageError, match="'off' has no name"):
        running_server([(("off",), {})])


def test_plugin_leaves_no_server_and_no_files(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with start() as server:
        assert uploader_cli.upload(tmp_path / "a.txt", server=server.url).ok
        (stored,) = server.files.values()
    assert not stored.parents[1].exists()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{server.url}/health", timeout=30)
