"""`--result-url`: files that a tus server processes after their upload."""

from __future__ import annotations

import re
import shlex
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from command import ended, read_until, start, uploader
from docs_pages import blocks, page, section
from scripted_server import Answer, Request, Rule, ScriptedServer
from tus_services import MIB, CloudflareDirectUpload, Service, Upload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Files = Callable[..., Path]

QUICK = {
    "uploader_cli.features.processing.answers.FIRST_PAUSE": 0.05,
    "uploader_cli.features.processing.poller.NOT_YET": 0.3,
}
READY, FAILED = "--result-done=status.state=ready", "--result-failed=status.state=error"
WORKING = Answer(200, {"status": {"state": "inprogress", "pctComplete": "40"}})
DONE = Answer(200, {"status": {"state": "ready"}, "preview": "/watch/1"})
BROKEN = Answer(
    200, {"status": {"state": "error", "errorReasonCode": "NO_VIDEO", "errorReasonText": "It is no video file."}}
)


class Transcoder(Service):
    """A tus server that tells the state of each file: the next of `states` for each question, the last one for ever.

    `asked` are the paths of the questions, with the header of the token.
    """

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, *states: Answer) -> None:
        super().__init__()
        self.states, self.asked = list(states), list[tuple[str, str | None]]()

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        return {"stream-media-id": f"id {len(self.uploads)}", "X-Status": f"/api/state/{len(self.uploads)}?full=1"}

    def _patch(self, request: Request) -> Answer:
        answer = super()._patch(request)
        answer.headers["X-Status"] = f"/api/state/{len(self.uploads) - 1}?full=1"
        return answer

    def _get(self, request: Request) -> Answer:
        self.asked.append((request.path, request.headers.get("authorization")))
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Answer(state.status, state.body, dict(state.headers))

    @property
    def sent(self) -> int:
        """The number of requests that create uploads or send bytes."""
        return sum(method in ("POST", "PATCH") for method, _ in self.requests)


