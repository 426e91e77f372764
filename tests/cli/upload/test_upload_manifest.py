"""`uploader upload --from-file`: listed files are sent, bad lines are named, and a list is sent whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from command import ended, read_confirmed, start, uploader
from serving import running_server, runs_of
from tus_services import Plain

from uploader_cli import Settings, upload
from uploader_cli.core.events import FailureCode, FileFailed
from uploader_cli.errors import UsageError
from uploader_cli.selection import selection
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from command import Done

    from uploader_cli.core.plan import LocalFile
    from uploader_cli.result import Result
    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]

KIB = 1 << 10
REFERENCE: dict[str, Any] = {"flavour": "reference", "processing_seconds": 0.01}
SLOW = ("--chunk-size", "16K", "--limit-rate", "20K")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists name files from the working directory on."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(name: str, *lines: str | dict[str, str]) -> Path:
    """A list; rows are written as CSV or JSONL by the suffix."""
    from pathlib import Path

    file = Path(name).resolve()
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = [line for line in lines if isinstance(line, dict)]
        if rows and file.suffix == ".csv":
            writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
        else:
            stream.writelines((json.dumps(line) if isinstance(line, dict) else line) + "\n" for line in lines)
    return file


def sent(url: str, file: Path | str, **settings: Any) -> Result:
    """A run in this process."""
    return upload([], Settings(server=url, from_file=file, **settings))  # type: ignore[arg-type]


def piped(content: bytes, *arguments: str | Path, home: Path) -> Done:
    """The command with a list on its standard input."""
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    try:
        return uploader("upload", "--from-file", "-", *arguments, home=home, stdin=reader)
    finally:
        os.close(reader)


def stored(server: EmbeddedServer) -> dict[str, bytes]:
    """Return what is stored, by category and path."""
    found = [path for category in ("personal", "scenic") for path in (server.root / category).rglob("*")]
    return {str(path.relative_to(server.root)): path.read_bytes() for path in found if path.is_file()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def failures(result: Result) -> list[tuple[str, FailureCode]]:
    return [(receipt.path, receipt.code) for receipt in result.receipts if receipt.code is not None]


# --- what is listed is sent


def test_from_file_sends_the_listed_files_in_order_under_their_paths(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Each file under its path from the working directory, in the order of the list, and nothing else."""
    make_files(**{"a.mp4": 1, "sub/b.mp4": 2, "c.mp4": 3})
    file = listed("list.txt", "files/sub/b.mp4", "files/a.mp4")
    done = uploader("upload", "--from-file", file, "-s", server.url, "--json", "-j", "1", home=tmp_path)
    assert done.code == 0, done.err
    assert [event["path"] for event in done.of("file.completed")] == ["files/sub/b.mp4", "files/a.mp4"]
    assert stored(server) == {"personal/files/sub/b.mp4": b"ss", "personal/files/a.mp4": b"a"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_manifest_columns_set_category_name_and_digest(
    suffix: str, protocol: str, server: EmbeddedServer, make_files: Files
) -> None:
    """A row may set name and category; a file may go to several places, once to each."""
    make_files(**{"a.mp4": b"aaa"})
    row = {"path": "files/a.mp4", "name": "", "category": "", "sha256": sha256(b"aaa")}
    rows = [
        row,
        row | {"category": "scenic"},
        row | {"name": "other/name.mp4"},
        row | {"name": "other/name.mp4", "category": "scenic"},
        row | {"category": "personal"},
    ]
    rows = [{key: value for key, value in row.items() if value or suffix == "csv"} for row in rows]
    result = sent(server.url, listed(f"list.{suffix}", *rows), protocol=protocol)
    assert (result.exit_code, result.outcome.completed, result.outcome.skipped) == (0, 4, 1)
    assert stored(server) == {
        f"{category}/{name}": b"aaa"
        for category in ("personal", "scenic")
        for name in ("files/a.mp4", "other/name.mp4")
    }
    again = sent(server.url, listed(f"list.{suffix}", *rows), protocol=protocol, skip_existing=True)
    assert (again.exit_code, again.outcome.completed, again.outcome.skipped) == (0, 0, 5)


def test_a_session_has_one_category(make_files: Files) -> None:
    """The reference backend takes three files a session, of one type and one category."""
    make_files(**{f"{number}.mp4": 1 for number in range(6)})
    rows = [{"path": f"files/{n}.mp4", "category": "scenic" if n % 2 else "personal"} for n in range(6)]
    with running_server(**REFERENCE) as server:
        result = sent(server.url, listed("list.jsonl", *rows))
        assert result.exit_code == 0
        assert server.faults.count("POST", "/api/upload/session") == 2
        names = {name.partition("/")[0] for name in stored(server)}
    assert names == {"personal", "scenic"}
    places = sorted((receipt.path, str(receipt.location).split("/")[2]) for receipt in result.receipts)
    assert places == [(row["path"], row["category"]) for row in rows]


def test_from_format_overrides_the_suffix_and_a_wrong_guess_names_it(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The format that the suffix does not show; the error for a wrong guess names the right one."""
    make_files(**{"a.mp4": 1})
    file = listed("list", '{"path": "files/a.mp4"}')
    wrong = uploader("upload", "--from-file", file, "-s", server.url, home=tmp_path)
    assert wrong.code == 2
    assert "--from-format jsonl" in wrong.err
    assert sent(server.url, file, from_format="jsonl").exit_code == 0


def test_null_reads_names_with_any_bytes_from_a_pipe(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """As `find -print0` writes them, through a pipe: names with line breaks or bytes that are not UTF-8."""
    make_files(**{"line\nbreak.mp4": 1, "b.mp4": 2})
    odd = os.fsencode(tmp_path / "files") + b"/\xff.mp4"
    with open(odd, "wb") as file:
        file.write(b"odd")
    done = piped(
        b"files/line\nbreak.mp4\0files/b.mp4\0files/\xff.mp4\0", "-0", "-s", server.url, "--json", home=tmp_path
    )
    assert done.code == 0, done.err
    assert done.finished["completed"] == 3
    assert len(stored(server)) == 3
    assert list((tmp_path / "state" / "uploader" / "lists").iterdir()) == []


@pytest.mark.parametrize(("flag", "warning"), [("--null", "warning: --null is deprecated: use -0\n"), ("-0", "")])
@pytest.mark.feature("plan")
def test_null_is_deprecated(
    flag: str, warning: str, make_files: Files, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--null` still works; a file of that name after `--` is none of its uses."""
    from uploader_cli.__main__ import main

    make_files(**{"a.mp4": 1})
    (tmp_path / "list").write_bytes(b"files/a.mp4\0")
    assert main(["upload", "--dry-run", "-q", "--from-file", "list", flag]) == 0
    assert capsys.readouterr().err == warning
    (tmp_path / "--null").write_bytes(b"x")
    main(["upload", "--dry-run", "-q", "--", "--null"])
    assert capsys.readouterr().err == ""


@pytest.mark.feature("plan")
def test_stored_list_may_be_removed_by_a_parallel_run(make_files: Files, tmp_path: Path) -> None:
    """Another run may have removed the file: a dangling symlink has the same effect."""
    make_files(**{"a.mp4": 1})
    lists = tmp_path / "state" / "uploader" / "lists"
    lists.mkdir(parents=True)
    (lists / "gone").symlink_to("nowhere")
    done = piped(b"files/a.mp4\n", "--dry-run", "--json", home=tmp_path)
    assert (done.code, done.err) == (0, "")


def test_a_pipe_is_read_once(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """What the shell makes of `<(command)`: it is kept like standard input, and its suffix still counts."""
    make_files(**{"a.mp4": 1})
    pipe = tmp_path / "list.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('{"path": "files/a.mp4"}\n',))
    writer.start()
    result = sent(server.url, pipe, state_dir=tmp_path / "state")
    writer.join()
    assert (result.exit_code, result.outcome.completed) == (0, 1)
    assert list((tmp_path / "state" / "lists").iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["again.txt", "again.csv", "again.jsonl"])
def test_empty_list_of_failed_files_is_nothing_to_send(
    name: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """What `--failed-to` writes after a good run: exit 0, and no call is made."""
    files = make_files(**{"a.mp4": 1})
    again = tmp_path / name
    assert uploader("upload", files, "-s", server.url, "--failed-to", again, home=tmp_path).code == 0
    before = runs_of(server)
    report = tmp_path / "r.json"
    done = uploader("upload", "--from-file", again, "-s", server.url, "--json", "--report", report, home=tmp_path)
    assert (done.code, done.finished["ok"], runs_of(server)) == (0, True, before), done.err
    assert "✓ nothing to send" in done.err
    assert json.loads(report.read_text())["files"] == []


def test_include_and_exclude_filter_a_list(server: EmbeddedServer, make_files: Files) -> None:
    """A file that is not wanted may be missing."""
    make_files(**{"a.mp4": 1, "raw/b.mp4": 1})
    file = listed("list.txt", "files/a.mp4", "files/raw/b.mp4", "files/raw/gone.mp4")
    assert sent(server.url, file, exclude=("raw/",)).outcome.completed == 1
    with pytest.raises(UsageError, match=r"nothing to upload in .*list\.txt"):
        sent(server.url, file, include=("*.avi",))


def test_a_tus_endpoint_takes_a_list(make_files: Files) -> None:
    """Without sessions, and without categories."""

    make_files(**{"a.mp4": b"aaa"})
    with Plain() as plain:
        row = {"path": "files/a.mp4", "sha256": sha256(b"aaa")}
        assert upload([], Settings(tus_endpoint=plain.url, from_file=listed("list.csv", row))).exit_code == 0
        assert plain.only.content == b"aaa"
        with pytest.raises(UsageError) as raised:
            upload([], Settings(tus_endpoint=plain.url, from_file=listed("list.csv", row | {"category": "scenic"})))
        assert "a tus server has no categories" in raised.value.details[0]


# --- what can't be sent -----------------------------------------------------------------------------------------------


def test_strict_by_default(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Each bad line is named with its number, no request is made, exit 2."""
    make_files(**{"a.mp4": 1})
    file = listed("list.jsonl", {"path": "files/a.mp4"}, {"path": "files/gone.mp4"}, "{", {"path": "files"})
    done = uploader("upload", "--from-file", file, "-s", server.url, "--json", home=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines() == [
        f"error: {file}: 3 of 4 lines are invalid; nothing was sent",
        "  line 2: files/gone.mp4: no such file",
        "  line 3: not valid JSON: Expecting property name enclosed in double quotes (column 2)",
        "  line 4: files: is a directory: give it as PATH, or list its files",
        "hint: fix them, or send the rest with --lenient",
    ]
    assert len(server.faults.requests) == 0


def test_lenient_sends_the_rest_and_fails_bad_lines(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The rest is sent; the bad lines are failed files, in the reports too, and the run ends with 4."""
    make_files(**{"a.mp4": 1, "b.mp4": 1})
    gone = {"path": "files/gone.mp4", "name": "other.mp4", "category": "scenic", "sha256": sha256(b"gone")}
    file = listed("list.jsonl", {"path": "files/a.mp4"}, gone, "{", {"path": "files/b.mp4"})
    report, again = tmp_path / "report.json", tmp_path / "again.jsonl"
    options = ("--lenient", "--json", "--report", report, "--failed-to", again)
    done = uploader("upload", "--from-file", file, "-s", server.url, *options, home=tmp_path)
    assert (done.code, done.finished["completed"], done.finished["failed"]) == (4, 2, 2)
    assert [(event["path"], event["code"]) for event in done.of("file.failed")] == [
        ("files/gone.mp4", "vanished"),
        (f"line 3 of {file}", "bad_line"),
    ]
    written = json.loads(report.read_text(encoding="utf-8"))
    failed = [row for row in written["files"] if row["outcome"] == "failed"]
    assert [row["message"].partition(" (")[0] for row in failed] == [
        "no such file",
        failed[1]["message"].partition(" (")[0],
    ]
    assert written["counts"]["failed"] == 2
    assert [json.loads(line) for line in again.read_text(encoding="utf-8").splitlines()] == [gone]
    assert failed[0]["size"] is None


@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_listed_digest_that_differs_fails_the_file(protocol: str, server: EmbeddedServer, make_files: Files) -> None:
    """It is not sent, the others are, and the run ends with 7."""
    make_files(**{"a.mp4": b"aaa", "b.mp4": b"bbb", "c.mp4": b"ccc"})
    rows = [
        {"path": "files/a.mp4", "sha256": sha256(b"aaa")},
        {"path": "files/b.mp4", "sha256": sha256(b"aaa")},
        {"path": "files/c.mp4", "sha256": ""},
    ]
    result = sent(server.url, listed("list.csv", *rows), protocol=protocol)
    assert result.exit_code == 7
    assert failures(result) == [("files/b.mp4", FailureCode.MISMATCH)]
    assert sorted(stored(server)) == ["personal/files/a.mp4", "personal/files/c.mp4"]


@pytest.mark.parametrize("protocol", ["tus", "batch"])
def test_file_changed_after_its_check_fails(
    protocol: str, server: EmbeddedServer, make_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content was not checked: it is not stored, and the run exits 7."""
    make_files(**{"a.mp4": b"aaa", "b.mp4": b"bbb"})
    check = selection.differs

    def checked_then_changed(file: LocalFile, go_on: Callable[[], None]) -> FileFailed | None:
        found = check(file, go_on)
        if file.path.endswith("b.mp4"):
            with open(file.path, "ab") as stream:
                stream.write(b"!")
        return found

    monkeypatch.setattr(selection, "differs", checked_then_changed)
    rows = [{"path": f"files/{name}.mp4", "sha256": sha256(name.encode() * 3)} for name in "ab"]
    result = sent(server.url, listed("list.csv", *rows), protocol=protocol)
    assert result.exit_code == 7
    assert failures(result) == [("files/b.mp4", FailureCode.MISMATCH)]
    assert sorted(stored(server)) == ["personal/files/a.mp4"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from-file", "list.txt", "files"), "--from-file and PATH exclude each other"),
        (("-0", "files"), "-0 needs a list"),
        (("--lenient", "files"), "--lenient needs a list"),
        (("--from-file", "list.txt", "-0", "--from-format", "csv"), "-0 and --from-format csv exclude each other"),
        (("--from-file", "none.txt"), "none.txt can't be read: No such file or directory"),
        (("--from-file", "files"), "files can't be read: Is a directory"),
        (("--from-file", "list.txt", "--exclude", "*.mp4"), "nothing to upload in"),
        ((), "no path given"),
    ],
)
def test_invalid_list_options_exit_2(
    arguments: Sequence[str], words: str, make_files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, before any request."""
    from uploader_cli.__main__ import main

    make_files(**{"a.mp4": 1})
    listed("list.txt", "files/a.mp4")
    assert main(["upload", *arguments, "-s", "localhost:9"]) == 2
    assert words in capsys.readouterr().err


def test_other_commands_ignore_a_list_of_the_environment(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Upload settings of the environment do not affect `validate`."""
    make_files(**{"a.mp4": 1})
    variable = {"UPLOADER_FROM_FILE": str(listed("list.txt", "files/gone.mp4"))}
    done = uploader("validate", "files/a.mp4", "-s", server.url, "--json", home=tmp_path, **variable)
    assert (done.code, json.loads(done.out)["files"]) == (0, 1)


def test_paths_override_a_list_of_the_environment(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    make_files(**{"a.mp4": 1, "b.mp4": 1})
    variable = {"UPLOADER_FROM_FILE": str(listed("list.txt", "files/b.mp4"))}
    done = uploader("upload", "files/a.mp4", "-s", server.url, "--json", home=tmp_path, **variable)
    assert [event["path"] for event in done.of("file.completed")] == ["files/a.mp4"]
    done = uploader("upload", "-s", server.url, "--json", home=tmp_path, **variable)
    assert [event["path"] for event in done.of("file.completed")] == ["files/b.mp4"]


# --- again ------------------------------------------------------------------------------------------------------------


def test_forget_removes_the_stored_list(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    make_files(**{"a.mp4": 1})
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503)])
    done = piped(b"files/a.mp4\n", "-s", server.url, "--retries", "0", "--json", home=tmp_path)
    lists = tmp_path / "state" / "uploader" / "lists"
    assert (done.code, len(list(lists.iterdir()))) == (3, 1)
    assert uploader("resume", "--forget", done.events[0]["run"], home=tmp_path).code == 0
    assert list(lists.iterdir()) == []


@pytest.mark.parametrize("through", ["file", "pipe"])
def test_killed_run_of_a_list_is_resumed(
    through: str, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """By `uploader resume`; a list that came through a pipe was kept for that, and goes with the run."""
    content = {"a.mp4": os.urandom(10 * KIB), "b.mp4": os.urandom(700 * KIB)}
    make_files(**content)
    file = listed("list.txt", *(f"files/{name}" for name in content))
    source = "-" if through == "pipe" else file
    with file.open("rb") as stream:
        command = ("upload", "--from-file", source, "-s", server.url, "-j", "1", *SLOW, "--json")
        process = start(*command, home=tmp_path, stdin=stream)
    seen = read_confirmed(process, 32 * KIB)
    ended(process, seen, signal.SIGKILL)
    lists = tmp_path / "state" / "uploader" / "lists"
    assert len(list(lists.glob("*"))) == (1 if through == "pipe" else 0)
    assert f"--from-file {source}" in uploader("resume", "--list", home=tmp_path).out
    done = uploader("resume", "--limit-rate", "none", "--json", home=tmp_path)
    assert done.code == 0, done.err
    (began,) = done.of("file.started")
    assert began["offset"] >= 32 * KIB
    assert [(event["path"], event["reason"]) for event in done.of("file.skipped")] == [("files/a.mp4", "present")]
    assert stored(server) == {f"personal/files/{name}": body for name, body in content.items()}
    assert list(lists.glob("*")) == []


@pytest.mark.thorough
def test_the_same_list_through_a_pipe_is_the_same_command(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """The content decides; another list is another command."""
    make_files(**{"a.mp4": 1, "b.mp4": 1})
    server.faults.next_answers("POST", "/api/upload/files/", [Answer(503)])
    options = ("-s", server.url, "--retries", "0", "-j", "1", "--json")
    assert piped(b"files/a.mp4\nfiles/b.mp4\n", *options, home=tmp_path).code == 3
    other = piped(b"files/b.mp4\n", *options, home=tmp_path)
    assert "resumed_from" not in other.events[0]
    same = piped(b"files/a.mp4\nfiles/b.mp4\n", *options, home=tmp_path)
    assert "resumed_from" in same.events[0]
    assert same.code == 0


@pytest.mark.parametrize(
    "suffix", ["jsonl", *(pytest.param(each, marks=pytest.mark.thorough) for each in ("txt", "csv"))]
)
def test_failed_to_list_is_a_valid_list(suffix: str, make_files: Files, tmp_path: Path) -> None:
    """The acceptance of issue 5: every tenth file is refused, and after that all are there exactly once."""
    content = {f"{number:02}.mp4": os.urandom(100) for number in range(30)} | {"deep/x.mp4": os.urandom(100)}
    top = make_files(**content)
    again = tmp_path / f"again.{suffix}"
    with running_server() as server:
        refusals = [400 if number % 10 == 9 else None for number in range(31)]
        server.faults.next_answers("POST", "/api/upload/files/", refusals)
        settings = Settings(server=server.url, jobs=1)
        done = uploader("upload", "files", "-s", server.url, "-j", "1", "--failed-to", again, home=tmp_path)
        assert done.code == 4
        assert len(stored(server)) == 28
        fed = sent(server.url, again, jobs=settings.jobs)
        assert (fed.exit_code, fed.outcome.completed) == (0, 3)
        assert stored(server) == {f"personal/files/{name}": body for name, body in content.items()}
        assert server.faults.count("POST", "/api/upload/files/") == 31 + 3
    assert top.is_dir()


@pytest.mark.thorough
def test_event_stream_is_a_valid_list(make_files: Files, tmp_path: Path) -> None:
    """The lines of the failed files, as a script filters them."""
    content = {f"{number:02}.mp4": os.urandom(100) for number in range(20)}
    make_files(**content)
    with running_server() as server:
        server.faults.next_answers("POST", "/api/upload/files/", [400 if n % 10 == 9 else None for n in range(20)])
        done = uploader("upload", "files", "-s", server.url, "-j", "1", "--json", home=tmp_path)
        assert (done.code, len(done.of("file.failed"))) == (4, 2)
        lines = "".join(json.dumps(event) + "\n" for event in done.of("file.failed"))
        fed = piped(lines.encode(), "--from-format", "jsonl", "-s", server.url, "--json", home=tmp_path)
        assert (fed.code, fed.finished["completed"]) == (0, 2)
        assert stored(server) == {f"personal/files/{name}": body for name, body in content.items()}


@pytest.mark.feature("plan")
def test_a_dry_run_reads_the_list_and_compares(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """It ends as the run would: a file that is another than was listed is exit 7; bad lines are exit 2."""
    make_files(**{"a.mp4": b"aaa", "b.mp4": b"bbb"})
    rows = [{"path": "files/a.mp4", "category": "scenic", "sha256": sha256(b"aaa")}]
    rows.append({"path": "files/b.mp4", "category": "", "sha256": sha256(b"aaa")})
    file = listed("list.csv", *rows)
    done = piped(file.read_bytes(), "--from-format", "csv", "--dry-run", "--json", "-s", server.url, home=tmp_path)
    assert done.code == 7, done.err
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["category"] for line in lines if line["type"] == "plan.session"] == ["scenic"]
    assert [line["code"] for line in lines if line["type"] == "file.failed"] == ["mismatch"]
    assert lines[-1]["exit_code"] == 7
    assert list((tmp_path / "state" / "uploader" / "lists").iterdir()) == []
    missing = uploader(
        "upload", "--from-file", listed("gone.txt", "gone"), "--dry-run", "-s", server.url, home=tmp_path
    )
    assert missing.code == 2
    assert [request.path for request in server.faults.requests] == ["/health"]


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_link_in_the_place_of_a_listed_file_is_followed_only_on_request(
    suffix: str, make_files: Files, tmp_path: Path
) -> None:
    """Of a file that had failed; whoever may write to its directory could have any file of this user sent."""
    clip, again = make_files(**{"clip.mp4": 10}) / "clip.mp4", tmp_path / f"failed.{suffix}"
    (tmp_path / "private").write_text("nobody's business")
    with running_server(fail_files=("clip*",)) as server:
        options = ("-s", server.url, "--no-resume")
        assert uploader("upload", "files", *options, "--failed-to", again, home=tmp_path).code == 4
        clip.unlink()
        clip.symlink_to(tmp_path / "private")
    with running_server() as server:
        listed = ("upload", "--from-file", again, "-s", server.url)
        refused = uploader(*listed, home=tmp_path)
        assert (refused.code, "a symbolic link" in refused.err) == (2, True)
        assert uploader(*listed, "--lenient", home=tmp_path).code == 4
        assert list((server.root / "personal").iterdir()) == []
        assert uploader(*listed, "--follow-links", home=tmp_path).code == 0
        assert (server.root / "personal/files/clip.mp4").read_text() == "nobody's business"
