"""tuspy uploads to the bundled server, and the stored bytes are equal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import requests
from time_limits import PATIENCE
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.storage.filestorage import FileStorage
from tusclient.uploader.uploader import Uploader

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from interop.foreign import Destination

pytestmark = [pytest.mark.interop, pytest.mark.partner("tuspy", "tuspy")]

KIB = 1 << 10
NAME = "Grüße 東京.bin"


@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "sha1"])
@pytest.mark.parametrize("size", [0, 1, 1000 * KIB])
@pytest.mark.cases("upload", "empty", "unicode", "checksum")
def test_tuspy_uploads_in_chunks(
    destination: Destination, make_file: Callable[[str, int], Path], size: int, checksum: bool
) -> None:
    file = make_file("a.bin", size)
    upload = TusClient(destination.endpoint).uploader(
        str(file), chunk_size=256 * KIB, metadata=destination.metadata(NAME), upload_checksum=checksum
    )
    upload.upload()
    destination.check(upload.url, NAME, file.read_bytes())


def test_metadata_comes_back(destination: Destination, make_file: Callable[[str, int], Path]) -> None:
    """HEAD returns the metadata as sent; `relativePath` sets the path of the file."""
    metadata = {**destination.metadata("a.bin"), "relativePath": f"trip/{NAME}", "note": "x, y"}
    file = make_file("a.bin", 1000)
    upload = TusClient(destination.endpoint).uploader(str(file), metadata=metadata)
    upload.upload()
    assert upload.url is not None
    answer = requests.head(upload.url, headers={"Tus-Resumable": "1.0.0"}, timeout=PATIENCE)
    assert answer.headers["upload-metadata"] == ",".join(upload.encode_metadata())
    destination.check(upload.url, f"trip/{NAME}", file.read_bytes())


@pytest.mark.cases("resume")
@pytest.mark.parametrize("checksum", [False, True], ids=["plain", "sha1"])
def test_resume_by_url(destination: Destination, make_file: Callable[[str, int], Path], checksum: bool) -> None:
    """The second uploader knows only the URL."""
    file = make_file("a.bin", 1000 * KIB)
    options: dict[str, Any] = {"chunk_size": 256 * KIB, "upload_checksum": checksum}
    first = TusClient(destination.endpoint).uploader(str(file), metadata=destination.metadata(NAME), **options)
    first.upload(stop_at=512 * KIB)
    rest = Uploader(str(file), url=first.url, **options)
    assert rest.offset == 512 * KIB
    rest.upload()
    destination.check(first.url, NAME, file.read_bytes())


def test_resume_from_its_storage(
    destination: Destination, make_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    """A new upload of the same file resumes the earlier one."""
    file = make_file("a.bin", 1000 * KIB)

    def uploader() -> Uploader:
        storage = FileStorage(str(tmp_path / "urls.json"))
        metadata = destination.metadata(NAME)
        client = TusClient(destination.endpoint)
        return client.uploader(str(file), chunk_size=256 * KIB, metadata=metadata, store_url=True, url_storage=storage)

    uploader().upload_chunk()
    rest = uploader()
    assert rest.offset == 256 * KIB
    rest.upload()
    destination.check(rest.url, NAME, file.read_bytes())


def test_tuspy_resends_a_refused_chunk(destination: Destination, make_file: Callable[[str, int], Path]) -> None:
    """After a 503 tuspy requests the offset and continues; without retries it fails."""
    file = make_file("a.bin", 1000 * KIB)
    upload = TusClient(destination.endpoint).uploader(
        str(file), chunk_size=256 * KIB, metadata=destination.metadata(NAME), retry_delay=0
    )
    upload.upload_chunk()
    destination.server.faults.next_answers("PATCH", "/api/upload/files/*", [Answer(503), Answer(503)])
    with pytest.raises(TusUploadFailed):
        upload.upload()
    upload.retries = 1
    upload.upload()
    destination.check(upload.url, NAME, file.read_bytes())


def test_the_asynchronous_uploader(destination: Destination, make_file: Callable[[str, int], Path]) -> None:
    file = make_file("a.bin", 1000 * KIB)
    upload = TusClient(destination.endpoint).async_uploader(
        str(file), chunk_size=256 * KIB, metadata=destination.metadata(NAME), upload_checksum=True
    )
    asyncio.run(upload.upload())
    destination.check(upload.url, NAME, file.read_bytes())
