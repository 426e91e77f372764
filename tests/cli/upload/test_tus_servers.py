"""Uploads to tus servers in the wild: metadata, and uploads that exist already."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from command import uploader
from rewriting import rewrite
from scripted_server import Answer
from tus_services import Service, Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from scripted_server import Request

    Files = Callable[..., Path]

MAY_1 = 1_777_636_800  # 2026-05-01 12:00 UTC


@pytest.fixture
def plain() -> Iterator[Service]:
    with Service() as service:
        yield service


def test_metadata_fields_describe_each_file(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Every field, text around it, a key without a value, and braces that are no field."""
    files = make_files(**{"deep/a.b.mp4": b"bytes"})
    os.utime(files / "deep" / "a.b.mp4", (MAY_1, MAY_1))
    given = {
        "path": "{path}",
        "title": "{stem} – {date}",
        "filename": "{name}",
        "ext": "{ext}",
        "kind": "{type}",
        "size": "{size}",
        "digest": "{sha256}",
        "requiresignedurls": "",
        "meta": '{"a": {"b": 1}}',
    }
    options = [f"--metadata={key}={template}" for key, template in given.items()]
    done = uploader("upload", files, "--tus-endpoint", plain.url, *options, home=tmp_path)
    assert done.code == 0, done.err
    sent = plain.only.metadata
    assert {key: sent[key] for key in given} == {
        "path": "files/deep/a.b.mp4",
        "title": "a.b – 2026-05-01",
        "filename": "a.b.mp4",
        "ext": "mp4",
        "kind": "video/mp4",
        "size": "5",
        "digest": hashlib.sha256(b"bytes").hexdigest(),
        "requiresignedurls": "",
        "meta": '{"a": {"b": 1}}',
    }
    assert sent["relativePath"] == "files/deep/a.b.mp4", "the usual metadata remains"


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_column_of_a_list_overrides_metadata(suffix: str, plain: Service, make_files: Files, tmp_path: Path) -> None:
    """Its value is taken literally; a line without one gets the template. A file can have several destinations."""
    files = make_files(**{"a.mp4": 1, "b.mp4": 1})
    rows = [(files / "a.mp4", "{name}"), (files / "a.mp4", "two"), (files / "b.mp4", None)]
    listed = tmp_path / f"list.{suffix}"
    if suffix == "csv":
        lines = ["path,title", *(f"{path},{title or ''}" for path, title in rows)]
    else:
        lines = [json.dumps({"path": str(path)} | ({"title": title} if title else {})) for path, title in rows]
    listed.write_text("\n".join(lines))
    done = uploader(
        "upload", "--from-file", listed, "--tus-endpoint", plain.url, "--metadata", "title={stem}", home=tmp_path
    )
    assert done.code == 0, done.err
    assert sorted(upload.metadata["title"] for upload in plain.uploads.values()) == ["b", "two", "{name}"]


