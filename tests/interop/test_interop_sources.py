"""Files at URLs from real servers, through the packages of fsspec for each protocol (docs/cli.md, "Files at URLs")."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from interop.stores import PASSWORD, Store, Web, gcs, s3, sftp
from serving import running_server

from uploader_cli import Phase, UsageError, upload
from uploader_cli.core.events import FileRetry
from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.feature("urls")]

MIB = 1 << 20
BIG = random.Random(3).randbytes(5 * MIB)
OTHER = bytes(reversed(BIG))
TREE = {"a.bin": BIG, "below/b.txt": b"b" * 1000, "below/c #1.txt": b"c", "empty.bin": b""}
STORES = ("s3", "gs", "sftp with paramiko", "sftp with sshfs")


@pytest.fixture(scope="module")
def of_s3() -> Iterator[Store]:
    with s3() as store:
        yield store


@pytest.fixture(scope="module")
def of_gcs() -> Iterator[Store]:
    with gcs() as store:
        yield store


@pytest.fixture
def open_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Store]]:
    """Return the store of a name with the files of `TREE`; the clients in this process and its children can read it."""
    with contextlib.ExitStack() as stack:

        def opened(name: str) -> Store:
            if name == "s3":
                store = request.getfixturevalue("of_s3")
            elif name == "gs":
                store = request.getfixturevalue("of_gcs")
            else:
                store = stack.enter_context(sftp(tmp_path_factory.mktemp("sftp")))
            prepare(name, store, monkeypatch)
            for path, data in TREE.items():
                store.write(path, data)
            return store

        yield opened


def prepare(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment, and what fsspec has read from the environment already."""
    import fsspec

    for variable, value in store.environment.items():
        monkeypatch.setenv(variable, value)
    conf: dict[str, dict[str, str]] = {}
    fsspec.config.set_conf_env(conf)
    for protocol, options in conf.items():
        monkeypatch.setitem(fsspec.config.conf, protocol, options)
    if name.startswith("sftp"):
        ours = {"paramiko": "fsspec.implementations.sftp.SFTPFileSystem", "sshfs": "sshfs.spec.SSHFileSystem"}
        fsspec.register_implementation("sftp", ours[name.rpartition(" ")[2]], clobber=True)


def stored(server: EmbeddedServer) -> dict[str, bytes]:
    top = server.root / "personal"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", STORES)
def test_directory_is_streamed(name: str, open_store: Callable[[str], Store], server: EmbeddedServer) -> None:
    result = upload(open_store(name).url, server=server.url, verify=True)
    assert result.ok, [receipt.message for receipt in result.receipts]
    assert all(receipt.verified for receipt in result.receipts)
    wanted = {f"in/{path}": data for path, data in TREE.items() if data or name != "gs"}
    assert stored(server) == wanted


@pytest.mark.parametrize("name", STORES)
def test_same_upload_continues_at_the_offset_of_the_server(
    name: str, open_store: Callable[[str], Store], server: EmbeddedServer
) -> None:
    url = f"{open_store(name).url}/a.bin"
    assert continued(url, server) == 2 * MIB


def test_every_odd_key_of_a_bucket_ends_in_an_event(open_store: Callable[[str], Store], server: EmbeddedServer) -> None:
    """A key is sent, or fails with a reason: also one with an empty part, or with content and a slash at its end."""
    store = open_store("s3")
    odd = ["/dbl.bin", "//tri.bin", "sub//z.bin", "data/", "./x.bin", "sub/../u.bin", " lead", "%41", "a?b", "a::b"]
    keys = [*(f"odd/{key}" for key in odd), *(f"odd/{key}" for key in ("file", "file/x", "sub/a"))]
    bucket = store.url.removesuffix("/in")
    for key in keys:
        store.beside(key, key.encode())
    store.beside("odd/empty directory/", b"")
    result = upload(f"{bucket}/odd", server=server.url)
    assert sorted(receipt.path for receipt in result.receipts) == sorted(f"{bucket}/{key}" for key in keys)
    failed = [receipt for receipt in result.receipts if receipt.status is not Phase.COMPLETED]
    assert all(receipt.message for receipt in failed)
    assert {f"{bucket}/odd/{key}" for key in odd[:4]} <= {receipt.path for receipt in failed}


