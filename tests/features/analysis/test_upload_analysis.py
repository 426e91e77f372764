"""`upload --analyze`: every stage in order for any server; the upload succeeds in any case."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, finish, start, uploader
from serving import running_server, runs_of
from time_limits import SLACK

from uploader_cli import Event, Settings, Stage, upload
from uploader_cli.features.analysis.stages import STAGES, Kind
from uploader_server.auth import issue_token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uploader_server.serving import EmbeddedServer

SECRET = "a secret that is long enough to sign with"
QUICK_STATUS = {"uploader_cli.features.analysis.analyst.QUIET": 0.3}
"""Seconds without an event of an analysis after which the server is asked for its status."""
QUICK = {"analysis_seconds": 0.3, "jwt_secret": SECRET}


def analyzed(kind: str, files: Path, server: EmbeddedServer, *more: str | Path) -> Done:
    token = issue_token(SECRET)
    asked = ("upload", files, "-s", server.url, "--analyze", kind, "--json", *more)
    return uploader(*asked, home=files.parent, constants=QUICK_STATUS, UPLOADER_TOKEN=token)


def ends(done: Done) -> list[tuple[str, float]]:
    """The stages that ended, with their percentages."""
    every = {(name, float(end)) for stages in STAGES.values() for name, end in stages}
    return [stage for event in done.of("stage") if (stage := (event["name"], event["percent"])) in every]


def stages_of(*kinds: Kind) -> list[tuple[str, float]]:
    return [(name, float(end)) for kind in kinds for name, end in STAGES[kind]]


def saved(directory: Path) -> dict[str, Any]:
    (path,) = directory.glob("uploader-analysis-*.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "on"), [({}, False), ({"analyses": True}, True), ({"analysis_seconds": 0.1}, True)]
)
def test_server_with_a_root_answers_analyses_where_asked_to(
    options: dict[str, Any], on: bool, make_files: Callable[..., Path]
) -> None:
    files = make_files(**{"a.mp4": 500})
    with running_server(root=files.parent / "root", jwt_secret=SECRET, **options) as server:
        server.faults.analysis_seconds = 0.1
        done = analyzed("content", files, server)
    assert done.code == (0 if on else 4), done.err
    assert ("this server answers no analyses (404 ANALYSES_OFF): start it with --analyses" in done.err) is not on


@pytest.mark.parametrize("how", [pytest.param(None, marks=pytest.mark.thorough), "silent"])
@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_analyze_reports_each_stage(how: str | None, protocol: str, make_files: Callable[..., Path]) -> None:
    """Every stage in order, from events or from the answer alone; the result is saved and shown."""
    files = make_files(**{"a.mp4": 500})
    with running_server(analysis=how, **QUICK) as server:
        done = analyzed("content", files, server, "--protocol", protocol)
    assert done.code == 0, done.err
    assert ends(done) == stages_of(Kind.CONTENT)
    percents = [event["percent"] for event in done.of("stage")]
    assert percents == sorted(percents)
    result = saved(files.parent)
    assert result["run"] == done.finished["run"]
    assert (result["v"], result["server"]) == (1, server.url)
    assert result["analyses"][0]["kind"] == "content"
    assert result["analyses"][0]["result"]["finalReport"]
    assert "four scenes" in done.err
    assert "uploader-analysis-" in done.err
    assert "✓ model analysis (40 %" in done.err


def test_analysis_status_is_polled_where_no_event_arrives(make_files: Callable[..., Path]) -> None:
    """No event for a while: percentages come from the status before the answer does."""
    with running_server(analysis="silent", analysis_seconds=3.0, jwt_secret=SECRET) as server:
        done = analyzed("content", make_files(**{"a.mp4": 500}), server)
        asked = [request for request in server.faults.requests if request.path.endswith("/status")]
    assert done.code == 0, done.err
    assert ends(done) == stages_of(Kind.CONTENT)
    assert 1 <= len(asked) <= done.finished["seconds"] + 1, "more than one a second"
    first, last = done.of("stage")[0], done.of("stage")[-1]
    assert first["ts"] < last["ts"], "no stage was reported before the answer"


@pytest.mark.thorough
def test_each_file_is_analysed(make_files: Callable[..., Path]) -> None:
    """One after the other, each with its own stages."""
    files = make_files(**{"a.mp4": 500, "b.mp4": 600})
    with running_server(**QUICK) as server:
        done = analyzed("content", files, server)
    assert done.code == 0, done.err
    assert ends(done) == stages_of(Kind.CONTENT, Kind.CONTENT)
    assert [item["files"][0]["path"][-5:] for item in saved(files.parent)["analyses"]] == ["a.mp4", "b.mp4"]


def test_music_analysis_runs_on_a_fusion(make_files: Callable[..., Path]) -> None:
    """The plan of the fusion is what the music is made on."""
    files = make_files(**{"a.mp4": 500, "b.mp4": 600})
    with running_server(**QUICK) as server:
        done = analyzed("music", files, server)
    assert done.code == 0, done.err
    assert ends(done) == stages_of(Kind.FUSION, Kind.MUSIC)
    fusion, music = saved(files.parent)["analyses"]
    assert fusion["result"]["fusionPlan"]["title"] in music["result"]["musicPrompt"]


@pytest.mark.parametrize("kind", ["fusion", "music"])
def test_a_fusion_needs_two_files(kind: str, server: EmbeddedServer, make_files: Callable[..., Path]) -> None:
    """Reported before anything is sent."""
    done = analyzed(kind, make_files(**{"a.mp4": 500}), server)
    assert done.code == 2
    assert "exactly two files" in done.err
    assert len(server.faults.requests) == 0


def test_failed_analysis_without_events_reports_its_stage(make_files: Callable[..., Path]) -> None:
    """Without events and without a socket the status has the failed stage."""
    broken = {"analysis": "silent,fail:report", "analysis_seconds": 1.5, "realtime": "off"}
    with running_server(**broken, jwt_secret=SECRET) as server:
        done = analyzed("content", make_files(**{"a.mp4": 500}), server)
    assert done.code == 3
    assert ends(done) == stages_of(Kind.CONTENT)[:3]


@pytest.mark.parametrize("how", ["fail", pytest.param("refuse", marks=pytest.mark.thorough)])
def test_a_failed_analysis_leaves_the_upload_complete(how: str, make_files: Callable[..., Path]) -> None:
    """Exit 3 if retryable, else 4; the file counts as completed either way."""
    with running_server(analysis=f"{how}:structuring", **QUICK) as server:
        done = analyzed("content", make_files(**{"a.mp4": 500}), server)
    assert done.code == {"fail": 3, "refuse": 4}[how], done.err
    assert (done.finished["completed"], done.finished["failed"]) == (1, 0)
    assert done.of("file.failed") == []
    assert ends(done) == stages_of(Kind.CONTENT)[:2]
    assert [event["code"] for event in done.of("warning")] == ["analysis_failed"]
    assert "all confirmed" in done.err
    assert ("the same command with --skip-existing" in done.err) == (how == "fail")


def test_no_other_analysis_is_started_where_the_server_has_none(make_files: Callable[..., Path]) -> None:
    call = ("POST", "/api/ai/analyze/content")
    with running_server(**QUICK) as server:
        server.faults.next_answers(*call, [404])
        done = analyzed("content", make_files(**{"a.mp4": 500, "b.mp4": 500}), server)
        assert server.faults.count(*call) == 1
    assert done.code == 4, done.err
    assert "not started after the previous failure" in done.err


@pytest.mark.parametrize("receipts", [True, pytest.param(False, marks=pytest.mark.thorough)])
def test_uploaded_files_can_be_analysed_again(receipts: bool, make_files: Callable[..., Path], tmp_path: Path) -> None:
    """With the command that the failed run printed, also if the receipts were lost, as by a kill."""
    files = make_files(**{"a.mp4": 500})
    with running_server(analysis="fail:report", **QUICK) as server:
        assert analyzed("content", files, server).code == 3
        server.faults.set_analysis(None)
        journal = () if receipts else ("--state-dir", tmp_path / "new")
        done = analyzed("content", files, server, "--skip-existing", *journal)
    assert done.code == 0, done.err
    assert [event["reason"] for event in done.of("file.skipped")] == ["present"]
    assert ends(done) == stages_of(Kind.CONTENT)


def test_an_analysis_of_the_bundled_server_needs_no_token(make_files: Callable[..., Path]) -> None:
    with running_server(**QUICK) as server:
        files = make_files(**{"a.mp4": 500})
        done = uploader("upload", files, "-s", server.url, "--analyze", "content", "--json", home=files.parent)
    assert done.code == 0, done.err
    assert saved(files.parent)["analyses"][0]["result"]["finalReport"]


def test_an_analysis_of_the_reference_backend_needs_a_token(make_files: Callable[..., Path]) -> None:
    """Exit 5, and the upload is complete."""
    with running_server(flavour="reference", **QUICK) as server:
        files = make_files(**{"a.mp4": 500})
        done = uploader("upload", files, "-s", server.url, "--analyze", "content", "--json", home=files.parent)
    assert done.code == 5
    assert done.finished["completed"] == 1
    assert "UPLOADER_TOKEN" in done.err


def test_interrupt_ends_the_wait_for_an_analysis(make_files: Callable[..., Path]) -> None:
    """130 at once; the upload is complete, and there is nothing to resume."""
    files = make_files(**{"a.mp4": 500})
    with running_server(analysis="hang", **QUICK) as server:
        asked = ("upload", files, "-s", server.url, "--analyze", "content", "--json")
        process = start(*asked, home=files.parent, constants=QUICK_STATUS, UPLOADER_TOKEN=issue_token(SECRET))
        while not any(request.path.endswith("/status") for request in server.faults.requests):  # it is under way
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        done = finish(process)
    assert time.monotonic() - began < 2 * SLACK
    assert done.code == 130
    assert done.finished["completed"] == 1
    assert "the upload is complete" in done.err
    assert "uploader resume" not in done.err


@pytest.mark.thorough
def test_analysis_to_writes_the_results(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """A file, or a directory that is there; a place that is not is refused before anything is sent."""
    files = make_files(**{"a.mp4": 500})
    (tmp_path / "results").mkdir()
    with running_server(**QUICK) as server:
        assert analyzed("content", files, server, "--analysis-to", tmp_path / "my.json").code == 0
        assert analyzed("content", files, server, "--analysis-to", tmp_path / "results").code == 0
        before = runs_of(server)
        assert analyzed("content", files, server, "--analysis-to", tmp_path / "gone" / "my.json").code == 2
        assert runs_of(server) == before
    assert json.loads((tmp_path / "my.json").read_text(encoding="utf-8"))["analyses"]
    assert saved(tmp_path / "results")["analyses"]
    assert not list(tmp_path.glob("uploader-analysis-*"))


@pytest.mark.feature("fleet")
def test_import_refuses_an_analysis_of_the_environment(make_files: Callable[..., Path]) -> None:
    files = make_files(**{"a.mp4": 500})
    line = ("import", files, "--on", "local:1", "-s", "localhost:9")
    done = uploader(*line, home=files.parent, UPLOADER_ANALYZE="content")
    assert done.code == 2
    assert "--analyze and --on exclude each other" in done.err


@pytest.mark.thorough
def test_stages_are_complete_with_a_flapping_connection(make_files: Callable[..., Path]) -> None:
    """The session is joined again, and the status fills the gaps."""
    with running_server(analysis_seconds=4.0, realtime="flap:1.5", jwt_secret=SECRET) as server:
        done = analyzed("content", make_files(**{"a.mp4": 500}), server)
    assert done.code == 0, done.err
    assert ends(done) == stages_of(Kind.CONTENT)


@pytest.mark.thorough
def test_a_resumed_upload_is_analysed_as_a_whole(make_files: Callable[..., Path], tmp_path: Path) -> None:
    """Also a file that the interrupted run had finished: the fusion needs both."""
    files = make_files(**{"a.mp4": 500, "b.mp4": 8 << 20})
    token = issue_token(SECRET)
    with running_server(**QUICK) as server:
        slowly = ("--jobs", "1", "--limit-rate", "1M", "--chunk-size", "256K", "--json")
        process = start(
            "upload", files, "-s", server.url, "--analyze", "fusion", *slowly, home=tmp_path, UPLOADER_TOKEN=token
        )
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["type"] == "file.completed":
                break
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 130
        assert not list(tmp_path.glob("uploader-analysis-*"))
        done = uploader("resume", "--limit-rate", "none", "--json", home=tmp_path, UPLOADER_TOKEN=token)
    assert done.code == 0, done.err
    assert [event["reason"] for event in done.of("file.skipped")] == ["present"]
    assert ends(done) == stages_of(Kind.FUSION)
    assert [file["path"][-5:] for file in saved(tmp_path)["analyses"][0]["files"]] == ["a.mp4", "b.mp4"]


def test_library_tells_stages_and_results_of_analyses(make_files: Callable[..., Path], tmp_path: Path) -> None:
    with running_server(**QUICK) as server:
        settings = Settings(
            server=server.url,
            analyze="content",
            token=issue_token(SECRET),
            analysis_to=tmp_path / "analysis.json",
            state_dir=tmp_path / "state",
        )
        told = list[Event]()
        result = upload(make_files(**{"a.mp4": 10}), settings, on_event=told.append)
    assert [event.name for event in told if isinstance(event, Stage)][-1] == "saving"
    assert [(analysed.kind, analysed.error) for analysed in result.analyses] == [("content", "")]
    assert result.analysis_file == str(tmp_path / "analysis.json")