@pytest.mark.thorough
def test_failed_to_list_keeps_metadata_of_each_line(
    subtests: pytest.Subtests, plain: Service, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": 1})
    (tmp_path / "list.csv").write_text(f"path,title\n{files / 'a.mp4'},first\n")
    for suffix in ("csv", "jsonl"):
        with subtests.test(suffix=suffix):
            again = tmp_path / f"again.{suffix}"
            plain.locked = 1
            options = ("--tus-endpoint", plain.url, "--metadata", "title=other", "--retries", "0")
            failed = uploader(
                "upload",
                "--from-file",
                tmp_path / "list.csv",
                *options,
                "--no-resume",
                "--failed-to",
                again,
                home=tmp_path,
            )
            assert failed.code == 3
            plain.uploads.clear()
            assert uploader("upload", "--from-file", again, *options, "--no-resume", home=tmp_path).code == 0
            assert plain.only.metadata["title"] == "first"


def test_metadata_without_value_needs_a_column(plain: Service, make_files: Files, tmp_path: Path) -> None:
    files = make_files(**{"a.mp4": 1, "b.mp4": 1})
    options = ("--tus-endpoint", plain.url, "--metadata", "bucket")
    done = uploader("upload", files, *options, home=tmp_path)
    assert done.code == 2
    assert "--metadata bucket=VALUE" in done.err
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,bucket\n{files / 'a.mp4'},x\n{files / 'b.mp4'},\n")
    done = uploader("upload", "--from-file", listed, *options, home=tmp_path)
    assert done.code == 2
    assert "line 3: no value for bucket" in done.err
    assert not plain.uploads
    listed.write_text(f"path,bucket\n{files / 'a.mp4'},x\n{files / 'b.mp4'},y\n")
    assert uploader("upload", "--from-file", listed, *options, home=tmp_path).code == 0
    assert sorted(upload.metadata["bucket"] for upload in plain.uploads.values()) == ["x", "y"]
    done = uploader("upload", "--from-file", listed, *options[:2], "--metadata", "name", home=tmp_path)
    assert done.code == 2
    assert "the column name of a list means something else" in done.err


class Naming(Service):
    """Names uploads by their metadata, as @uploadx/core does: a repeated creation is answered with what is there."""

    methods = "OPTIONS POST HEAD PATCH GET"

    def __init__(self, *, readable: bool = True) -> None:
        super().__init__()
        self.readable, self.sent = readable, 0

    def _post(self, request: Request) -> Answer:
        if not self.uploads:
            return super()._post(request)
        return Answer(200, headers={"Location": "/files/u0", "Upload-Offset": len(self.only.content)})

    def _patch(self, request: Request) -> Answer:
        self.sent += len(request.body)
        return super()._patch(request)


@pytest.mark.parametrize(
    ("there", "readable", "code", "ends"),
    [
        (b"a" * 100, True, 0, "file.completed"),
        (b"b" * 100, True, 7, "file.failed"),
        (b"a" * 100, False, 4, "file.failed"),
        (b"a" * 60, True, 0, "file.completed"),
        (b"b" * 60, True, 7, "file.failed"),
        (b"b" * 60, False, 4, "file.failed"),
    ],
    ids=[
        *("full and equal", "full and different", "full and unreadable"),
        *("a part", "a part that differs", "a part and unreadable"),
    ],
)
def test_upload_that_the_server_had_before_is_compared(
    there: bytes, readable: bool, code: int, ends: str, make_files: Files, tmp_path: Path
) -> None:
    """Where no receipt has the file. What is missing is sent."""
    files = make_files(**{"a.mp4": b"a" * 100})
    with Naming(readable=readable) as service:
        service.existing(100, there)
        done = uploader("upload", files, "--tus-endpoint", service.url, "--json", home=tmp_path)
    assert (done.code, len(done.of(ends)), service.sent) == (code, 1, 100 - len(there)), done.err


class Receiving(Service):
    """Takes bytes with a creation, and answers 200 then, whether it has stored them or knew a complete upload.

    So does @uploadx/core. For uploads of the names `signed` it answers 201, as another server beside it would.
    """

    extensions = "creation,creation-with-upload"
    methods = "OPTIONS POST HEAD PATCH GET"

    class Known(Exception):
        """The upload is there."""

    def __init__(self, *, readable: bool = False, signed: Iterable[str] = ()) -> None:
        super().__init__()
        self.readable, self.sent, self._signed = readable, 0, set(signed)

    @property
    def stored(self) -> dict[str, bytes]:
        """The content of the uploads, by their names."""
        return {upload.metadata["filename"]: bytes(upload.content) for upload in self.uploads.values()}

    def create(self, upload: Upload, headers: dict[str, str]) -> dict[str, str]:
        for name, other in self.uploads.items():
            same = all(upload.metadata[key] == other.metadata[key] for key in ("filename", "lastModified"))
            if same and upload.length == other.length == len(other.content):
                raise self.Known(name)
        self._is_signed = upload.metadata["filename"] in self._signed
        return {}

    def _post(self, request: Request) -> Answer:
        try:
            answer = super()._post(request)
        except self.Known as known:
            name = str(known)
            return Answer(200, headers={"Location": f"/files/{name}", "Upload-Offset": len(self.uploads[name].content)})
        return replace(answer, status=200 if request.body and not self._is_signed else 201)

    def _patch(self, request: Request) -> Answer:
        self.sent += len(request.body)
        return super()._patch(request)


@pytest.mark.parametrize(("readable", "code"), [(False, "outcome_unknown"), (True, "integrity")])
@pytest.mark.feature("then")
def test_other_bytes_under_a_known_name_size_and_time_are_not_confirmed(
    readable: bool, code: str, make_files: Files, tmp_path: Path
) -> None:
    """With and without bytes in its creation, a new upload is; nothing else is deleted."""
    names = [f"{number}.mp4" for number in range(6)]
    files = make_files(**{name: name.encode() * 20 for name in names})
    with Receiving(readable=readable) as service:
        options = ("--tus-endpoint", service.url, "-j", "2", "--then-unverified", "--json")
        here = uploader("upload", files, *options, home=tmp_path)
        sent = service.stored
        for name in names:
            rewrite(files / name, b"x" * (files / name).stat().st_size)
        (elsewhere := tmp_path / "elsewhere").mkdir()
        done = uploader("upload", files, *options, "--then", "delete", home=elsewhere)
    assert (here.code, here.finished["completed"], len(sent)) == (0, 6, 6), here.err
    assert done.code == {"outcome_unknown": 4, "integrity": 7}[code], done.err
    assert [event["code"] for event in done.of("file.failed")] == [code] * 6
    assert (service.stored, len(list(files.iterdir()))) == (sent, 6)


@pytest.mark.parametrize(("readable", "code"), [(False, "outcome_unknown"), (True, "integrity")])
@pytest.mark.feature("then")
def test_creation_that_is_answered_with_200_after_others_with_201_confirms_nothing(
    readable: bool, code: str, make_files: Files, tmp_path: Path
) -> None:
    """The file is compared, and the last byte of those after it is sent alone."""
    files = make_files(**{f"{name}.mp4": name.encode() * 20 for name in "abcd"})
    with Receiving(readable=readable, signed=("a.mp4", "b.mp4")) as service:
        options = ("--tus-endpoint", service.url, "-j", "1", "--json")
        assert uploader("upload", files / "c.mp4", *options, "--dest", "files", home=tmp_path).code == 0
        rewrite(files / "c.mp4", b"x" * 20)
        (elsewhere := tmp_path / "elsewhere").mkdir()
        service.sent = 0
        done = uploader("upload", files, *options, "--then", "delete", "--then-unverified", home=elsewhere)
    assert [event["code"] for event in done.of("file.failed")] == [code], done.err
    assert done.finished["completed"] == 3
    assert [path.name for path in files.iterdir()] == ["c.mp4"]
    assert service.stored == {f"{name}.mp4": name.encode() * 20 for name in "abcd"}
    assert service.sent == 2, "the last bytes of the first file, and of that after the 200"


@pytest.mark.parametrize(
    ("known", "patches", "cut"),
    [({}, 1, 1), ({"UPLOADER_BYTES_AT_CREATION": "yes"}, 0, 0), ({"UPLOADER_CHUNK_RULE": "100"}, 20, 0)],
    ids=["nothing", "setting", "rule for chunks"],
)
def test_bytes_go_with_creations_once_the_server_tells_new_uploads(
    known: dict[str, str], patches: int, cut: int, make_files: Files, tmp_path: Path
) -> None:
    """A setting says it before; where chunks have a rule no part of one is sent to find out."""
    files = make_files(**{f"{number}.mp4": 100 for number in range(20)})
    with Service() as service:
        service.extensions = "creation,creation-with-upload"  # type: ignore[misc]
        done = uploader("upload", files, "--tus-endpoint", service.url, "-j", "1", "--json", home=tmp_path, **known)
        chunks = [upload.chunks for upload in service.uploads.values()]
        methods = [method for method, _ in service.requests]
    assert (done.code, methods.count("PATCH")) == (0, patches), done.err
    assert sorted(chunks) == [[99, 1]] * cut + [[100]] * (20 - cut)


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ((), 0),
        (("--no-resume",), 0),
        pytest.param(("--then", "delete"), 0, marks=pytest.mark.feature("then")),
    ],
)
def test_file_that_a_repeated_creation_finds_is_present_by_its_receipt(
    more: tuple[str, ...], sent: int, make_files: Files, tmp_path: Path
) -> None:
    """`--then` reads it."""
    files = make_files(**{"a.mp4": b"a" * 100})
    with Naming() as service:
        command = ("upload", files, "--tus-endpoint", service.url, "--json")
        assert uploader(*command, home=tmp_path).code == 0
        service.sent = 0
        again = uploader(*command, *more, home=tmp_path)
    assert (again.code, service.sent) == (0, sent), again.err
    assert [event["reason"] for event in again.of("file.skipped")] == ["present"]
    assert (files / "a.mp4").exists() == ("delete" not in more)


