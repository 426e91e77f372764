"""A copy of the tree in `build/mutation`, in which the tests run, and what each of them executes there."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from coverage import Coverage, CoverageData

if TYPE_CHECKING:
    from collections.abc import Iterable

LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "build", "dist")
TRACED = ("src", "server_stub", "tests")
COVERAGE = """\
[run]
source = uploader_cli,uploader_server
parallel = true
sigterm = true
context = ${PYTEST_CURRENT_TEST-}
data_file = %s
"""
"""Commands that a test starts have its name in their environment, so that what they execute counts for it."""
_TEST = re.compile(r"(tests/.+?)(?:\|(?:setup|run|teardown)| \((?:setup|call|teardown)\))$")
CHOSEN = "not acceptance and not interop and not kills and not package"
"""The tests of the plain run, and the thorough ones: the quickest that execute a line are used."""
SPARE = 120.0
"""Seconds beyond three times those of the tests after which a run of tests is taken for endless."""


class Tree:
    """The copied tree; a new one, traced, if the repository has changed since."""

    def __init__(self, repository: Path) -> None:
        """Copy and trace if that is necessary."""
        self._top = repository / "build" / "mutation"
        self._tree = self._top / "tree"
        if not (self._top / "traced").exists() or self._differs(repository):
            shutil.rmtree(self._top, ignore_errors=True)
            shutil.copytree(repository, self._tree, ignore=LEFT_OUT)
            self._trace()
        self._data = CoverageData(str(self._top / ".coverage"))
        self._data.read()

    def _differs(self, repository: Path) -> bool:
        files = {
            path.relative_to(tree)
            for tree in (repository, self._tree)
            for name in TRACED
            for path in (tree / name).rglob("*.py")
        }
        return any(
            not (self._tree / file).exists()
            or not (repository / file).exists()
            or not filecmp.cmp(repository / file, self._tree / file, shallow=False)
            for file in files
        )

    def _trace(self) -> None:
        """Run all tests with coverage contexts. Those that fail, as on a loaded machine, are not used."""
        print("tracing the tests", flush=True)
        config = self._top / "coverage.ini"
        config.write_text(COVERAGE % (self._top / ".coverage"), encoding="utf-8")
        measure = ("--cov", f"--cov-config={config}", "--cov-context=test", "--cov-report=")
        command = self._pytest(*measure, f"--junitxml={self._top / 'times.xml'}", "-n", "auto")
        env = {**self._environment, "COVERAGE_PROCESS_START": str(config)}
        done = subprocess.run(command, cwd=self._tree, env=env, check=False)
        # 1: some tests failed; 3: pytest-cov met data of a process that was killed while it wrote them
        if done.returncode not in (0, 1, 3):
            done.check_returncode()
        self._combine(config)
        (self._top / "traced").touch()

    def _combine(self, config: Path) -> None:
        """Combine the data that pytest-cov has left, without those that are damaged."""
        for path in self._top.glob(".coverage.*"):
            if not _is_whole(path):
                path.unlink()
        measured = Coverage(config_file=str(config))
        measured.load()
        measured.combine()
        measured.save()

    @functools.cached_property
    def _seconds(self) -> dict[str, float]:
        """The seconds of each test that passed, with its parameters."""
        seconds, failed = dict[str, float](), set[str]()
        for case in ET.parse(self._top / "times.xml").iter("testcase"):
            path, _, group = case.attrib["classname"].partition(".Test")
            names = [f"{path.replace('.', '/')}.py", *([f"Test{group}"] if group else []), case.attrib["name"]]
            test = "::".join(names)
            seconds[test] = float(case.attrib["time"])
            if case.find("failure") is not None or case.find("error") is not None:
                failed.add(test)
        return {test: spent for test, spent in seconds.items() if test not in failed}

    @functools.lru_cache(maxsize=32)  # noqa: B019 - one copy a run
    def _contexts(self, path: str) -> dict[int, list[str]]:
        measured = next((file for file in self._data.measured_files() if file.endswith(f"/{path}")), None)
        return self._data.contexts_by_lineno(measured) if measured else {}

    def tests_of(self, path: str, line: int | None, seconds: float) -> list[str]:
        """Return the tests that execute a line (None: anything of the module), the quickest first, up to `seconds`."""
        lines = self._contexts(path)
        tests = _names(context for number, each in lines.items() if line in (None, number) for context in each)
        chosen, spent = list[Any](), 0.0
        for test in sorted(tests & self._seconds.keys(), key=lambda test: (self._seconds[test], test)):
            spent += self._seconds[test]
            if chosen and spent > seconds:
                break
            chosen.append(test)
        return chosen

    def attempt(self, path: str, text: str, tests: list[str]) -> tuple[str, str]:
        """Change one file of the copy, run the tests and restore it; return the result, and the test that failed."""
        file = self._tree / path
        original = file.read_text(encoding="utf-8")
        write(file, text)
        try:
            return self._run(tests) if tests else ("survived", "no test executes it")
        finally:
            write(file, original)

    def _run(self, tests: list[str]) -> tuple[str, str]:
        """Run tests up to the first failure."""
        names = self._top / "tests.txt"
        names.write_text("\n".join(tests), encoding="utf-8")
        command = self._pytest("-x", "-n", "0", "--timeout", "120", "-p", "no:cacheprovider", "-rfE", f"@{names}")
        limit = 3 * sum(self._seconds[test] for test in tests) + SPARE
        process = subprocess.Popen(
            command,
            cwd=self._tree,
            env=self._environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return "caught", "endless"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        failed = re.search(r"^(?:FAILED|ERROR) (tests.*)", said, re.MULTILINE)
        result = {0: "survived", 1: "caught", 2: "caught"}.get(process.returncode, "caught" if failed else "error")
        return result, failed[1][:150] if failed else f"{len(tests)} tests" if result == "survived" else said[-300:]

    @property
    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join(str(self._tree / name) for name in ("src", "server_stub"))
        return {**os.environ, "PYTHONPATH": path}

    @staticmethod
    def _pytest(*arguments: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "pytest", "-q", "-m", CHOSEN, *arguments)


def _names(contexts: Iterable[str]) -> set[str]:
    """Return the tests of coverage contexts."""
    return {found[1] for found in map(_TEST.search, contexts) if found}


def write(path: Path, text: str) -> None:
    """Change a file so that Python compiles it again, which looks at the size and at whole seconds."""
    later = path.stat().st_mtime + 2
    path.write_text(text, encoding="utf-8")
    os.utime(path, (later, later))


def _is_whole(path: Path) -> bool:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as data:
        rows = data.execute("PRAGMA integrity_check").fetchall()
        return rows == [("ok",)] and not data.execute("SELECT 1 FROM file WHERE path IS NULL").fetchall()
    return False