def continued(url: str, server: EmbeddedServer) -> int:
    """Upload, interrupted after two chunks of 1 MiB, and again; return the offset where the second upload began."""
    server.faults.next_answers("PATCH", "*", [None, None, Answer(400)])
    options: dict[str, Any] = {"server": server.url, "chunk_size": "1M", "retries": 0}
    assert not upload(url, **options).ok
    started: list[int] = []
    assert upload(url, **options, on_event=lambda one: started.append(getattr(one, "offset", 0))).ok
    assert stored(server) == {"a.bin": BIG}
    return max(started)


@pytest.mark.parametrize("name", STORES)
def test_source_that_changes_fails(name: str, open_store: Callable[[str], Store], server: EmbeddedServer) -> None:
    """The size is the same: only the ETag or the time of change differs."""
    store, written = open_store(name), list[str]()

    def change(event: object) -> None:
        if isinstance(event, FileRetry) and not written:
            written.append(store.write("a.bin", OTHER))
            server.faults.clear()

    # The server takes one chunk, and no other one before the source has changed.
    server.faults.next_answers("PATCH", "*", [None, *[Answer(503)] * 50])
    url = f"{store.url}/a.bin"
    (receipt,) = upload(url, server=server.url, chunk_size="1M", retries=50, on_event=change).receipts
    assert receipt.code == "changed", receipt.message
    assert stored(server) == {}


@pytest.mark.feature("fleet")
@pytest.mark.parametrize("name", ["s3", "sftp with sshfs"])
def test_import_of_a_directory(name: str, open_store: Callable[[str], Store]) -> None:
    store = open_store(name)
    with running_server(packs=True) as server:
        how: dict[str, Any] = {"on": "local:2"}  # an option of a feature
        result = upload(store.url, server=server.url, **how)
        assert result.ok, [receipt.message for receipt in result.receipts]
        assert stored(server) == {f"in/{path}": data for path, data in TREE.items()}


@pytest.mark.parametrize("name", ["sftp with paramiko", "sftp with sshfs"])
def test_links_are_skipped_unless_followed(
    name: str, open_store: Callable[[str], Store], server: EmbeddedServer
) -> None:
    store = open_store(name)
    assert store.top is not None
    (store.top / "link.bin").symlink_to("a.bin")
    receipts = upload(store.url, server=server.url).receipts
    assert [one.path for one in receipts if one.message == "symlink"] == [f"{store.url}/link.bin"]
    (store.top / "directory").symlink_to("below")
    result = upload(store.url, server=server.url, follow_links=True)
    assert [receipt.path for receipt in result.receipts if receipt.code == "unreadable"] == [f"{store.url}/directory"]
    assert stored(server)["in/link.bin"] == BIG


@pytest.mark.parametrize("name", ["sftp with paramiko", "sftp with sshfs"])
def test_refused_credentials_are_named(
    name: str, open_store: Callable[[str], Store], server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    store = open_store(name)
    monkeypatch.setitem(fsspec.config.conf, "sftp", {"username": "me", "password": PASSWORD[::-1]})
    with pytest.raises(UsageError, match="can't be read") as raised:
        upload(store.url, server=server.url)
    assert raised.value.hint == "check the URL and its credentials"


def test_http_is_read_by_ranges(server: EmbeddedServer) -> None:
    with Web() as source:
        source.files["a.bin"] = BIG
        assert continued(f"{source.url}/a.bin", server) == 2 * MIB
        assert source.ranges[-3:] == ["bytes=2097152-3145727", "bytes=3145728-4194303", "bytes=4194304-5242879"]


def test_http_server_without_ranges_is_not_retried(server: EmbeddedServer) -> None:
    with Web(ranges=False) as source:
        source.files["a.bin"] = BIG
        (receipt,) = upload(f"{source.url}/a.bin", server=server.url).receipts
    assert (receipt.code, receipt.retryable) == ("unreadable", False)
    assert "does not answer requests for ranges" in receipt.message
    assert source.ranges == ["bytes=0-4194303", "bytes=4194304-5242879"]


def test_http_with_a_date_only(server: EmbeddedServer) -> None:
    with Web(tagged=False) as source:
        source.files["a.bin"] = BIG
        assert upload(f"{source.url}/a.bin", server=server.url, verify=True).ok
    assert stored(server) == {"a.bin": BIG}


def test_http_server_that_fails_for_a_while_is_retried(server: EmbeddedServer) -> None:
    with Web() as source:
        source.files["a.bin"], source.failures = BIG, 3
        events: list[Any] = []
        assert upload(f"{source.url}/a.bin", server=server.url, on_event=events.append).ok
    assert {event.code for event in events if isinstance(event, FileRetry)} == {"unreadable"}
    assert stored(server) == {"a.bin": BIG}