@pytest.mark.parametrize(("content", "code"), [(b"a" * 100, 0), (b"b" * 100, 7)])
@pytest.mark.parametrize("digest", [(), ("--digest",)])
def test_file_that_may_have_changed_since_its_receipt_is_compared_with_the_upload(
    digest: tuple[str, ...], content: bytes, code: int, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": b"a" * 100})
    with Naming() as service:
        command = ("upload", files, "--tus-endpoint", service.url, "--json")
        assert uploader(*command, *digest, home=tmp_path).code == 0
        rewrite(files / "a.mp4", content)
        assert uploader(*command, home=tmp_path).code == code


@pytest.mark.feature("then")
def test_unknown_upload_of_somebody_else_stays_unknown_until_it_is_read(make_files: Files, tmp_path: Path) -> None:
    """Also for a file in several chunks: nobody writes to it between the runs."""
    files = make_files(**{"a.mp4": b"a" * 3000})
    with Mounted(files / "a.mp4") as service:
        service.existing(3000, b"a" * 3000)
        command = ("upload", files, "--tus-endpoint", service.url, "--chunk-size", "1K", "--json")
        for readable in (False, False, True):
            service.readable = readable
            done = uploader(*command, *(["--then", "delete"] * readable), home=tmp_path)
            codes = [event["code"] for event in done.of("file.failed")]
            assert (done.code, codes) == (4, ["kept" if readable else "outcome_unknown"]), done.err
            assert "foreign_bytes" not in [event["code"] for event in done.of("warning")]
    assert (files / "a.mp4").exists()


class Mounted(Naming):
    """Gives out the file `stored`, which is a local one: the store of the server is mounted here."""

    def __init__(self, stored: Path) -> None:
        super().__init__()
        self.stored = stored

    def _answer(self, request: Request) -> Answer | None:
        if request.method in ("HEAD", "GET") and self.uploads and not self.stored.exists():
            return Answer(404)
        return super()._answer(request)


@pytest.mark.parametrize("sent_before", [False, True], ids=["without a receipt", "with a receipt"])
@pytest.mark.feature("then")
def test_then_keeps_a_local_file_that_is_the_upload_which_the_server_had(
    sent_before: bool, make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"a.mp4": b"a" * 100})
    with Mounted(files / "a.mp4") as service:
        command = ("upload", files, "--tus-endpoint", service.url, "--json")
        if sent_before:
            assert uploader(*command, home=tmp_path).code == 0
        else:
            service.existing(100, b"a" * 100)
        done = uploader(*command, "--then", "delete", home=tmp_path)
    assert (files / "a.mp4").read_bytes() == b"a" * 100
    assert [event["code"] for event in done.of("file.failed")] == ["kept"], done.err


