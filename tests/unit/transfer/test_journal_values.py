"""Every value comes back from the journal as it was written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.transfer.journal_fakes import HERE, a_file, begin, claimed

from uploader_cli.core.confirmation import Ending
from uploader_cli.transfer.journal.journal import Journal
from uploader_cli.transfer.journal.reading import PendingPart, PendingUpload
from uploader_cli.transfer.journal.receipts import Stored

NAMES = st.binary(min_size=1, max_size=20).filter(lambda raw: raw not in (b".", b"..") and not set(raw) & {0, 0x2F})
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: os.fsdecode(b"/data/" + b"/".join(names)))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
OFFSETS = st.integers(0, 1 << 62)
PARTS = st.builds(
    PendingPart,
    OFFSETS,
    OFFSETS,
    OFFSETS,
    TEXTS,
    st.none() | TEXTS,
    OFFSETS,
    OFFSETS,
    st.none() | OFFSETS,
    st.sampled_from(Ending),
)
KEYS = TEXTS.map(lambda text: text.replace(":", ""))
POSITIONS = st.just("") | st.integers(0, 999_999_999).map(":{}".format)  # of files in packs
UPLOADS = st.builds(
    PendingUpload,
    st.builds(str.__add__, KEYS, POSITIONS),
    st.none() | TEXTS,
    st.none() | TEXTS,
    OFFSETS,
    OFFSETS,
    parts=st.lists(PARTS, max_size=2).map(tuple),
    server_id=st.none() | TEXTS,
    sent_until=st.none() | OFFSETS,
    ending=st.sampled_from(Ending),
    replaced=st.lists(TEXTS, max_size=2).map(tuple),
)


@st.composite
def stored(draw: st.DrawFn) -> Stored:
    """Return a receipt whose location often ends with the path or the name of the file, as those of servers do."""
    path = draw(PATHS)
    file = a_file(path)
    name = draw(st.sampled_from([file.relative_path, path.removeprefix("/data/"), path, ""]))
    start = draw(TEXTS | st.sampled_from(["/uploads/tus/", "/uploads/", "https://h/x/", ""]))
    end = draw(st.sampled_from([quote(os.fsencode(name)), name.encode("utf-8", "replace").decode(), "?x"]))
    digest = draw(st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex))
    server_id = draw(st.none() | TEXTS | st.uuids().map(str) | st.binary(max_size=16).map(bytes.hex))
    return Stored(file, server_id, draw(st.none() | st.just(start + end)), digest, draw(st.booleans()))


@pytest.mark.thorough
@given(row=stored())
@example(row=Stored(a_file("/data/a\nb.bin"), None, "/uploads/tus/data/a%0Ab.bin"))
def test_receipt_comes_back_as_it_was_written(row: Stored) -> None:
    with tempfile.TemporaryDirectory() as directory:
        with Journal(Path(directory)) as journal:
            run = begin(journal, "a")
            claimed(run, row.file)
            run.completed([row])
            run.finish(ok=False)
        with Journal(Path(directory)) as journal:
            run = begin(journal, "a")
            assert run.receipts([row.file]) == [row]
            assert claimed(run, row.file).receipt == row


@pytest.mark.thorough
@given(path=PATHS, upload=UPLOADS)
def test_upload_comes_back_as_it_was_written(path: str, upload: PendingUpload) -> None:
    file = a_file(path)
    with tempfile.TemporaryDirectory() as directory:
        with Journal(Path(directory)) as journal:
            run = journal.begin(HERE, {})
            claimed(run, file)
            run.update(file, **{name: getattr(upload, name) for name in PendingUpload.__dataclass_fields__})
            run.close()
        with Journal(Path(directory)) as journal:
            assert claimed(journal.begin(HERE, {}), file).upload == upload
