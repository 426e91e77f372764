"""The list of files to retry, read back by `--from-file`: any name, in each format."""

from __future__ import annotations

import base64
import csv
import io
import os
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.events import FailureCode, FileEnded, Phase
from uploader_cli.core.names import as_base64, escaped
from uploader_cli.core.protocol import utf8
from uploader_cli.report.document import row_of
from uploader_cli.report.formats import CSV_COLUMNS, as_csv, as_manifest, needs_nul
from uploader_cli.report.recorder import Spool
from uploader_cli.report.run_files import outputs
from uploader_cli.selection import manifest_lines
from uploader_cli.selection.manifest import format_of
from uploader_cli.selection.manifest_lines import Entry, Format, parse
from uploader_cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [
    b"plain.mp4",
    b'two words, and "quotes".mp4',
    b"#no comment.mp4",
    b" spaces ",
    "空.mp4".encode(),
    b"odd\xff\xfe.mp4",
    b'{"path": "x"}',
    b"tab\t\x1b.mp4",
    b"below/it.mp4",
    b"=1+1.csv",
    b"-0",
]
WITH_BREAKS = ["\ufeffmarked".encode(), b"line\nbreak.mp4", b"return\r", b"\n"]


@pytest.fixture
def spool() -> Iterator[Spool]:
    made = Spool()
    yield made
    made.close()


def fill(spool: Spool, names: list[bytes], **more: str) -> None:
    for number, name in enumerate(names):
        path = os.fsdecode(name)
        row = FileEnded(number, path, 1, Phase.FAILED, relative_path=path, **more)  # type: ignore[arg-type]
        spool.put(row_of(row))
    spool.put(row_of(FileEnded(len(names), "there.mp4", 1, Phase.COMPLETED)))


def read_back(path: Path, spool: Spool, kind: Format | None = None) -> list[Entry]:
    from uploader_cli.report import output_file

    output_file.write(path, as_manifest(path, spool), "tag")
    with path.open("rb") as stream:
        entries = list(parse(stream, kind or format_of(path.name)))
    assert all(isinstance(entry, Entry) for entry in entries), entries
    return entries  # type: ignore[return-value]


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "ndjson"])
def test_retry_list_keeps_any_name(spool: Spool, tmp_path: Path, suffix: str) -> None:
    fill(spool, NAMES)
    entries = read_back(tmp_path / f"again.{suffix}", spool)
    assert [os.path.normpath(os.fsencode(entry.path)) for entry in entries] == NAMES


@pytest.mark.parametrize(("suffix", "kind"), [("txt", Format.NUL), ("csv", None), ("jsonl", None)])
def test_retry_list_keeps_line_breaks(spool: Spool, tmp_path: Path, suffix: str, kind: Format | None) -> None:
    fill(spool, WITH_BREAKS + NAMES)
    path = tmp_path / f"again.{suffix}"
    assert needs_nul(path, spool) == (kind is Format.NUL)
    entries = read_back(path, spool, kind)
    assert [os.path.normpath(os.fsencode(entry.path)) for entry in entries] == WITH_BREAKS + NAMES


@pytest.mark.parametrize("name", WITH_BREAKS)
def test_each_name_with_a_break_or_mark_needs_nul(spool: Spool, tmp_path: Path, name: bytes) -> None:
    fill(spool, [name])
    assert needs_nul(tmp_path / "again.txt", spool)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_name_category_and_digest_survive(spool: Spool, tmp_path: Path, suffix: str) -> None:
    digest = "ab" * 32
    row = FileEnded(0, "/data/a.mp4", 1, Phase.CANCELLED, relative_path="b/c.mp4", category="scenic", sha256=digest)
    spool.put(row_of(row))
    (entry,) = read_back(tmp_path / f"again.{suffix}", spool)
    assert (entry.path, entry.name, entry.category, entry.sha256) == ("/data/a.mp4", "b/c.mp4", "scenic", digest)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_name_of_odd_characters_keeps_its_directory(spool: Spool, tmp_path: Path, suffix: str) -> None:
    names = [os.fsdecode(b"deep/" + name) for name in NAMES + WITH_BREAKS]
    for number, name in enumerate(names):
        spool.put(row_of(FileEnded(number, f"/data/{name}", 1, Phase.FAILED, relative_path=name)))
    assert [entry.name for entry in read_back(tmp_path / f"again.{suffix}", spool)] == [utf8(name) for name in names]


def test_a_report_as_csv_is_a_list_itself(spool: Spool, tmp_path: Path) -> None:
    """Of all its files: each column is known to what reads lists."""
    fill(spool, NAMES)
    path = tmp_path / "report.csv"
    path.write_text("".join(as_csv({}, spool)), encoding="utf-8")
    with path.open("rb") as stream:
        entries = list(parse(stream, Format.CSV))
    assert [os.path.normpath(os.fsencode(entry.path)) for entry in entries] == [*NAMES, b"there.mp4"]
    assert set(CSV_COLUMNS) <= {*manifest_lines.COLUMNS, *manifest_lines.OTHERS}


@pytest.mark.parametrize("start", list("=+-@\t"))
def test_no_cell_begins_a_formula(spool: Spool, tmp_path: Path, start: str) -> None:
    """Names and words from outside, in both CSVs; the list names the same file under the same name."""
    word = f"{start}cmd|'calc'!A1"
    row = FileEnded(0, word, 1, Phase.FAILED, relative_path=word, code=FailureCode.SERVER_FAILED, message=word)
    spool.put(row_of(row))
    spool.put(row_of(FileEnded(1, "b", 1, Phase.COMPLETED, server_id=word, location=word, session=word)))
    texts = ["".join(as_csv({}, spool)), "".join(as_manifest(tmp_path / "again.csv", spool))]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    (entry,) = read_back(tmp_path / "again.csv", spool)
    assert (os.path.normpath(entry.path), entry.name) == (word, word)


def test_report_fields_of_an_unusual_name() -> None:
    name = os.fsdecode(b"odd\xff.mp4")
    assert (escaped(name), base64.b64decode(as_base64(name) or "")) == ("odd\\xff.mp4", b"odd\xff.mp4")


def test_retry_list_of_an_incomplete_walk_is_marked(spool: Spool, tmp_path: Path) -> None:
    """A user who retries only this list would lose files without notice."""
    fill(spool, [b"a.mp4"])
    (write,) = outputs(Settings(failed_to=tmp_path / "again.txt"), {})
    assert write({"selection_complete": True}, spool) == ""
    assert "before all files were found" in write({"selection_complete": False}, spool)
    assert (tmp_path / "again.txt").read_text() == "a.mp4\n"


def test_a_line_of_a_list_that_names_no_file_is_not_tried_again(spool: Spool, tmp_path: Path) -> None:
    fill(spool, [b"a.mp4"])
    spool.put(row_of(FileEnded(5, "line 3", None, Phase.FAILED, code=FailureCode.BAD_LINE)))
    assert list(as_manifest(tmp_path / "again.txt", spool)) == ["a.mp4\n"]