def upload(clip: Path, service: Service, *options: str, home: Path, **how: Any) -> Any:
    """Upload a file that the service processes."""
    endpoint = ["--tus-endpoint", service.url] if "--upload-url" not in options else []
    return uploader("upload", clip, *endpoint, *options, "--json", home=home, constants=QUICK, **how)


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("{url}", "/files/u0"),
        ("{url}/status?wait=0", "/files/u0/status?wait=0"),
        ("SERVER/api/{id}/state?name={id}", "/api/id%200/state?name=id%200"),
        ("SERVER/state?of={url}", "/state?of=http%3A%2F%2F127.0.0.1%3A"),
        ("{header:X-Status}&more=1", "/api/state/0?full=1&more=1"),
        ("SERVER/assemblies/7", "/assemblies/7"),
    ],
)
def test_file_is_completed_once_it_is_processed(template: str, asked: str, make_files: Files, tmp_path: Path) -> None:
    """Until then it is `processing`; the field of `--result-link` is the URL of the file."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    with Transcoder(WORKING, WORKING, DONE) as service:
        service.extensions = "creation,creation-with-upload"  # type: ignore[misc]
        url = template.replace("SERVER", service.url.removesuffix("/files/"))
        done = upload(clip, service, "--result-url", url, READY, FAILED, "--result-link", "preview", home=tmp_path)
        assert done.code == 0, done.err
        assert [path[: len(asked)] for path, _ in service.asked] == [asked] * 3
    (completed,) = done.of("file.completed")
    assert completed["url"] == f"{service.url.removesuffix('files/')}watch/1"
    assert completed["server_id"] == "id 0"
    phases = [event["phase"] for event in done.of("file.progress")]
    assert phases[-1] == "processing"


@pytest.mark.parametrize("again", [("--skip-existing",), ("--skip-existing", "--trust-receipts")])
def test_link_of_a_processed_file_is_that_of_a_later_run(
    again: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    """In `file.skipped` and in `--links`, by a receipt and where the server still has the file."""
    clip, links = make_files(**{"clip.mp4": 1000}) / "clip.mp4", tmp_path / "links"
    with Transcoder(DONE) as service:
        options = ("--result-url", "{url}", READY, "--result-link", "preview", "--links", str(links))
        upload(clip, service, *options, home=tmp_path)
        service.forgets = "--trust-receipts" in again
        done = upload(clip, service, *options, *again, home=tmp_path)
    link = f"{service.url.removesuffix('files/')}watch/1"
    assert [event["url"] for event in done.of("file.skipped")] == [link], done.err
    assert links.read_text() == f"{link}\t{clip}\n"


def test_file_that_could_not_be_processed_fails_and_is_sent_anew(make_files: Files, tmp_path: Path) -> None:
    """The server's reason is shown; trying the same again does not help, so the code is 4."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    with Transcoder(WORKING, BROKEN) as service:
        done = upload(clip, service, "--result-url", "{url}/state", READY, FAILED, home=tmp_path)
        again = upload(clip, service, "--result-url", "{url}/state", READY, FAILED, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"], failed["retryable"]) == (4, "server_failed", False)
    assert failed["message"] == "the server could not process it: It is no video file."
    assert (again.code, len(service.uploads)) == (4, 2)


@pytest.mark.parametrize(("end", "code"), [(DONE, 0), (BROKEN, 4)])
@pytest.mark.feature("then")
def test_file_is_deleted_once_it_is_processed(end: Answer, code: int, make_files: Files, tmp_path: Path) -> None:
    """With `--then delete`; a file that could not be processed is kept."""
    clip, there = make_files(**{"clip.mp4": 1000}) / "clip.mp4", list[bool]()

    class Watched(Transcoder):
        def _get(self, request: Request) -> Answer:
            if not request.path.startswith("/state"):
                return Answer(404)
            there.append(clip.exists())
            return super()._get(request)

    with Watched(WORKING, end) as service:
        options = ("--result-url", service.url.replace("/files/", "/state"), READY, FAILED)
        done = upload(clip, service, *options, "--then", "delete", "--then-unverified", home=tmp_path)
    assert done.code == code, done.err
    assert there == [True, True]
    assert clip.exists() == (code == 4)


def test_file_that_is_not_processed_in_time_is_asked_for_again(make_files: Files, tmp_path: Path) -> None:
    """Its outcome is unknown. The same command asks again and sends nothing, also where the upload is gone."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    options = ("--result-url", "{url}/state", READY, FAILED)
    with Transcoder(WORKING) as service:
        done = upload(clip, service, *options, "--result-timeout", "0.3", home=tmp_path)
        sent, service.states, service.forgets = service.sent, [WORKING, DONE], True
        again = upload(clip, service, *options, home=tmp_path)
        third = upload(clip, service, *options, "--skip-existing", "--trust-receipts", home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (done.code, failed["code"]) == (4, "outcome_unknown")
    assert re.search(r"not processed after \d+ s \(--result-timeout\): status.state is inprogress", failed["message"])
    assert (again.code, service.sent) == (0, sent), again.err
    (completed,) = again.of("file.completed")
    assert completed["location"] is None
    assert completed["url"] == f"{service.url}u0"
    assert third.of("file.skipped")[0]["reason"] == "receipt"


def test_killed_run_goes_on_asking_and_sends_nothing(make_files: Files, tmp_path: Path) -> None:
    """The headers of the last answer are journaled with the file."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    options = ("--result-url", "{header:X-Status}", READY, FAILED)
    with Transcoder(WORKING) as service:
        service.extensions = "creation,creation-with-upload"  # type: ignore[misc]
        arguments = ("upload", clip, "--tus-endpoint", service.url, *options, "--json")
        process = start(*arguments, home=tmp_path, constants=QUICK)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        killed = ended(process, "", signal.SIGKILL)
        assert killed.code == -signal.SIGKILL, seen
        sent, service.states, service.forgets = service.sent, [DONE], True
        done = uploader("resume", "--json", home=tmp_path, constants=QUICK)
    assert (done.code, service.sent) == (0, sent), done.err
    assert [event["offset"] for event in done.of("file.started")] == [1000]
    assert service.asked[-1][0] == "/api/state/0?full=1"


def test_interrupt_while_the_server_processes_leaves_the_run_resumable(make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    with Transcoder(WORKING) as service:
        arguments = ("upload", clip, "--tus-endpoint", service.url, "--result-url", "{url}", READY, "--json")
        process = start(*arguments, home=tmp_path, constants=QUICK)
        seen = read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        done = ended(process, seen, signal.SIGINT)
        assert (done.code, done.finished["cancelled"]) == (130, 1)
        service.states = [DONE]
        assert uploader("resume", home=tmp_path, constants=QUICK).code == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        Answer(429, {"error": "TOO_MANY"}, {"Retry-After": 1}),
        Answer(500, {"message": "oops"}),
        Answer(503, b"<html>down", {"Retry-After": 1}),
        Answer(202, headers={"Location": "/elsewhere"}),
        Answer(204),
        Answer(200, {"unexpected": True}),
        Answer(200, [{"status": 1}]),
    ],
    ids=lambda answer: str(answer.status),
)
def test_answer_that_says_nothing_yet_is_waited_out(answer: Answer, make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    link = ("--result-link", "not.there")
    with Transcoder(answer, WORKING, DONE) as service:
        done = upload(clip, service, "--result-url", "{url}", READY, FAILED, *link, home=tmp_path)
    assert done.code == 0, done.err
    assert done.of("file.completed")[0]["url"] == f"{service.url}u0"
    assert [path for path, _ in service.asked] == ["/files/u0"] * 3


def test_429_makes_the_questions_about_other_files_wait(make_files: Files, tmp_path: Path) -> None:
    files, times = make_files(**{"a.mp4": 10, "b.mp4": 10}), list[float]()

    class Timed(Transcoder):
        def _get(self, request: Request) -> Answer:
            times.append(time.monotonic())
            return super()._get(request)

    with Timed(Answer(429, {"error": "TOO_MANY"}, {"Retry-After": 1}), DONE) as service:
        done = upload(files, service, "--result-url", "{url}", READY, home=tmp_path)
    assert (done.code, len(times)) == (0, 3), done.err
    assert times[1] - times[0] >= 0.99


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (Answer(200, b"<html>welcome</html>"), "protocol", "--result-url answers 200 without JSON"),
        (Answer(410), "server_refused", "--result-url answers 410, also 0 s later"),
        (Answer(400, {"message": "no such call"}), "server_refused", "--result-url answers 400: no such call"),
        (Answer(401, {"message": "who?"}), "unauthorized", "--result-url answers 401: who?; it is no server that gets"),
        (Answer(302, headers={"Location": "http://user@127.0.0.1/"}), "protocol", "a URL that is not followed"),
    ],
)
def test_answer_that_says_nothing_at_all_is_the_reason(
    answer: Answer, code: str, says: str, make_files: Files, tmp_path: Path
) -> None:
    """The file is stored: the same command asks again and sends nothing."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    with Transcoder(answer) as service:
        done = upload(clip, service, "--result-url", "{url}", READY, FAILED, home=tmp_path)
        sent, service.states = service.sent, [DONE]
        again = upload(clip, service, "--result-url", "{url}", READY, FAILED, home=tmp_path)
    (failed,) = done.of("file.failed")
    assert (failed["code"], done.code) == (code, 5 if code == "unauthorized" else 4)
    assert failed["message"].startswith("it is stored, and its state is unknown: ")
    assert says in failed["message"]
    assert (again.code, service.sent) == (0, sent), again.err


def test_template_that_the_answers_do_not_fill_names_what_is_missing(make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    with Transcoder(DONE) as service:
        done = upload(clip, service, "--result-url", "{header:X-Job}", READY, home=tmp_path)
    assert done.code == 4
    assert "--result-url can't be filled: the server's last answer has no header X-Job" in done.err


def test_token_goes_only_to_the_origin_that_gets_it_otherwise(make_files: Files, tmp_path: Path) -> None:
    """Also where a redirect leads to another one."""
    clip = make_files(**{"clip.mp4": 1000}) / "clip.mp4"
    other = ScriptedServer(Rule(DONE))
    with Transcoder(WORKING, DONE) as service, other:
        options = ("--result-url", f"{other.url}/of/{{id}}", READY, "--header", "X-Team: video")
        there = upload(clip, service, *options, home=tmp_path, UPLOADER_TOKEN="secret-token")
        service.states = [WORKING, Answer(302, headers={"Location": f"{other.url}/moved"})]
        moved = upload(
            clip, service, "--result-url", "{url}", READY, "--no-resume", home=tmp_path, UPLOADER_TOKEN="secret-token"
        )
    assert (there.code, moved.code) == (0, 0), there.err + moved.err
    assert [request.path for request in other.requests] == ["/of/id%200", "/moved"]
    assert not any({"authorization", "x-team", "cookie"} & request.headers.keys() for request in other.requests)
    assert service.asked == [("/files/u1", "Bearer secret-token")] * 2


def test_upload_url_is_asked_for_and_stays_secret(make_files: Files, tmp_path: Path) -> None:
    """The path of the template goes before the query of the URL."""
    clip, log = make_files(**{"clip.mp4": MIB}) / "clip.mp4", tmp_path / "log"

    class Direct(CloudflareDirectUpload):
        methods = "HEAD PATCH GET"

        def _get(self, request: Request) -> Answer:
            assert request.path == "/files/u0/state?tusv2=true"
            return BROKEN

    with Direct() as service:
        options = ("--upload-url", service.existing(MIB), "--result-url", "{url}/state", READY, FAILED)
        done = upload(clip, service, *options, "--log-file", str(log), home=tmp_path)
    assert done.code == 4
    assert "It is no video file" in done.err
    assert "/files/u0" not in done.out + done.err + log.read_text()


CLOUDFLARE = {
    "playable": True,
    "status": {"state": "ready", "pctComplete": "100"},
    "preview": "https://watch.example/7",
}
TRANSLOADIT = [{"ok": "ASSEMBLY_UPLOADING"}, {"ok": "ASSEMBLY_EXECUTING"}, {"ok": "ASSEMBLY_COMPLETED", "results": {}}]


@pytest.mark.parametrize(
    ("host", "endpoint", "states", "path"),
    [
        pytest.param(
            "https://api.cloudflare.com",
            "/client/v4/accounts/ACCOUNT/stream",
            [{"result": {"status": {"state": "inprogress"}}, "success": True}, {"result": CLOUDFLARE}],
            "/client/v4/accounts/ACCOUNT/stream/id%200",
            marks=pytest.mark.feature("presets"),
        ),
        ("https://api2.transloadit.com", "/resumable/files/", TRANSLOADIT, "/assemblies/5f3c"),
    ],
)
def test_commands_of_the_page_wait_for_the_services(
    host: str, endpoint: str, states: list[dict[str, Any]], path: str, make_files: Files, tmp_path: Path
) -> None:
    """With answers as the documentation of these services shows them."""
    make_files(".", **{"holiday.mp4": 1000})
    text = section(page("tus-servers.md"), "## Wait for processing")
    (command,) = [block.text for block in blocks(text) if f"{host}{endpoint} " in block.text]
    with Transcoder(*[Answer(200, state) for state in states]) as service:
        command = command.replace(f"{host}{endpoint} ", f"{service.url} ")
        command = command.replace(host, service.url.removesuffix("/files/"))
        done = uploader(*shlex.split(command.replace("\\\n", " "))[1:], "--json", home=tmp_path, constants=QUICK)
    assert (done.code, service.refusals) == (0, []), done.err
    assert [asked for asked, _ in service.asked] == [path] * len(states)
    (completed,) = done.of("file.completed")
    assert completed["url"] == (CLOUDFLARE["preview"] if "cloudflare" in host else f"{service.url}u0")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--result-url", "{urls}", READY), "unknown field"),
        (("--result-url", "{id}/x", READY), "is not a URL that begins with"),
        (("--result-url", "http://{id}.example/x", READY), "is not a URL that begins with"),
        (("--result-url", "{url}more", READY), "after {url} comes / or ?"),
        (("--result-url", "https://me:pw@api.example/x", READY), "credentials don't belong in the URL"),
        (("--result-url", "{url}"), "--result-url needs --result-done"),
        ((READY,), "--result-done needs --result-url"),
        (("--result-timeout", "5"), "--result-timeout needs --result-url"),
        (("--result-url", "{url}", "--result-done", "ready"), "--result-done: must be written FIELD=VALUE"),
        (("--result-url", "{url}", "--result-done", "a..b=1"), "--result-done: must be names with dots"),
    ],
)
def test_unusable_options_exit_2_and_name_the_option(
    options: tuple[str, ...], says: str, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"clip.mp4": 1})
    done = uploader("upload", files, "--tus-endpoint", "127.0.0.1:1/files/", *options, home=tmp_path)
    assert done.code == 2
    assert says in done.err
    assert "--result-" in done.err


def test_server_with_sessions_has_no_result_url(make_files: Files, tmp_path: Path) -> None:
    done = uploader("upload", make_files(a=1), "-s", "127.0.0.1:1", "--result-url", "{url}", READY, home=tmp_path)
    assert done.code == 2
    assert "--result-url needs a tus server" in done.err


@pytest.mark.feature("fleet")
def test_import_has_the_url_of_the_environment(make_files: Files, tmp_path: Path) -> None:
    """It has no flag for it, as for other options about a tus server."""
    arguments = ("import", make_files(a=1), "--on", "local:1", "--tus-endpoint", "127.0.0.1:1/files/")
    done = uploader(*arguments, home=tmp_path, UPLOADER_RESULT_URL="{url}")
    assert done.code == 2
    assert "UPLOADER_RESULT_URL needs --result-done" in done.err


def test_config_of_a_working_directory_may_not_set_it(make_files: Files, tmp_path: Path) -> None:
    """It may belong to a stranger."""
    files = make_files(**{"clip.mp4": 1})
    (tmp_path / "uploader.toml").write_text('result-url = "http://127.0.0.1:1/{id}"')
    done = uploader("upload", files, "--tus-endpoint", "127.0.0.1:1/files/", home=tmp_path)
    assert done.code == 2
    assert "not allowed in the config of a working directory" in done.err


def test_conditions_of_a_config_file_wait_for_a_url(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"clip.mp4": 1})
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('result-done = ["status.state=ready"]\nresult-failed = ["status.state=error"]\n')
    with Transcoder(DONE) as service:
        plain = upload(files, service, home=tmp_path)
        asked = len(service.asked)
        waited = upload(files, service, "--result-url", "{url}", "--no-resume", home=tmp_path)
    assert (plain.code, asked, waited.code, len(service.asked)) == (0, 0, 0, 1), waited.err


@pytest.mark.thorough
def test_files_that_are_processed_do_not_keep_others_from_being_sent(make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{f"{number}.mp4": 10 for number in range(20)})
    constants = {**QUICK, "uploader_cli.transfer.scheduler.AHEAD": 4}
    with Transcoder(WORKING) as service:
        arguments = ("upload", files, "--tus-endpoint", service.url, "--result-url", "{url}", READY, "--json")
        process = start(*arguments, home=tmp_path, constants=constants)
        seen = ""
        for _ in range(20):
            seen += read_until(process, "file.progress", lambda event: event["phase"] == "processing")
        service.states = [DONE]
        done = ended(process, seen)
    assert (done.code, done.finished["completed"]) == (0, 20)