@pytest.mark.feature("then")
def test_then_keeps_a_file_while_the_server_does_not_say_whether_it_has_its_own(
    make_files: Files, tmp_path: Path
) -> None:
    """The next file is handled after that."""
    files = make_files(**{"a.mp4": b"a" * 100})

    class Silent(Mounted):
        def _answer(self, request: Request) -> Answer | None:
            answer = super()._answer(request)
            return None if request.method == "GET" and answer is not None and answer.status == 404 else answer

    with Silent(files / "a.mp4") as service:
        service.existing(100, b"a" * 100)
        command = ("upload", files, "--tus-endpoint", service.url, "--json", "--retries", "0", "--then", "delete")
        done = uploader(*command, home=tmp_path)
    assert (done.code, (files / "a.mp4").exists()) == (3, True), done.err
    assert [event["code"] for event in done.of("file.failed")] == ["kept"], done.err


@pytest.mark.thorough
def test_other_metadata_is_another_destination(plain: Service, make_files: Files, tmp_path: Path) -> None:
    """What an interrupted run has sent into one bucket is not in another one."""
    files = make_files(**{"a.mp4": 10, "b.mp4": 10})
    options = ("--tus-endpoint", plain.url, "-j", "1", "--retries", "0", "--json")
    plain.locked = 1
    assert uploader("upload", files, *options, "--metadata", "bucket=one", home=tmp_path).code == 3
    other = uploader("upload", files, *options, "--metadata", "bucket=two", home=tmp_path)
    assert (other.code, other.finished["completed"]) == (0, 2)
    assert [upload.metadata["bucket"] for upload in plain.uploads.values()].count("two") == 2
    same = uploader("upload", files, *options, "--metadata", "bucket=one", home=tmp_path)
    assert (same.code, same.events[0]["resumed_from"] is not None, same.finished["completed"]) == (0, True, 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("title={nmae}", "there is no field {nmae}"),
        ("=x", "must be written KEY=TEMPLATE"),
        ("a b=x", "must be written KEY=TEMPLATE"),
        ("ü=x", "must be written KEY=TEMPLATE"),
    ],
)
def test_invalid_metadata_exits_2(value: str, said: str, make_files: Files, tmp_path: Path) -> None:
    done = uploader("upload", make_files(a=1), "--tus-endpoint", "localhost:1", "--metadata", value, home=tmp_path)
    assert done.code == 2
    assert said in done.err


def test_tus_options_without_endpoint_exit_2(make_files: Files, tmp_path: Path) -> None:
    """On the command line; those of the environment or a config file wait for a tus endpoint."""
    files = make_files(**{"a.mp4": 1})
    done = uploader("upload", files, "-s", "localhost:1", "--metadata", "a=b", home=tmp_path)
    assert done.code == 2
    assert "--metadata needs a tus server" in done.err
    ignored = uploader("upload", files, "-s", "localhost:1", home=tmp_path, UPLOADER_METADATA="a=b")
    assert ignored.code == 6


def test_place_is_metadata_that_is_sent(plain: Service, make_files: Files, tmp_path: Path) -> None:
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    files = make_files(**{"a/same.mp4": 10, "b/same.mp4": 10})
    config.write_text('place = ["filename"]')
    done = uploader("upload", files, "--tus-endpoint", plain.url, home=tmp_path)
    assert (done.code, len(plain.uploads)) == (4, 1)
    config.write_text('place = ["title"]')
    done = uploader("upload", files, "--tus-endpoint", plain.url, home=tmp_path)
    assert done.code == 2
    assert "place: no metadata title is sent" in done.err
