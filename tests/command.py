"""Run `uploader` as a user does: a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jsonschema
from patience import PATIENCE

from uploader_cli.render.ndjson import schema_text

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE = 2 * PATIENCE
_VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))


@dataclass
class Done:
    """What a finished command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """The event stream, each line checked against the schema and the promises that a schema can't make."""
        events = [json.loads(line) for line in self.out.splitlines()]
        check_stream(events)
        return events

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one type."""
        return [event for event in self.events if event["type"] == kind]

    @property
    def finished(self) -> dict[str, Any]:
        """The last event."""
        return self.events[-1]


def environment(home: Path, **extra: str) -> dict[str, str]:
    """An environment without settings of whoever runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("UPLOADER_")}
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    for name in ("CI", "GITHUB_STEP_SUMMARY", "NO_COLOR", "FORCE_COLOR", *proxies):
        kept.pop(name, None)
    homes = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home / "config")}
    return {**kept, **homes, "PYTHONUTF8": "1", "UPLOADER_WAIT_FOR_SERVER": "3", **extra}


def start(*arguments: str | Path, home: Path, **extra: str) -> subprocess.Popen[str]:
    """The command, started; its pipes are the caller's."""
    return subprocess.Popen(
        [sys.executable, "-m", "uploader_cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=home,
        env=environment(home, **extra),
    )


def finish(process: subprocess.Popen[str]) -> Done:
    """Wait for a started command; killed and an error after a generous deadline."""
    try:
        out, err = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert "Traceback" not in err
    return Done(process.returncode, out, err)


def uploader(*arguments: str | Path, home: Path, **extra: str) -> Done:
    """Run the command to its end. `extra` are environment variables."""
    return finish(start(*arguments, home=home, **extra))


def check_stream(events: list[dict[str, Any]]) -> None:
    """Every promise of the stream that holds for any run."""
    for event in events:
        _VALIDATOR.validate(event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert len({event["run"] for event in events}) == 1
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run.started"
    assert kinds[-1] == "run.finished"
    assert kinds.count("run.started") == kinds.count("run.finished") == 1
    _check_files(events)


def _check_files(events: list[dict[str, Any]]) -> None:
    """Within an attempt nothing falls, attempts only rise, and each file ends once."""
    last: dict[int, dict[str, Any]] = {}
    ended: set[int] = set()
    for event in events:
        number = event.get("file")
        if event["type"] in ("file.completed", "file.failed", "file.skipped"):
            assert number not in ended
            ended.add(number)
        if event["type"] != "file.progress":
            continue
        before = last.get(number)
        if before is not None:
            assert event["attempt"] >= before["attempt"]
            if event["attempt"] == before["attempt"]:
                assert event["sent"] >= before["sent"]
                assert event["confirmed"] >= before["confirmed"]
                assert event.get("server_percent", 0) >= before.get("server_percent", 0)
        assert 0 <= event["confirmed"] <= event["sent"]
        last[number] = event
