"""Each option of `uploader upload`, by its effect on a real run."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
import trustme
from command import QUICK_LOOKS, uploader
from proxy import Proxy, Sniffer, tls_front
from scripted_server import Peer, ScriptedServer
from serving import running_server
from time_limits import PATIENCE

from uploader_server.faults import Answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command import Done

    from uploader_server.serving import EmbeddedServer

    Files = Callable[..., Path]
BATCH, TUS = "/api/upload/batch", "/api/upload/files/"


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority that only these tests trust; its certificate is in `ca.pem`."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.mark.thorough
def test_category_is_personal_unless_given(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The category decides where the server puts the files; personal by default."""
    files = make_files(**{"a.mp4": 5})
    assert uploader("upload", files, "-s", server.url, home=tmp_path).code == 0
    assert uploader("upload", files, "-s", server.url, "--category", "scenic", home=tmp_path).code == 0
    assert (server.root / "personal" / "files" / "a.mp4").is_file()
    assert (server.root / "scenic" / "files" / "a.mp4").is_file()


def test_jobs_limit_parallel_uploads_and_sessions(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The number of parallel uploads; in batch mode that of sessions."""
    options = ("-s", server.url, "--protocol", "batch", "-j", "8", "--json")
    done = uploader("upload", make_files(**{"a.mp4": 5}), *options, home=tmp_path)
    assert done.code == 0
    assert done.events[0]["jobs"] == 8


def test_include_and_exclude(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Gitignore patterns on the path below the argument; an exclude outranks an include."""
    files = make_files(**{"a.mp4": 1, "b.txt": 1, "raw/c.mp4": 1, "raw/d.avi": 1, "deep/e.avi": 1})
    patterns = ("--include", "*.mp4", "--include", "*.avi", "--exclude", "raw/*.mp4")
    done = uploader("upload", files, "-s", server.url, *patterns, "--json", home=tmp_path)
    assert sorted(event["path"].split("/files/")[1] for event in done.of("file.completed")) == [
        "a.mp4",
        "deep/e.avi",
        "raw/d.avi",
    ]


def sent(done: Done) -> list[str]:
    """The paths of the stored files below the directory of `make_files`."""
    assert done.code == 0, done.err
    return sorted(event["path"].split("/files/")[1] for event in done.of("file.completed"))


def test_exclude_from_reads_patterns_before_those_of_exclude(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Gitignore patterns, one a line; `--exclude` comes after them."""
    files = make_files(**{"a.mp4": 1, "b.tmp": 1, "c.tmp": 1, "raw/d.mp4": 1})
    (tmp_path / "patterns").write_text("# not to be sent\n*.tmp\n/raw/\n")
    done = uploader(
        *("upload", files, "-s", server.url, "--exclude-from", "patterns", "--exclude", "!c.tmp", "--json"),
        home=tmp_path,
    )
    assert sent(done) == ["a.mp4", "c.tmp"]


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "patterns can't be read: No such file or directory"), ("*.tmp\n[z-a]\n", "patterns, line 2 is not a git")],
)
def test_exclude_from_names_an_invalid_file(content: str | None, error: str, make_files: Files, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "patterns").write_text(content)
    done = uploader("upload", make_files(a=1), "-s", "localhost:9", "--exclude-from", "patterns", home=tmp_path)
    assert done.code == 2
    assert "--exclude-from: " in done.err
    assert error in done.err


def test_min_size_and_max_size(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Both ends are sent, named and listed files are selected in the same way."""
    files = make_files(**{"1.mp4": 1023, "2.mp4": 1024, "sub/3.mp4": 2048, "4.mp4": 2049})
    sizes = ("--min-size", "1K", "--max-size", "2K", "-s", server.url, "--json")
    done = uploader("upload", files, files / "4.mp4", *sizes, home=tmp_path)
    assert sent(done) == ["2.mp4", "sub/3.mp4"]
    (tmp_path / "list").write_text("".join(f"{files}/{number}.mp4\n" for number in (1, 2, 4)))
    assert sent(uploader("upload", "--from-file", "list", *sizes, home=tmp_path)) == ["2.mp4"]
    none = uploader("upload", files / "1.mp4", *sizes, home=tmp_path)
    assert none.code == 2
    assert "check --min-size, --max-size" in none.err


@pytest.mark.thorough
def test_newer_than_takes_a_duration_or_a_date(
    subtests: pytest.Subtests, server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A duration before now or a date; one that is neither is an error."""
    files = make_files(**{"now.mp4": 1, "days.mp4": 1, "old.mp4": 1})
    day = 86_400
    os.utime(files / "days.mp4", (0, time.time() - 2 * day))
    os.utime(files / "old.mp4", (0, datetime.fromisoformat("2026-01-30").timestamp()))
    for when, names in {
        "1d12h": ["now.mp4"],
        "60h": ["days.mp4", "now.mp4"],
        "2026-01-31": ["days.mp4", "now.mp4"],
        "2026-01-29T10:00": ["days.mp4", "now.mp4", "old.mp4"],
    }.items():
        with subtests.test(when=when, names=names):
            assert (
                sent(uploader("upload", files, "-s", server.url, "--newer-than", when, "--json", home=tmp_path))
                == names
            )
    wrong = uploader("upload", files, "-s", server.url, "--newer-than", "soon", home=tmp_path)
    assert wrong.code == 2
    assert "--newer-than: must be a duration or a date, not 'soon'" in wrong.err


@pytest.mark.thorough
def test_a_resumed_run_selects_by_the_same_time(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """`--newer-than 1h` is the hour before the first run, however much later the resume is."""
    files = make_files(**{"a.mp4": 1})
    server.faults.next_answers("POST", TUS, [503])
    before = time.time()
    failed = uploader("upload", files, "-s", server.url, "--newer-than", "1h", "--retries", "0", home=tmp_path)
    assert failed.code == 3
    (run,) = json.loads(uploader("resume", "--list", "--json", home=tmp_path).out)
    since = datetime.fromisoformat(run["arguments"]["options"]["newer_than"]).timestamp()
    assert before - 3600 <= since <= time.time() - 3600
    assert sent(uploader("resume", "--json", home=tmp_path)) == ["a.mp4"]


def test_uploaderignore_excludes_files_below_it(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Gitignore patterns in the directory and below; the ignore files themselves are not sent."""
    files = make_files(**{"a.mp4": 1, "b.tmp": 1, "raw/c.tmp": 1, "raw/d.mp4": 1})
    (files / ".uploaderignore").write_text("*.tmp\n")
    (files / "raw" / ".uploaderignore").write_text("!c.tmp\n/d.mp4\n")
    done = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert done.code == 0
    assert sorted(event["path"].split("/files/")[1] for event in done.of("file.completed")) == ["a.mp4", "raw/c.tmp"]


@pytest.mark.thorough
def test_links_are_skipped_unless_followed(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Symbolic links are skipped and counted, unless they are to be followed."""
    files = make_files(**{"a.mp4": 1})
    outside = make_files("outside", **{"b.mp4": 2})
    (files / "link.mp4").symlink_to(outside / "b.mp4")
    plain = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert [event["reason"] for event in plain.of("file.skipped")] == ["symlink"]
    followed = uploader("upload", files, "-s", server.url, "--follow-links", "--json", home=tmp_path)
    assert followed.finished["completed"] == 2


@pytest.mark.thorough
def test_retries_limit_the_further_attempts(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """As many further attempts as configured, none with 0."""
    server.faults.next_answers("POST", TUS, [503] * 3)
    files = make_files(**{"a.mp4": 1})
    assert uploader("upload", files, "-s", server.url, "--retries", "0", home=tmp_path).code == 3
    assert server.faults.count("POST", TUS) == 1
    assert uploader("upload", files, "-s", server.url, "--retries", "2", home=tmp_path).code == 0
    assert server.faults.count("POST", TUS) == 4


@pytest.mark.thorough
def test_rate_limit_is_waited_out_no_longer_than_max_wait(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A rate limit is waited out without using up a retry, but no longer than allowed: then exit 3."""
    files, batch = make_files(**{"a.mp4": 1}), ("-s", server.url, "--protocol", "batch")
    short, long = Answer(429, {"Retry-After": "1"}), Answer(429, {"Retry-After": "900"})
    server.faults.next_answers("POST", BATCH, [short])
    waited = uploader("upload", files, *batch, "--retries", "0", "--json", home=tmp_path)
    assert waited.code == 0
    assert [event["code"] for event in waited.of("warning")] == ["rate_limited"]
    assert waited.of("file.retry") == []
    server.faults.next_answers("POST", BATCH, [long])
    ended = uploader("upload", files, *batch, "--max-wait", "5", "--json", home=tmp_path)
    assert ended.code == 3
    assert ended.of("file.failed")[0]["code"] == "rate_limited"


@pytest.mark.thorough
def test_stall_warns_after_each_time_without_progress(make_files: Files, tmp_path: Path) -> None:
    """The warning comes after that time without progress, not before, and again only after progress."""
    files = make_files(**{"a.mp4": 1})
    with running_server(flavour="reference", processing_seconds=3.0, realtime="off") as server:
        early = uploader("upload", files, "-s", server.url, "--stall", "0.2", "--json", home=tmp_path)
        late = uploader("upload", files, "-s", server.url, "--stall", "60", "--resend", "--json", home=tmp_path)
    codes = [event["code"] for event in early.of("warning")]
    assert codes
    assert codes == (["stalled", "recovered"] * len(codes))[: len(codes)]
    assert late.of("warning") == []


@pytest.mark.thorough
def test_check_first_finds_all_files_before_the_first_is_sent(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """A listed digest is part of the search."""
    files = make_files(**{"a.mp4": 1, "b.mp4": 1})
    os.truncate(files / "b.mp4", 200_000_000)
    listed = [{"path": str(files / "a.mp4")}, {"path": str(files / "b.mp4"), "sha256": "0" * 64}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in listed))
    command = ("upload", "--from-file", "list.jsonl", "-s", server.url, "--no-pack", "--check-first", "--json")
    kinds = [event["type"] for event in uploader(*command, home=tmp_path).events]
    assert kinds.index("file.failed") < kinds.index("file.started") < kinds.index("file.completed")


def test_fail_fast_starts_no_file_after_the_first_failure(make_files: Files, tmp_path: Path) -> None:
    """After the first failure no other file is started."""
    with running_server(max_files=1, fail_files=("a*",)) as server:
        files = make_files(**{"a.mp4": 1, "b.mp4": 1, "c.mp4": 1})
        done = uploader("upload", files, "-s", server.url, "-j", "1", "--fail-fast", "--json", home=tmp_path)
        assert server.faults.count("POST", TUS) == 1
    assert done.code == 4
    assert {event["reason"] for event in done.of("file.skipped")} == {"fail_fast"}


@pytest.mark.thorough
def test_file_of_a_lost_answer_is_resent_only_with_resend_unknown(make_files: Files, tmp_path: Path) -> None:
    """A file whose answer was lost after the body is resent only on request."""
    files = make_files(**{"a.mp4": 1})
    lost = Answer(when="after_body", close=True)
    with running_server(flavour="reference", processing_seconds=0.01, realtime="off") as server:
        server.faults.next_answers("POST", BATCH, [lost])
        careful = uploader("upload", files, "-s", server.url, "--json", home=tmp_path, constants=QUICK_LOOKS)
        assert server.faults.count("POST", BATCH) == 1
        server.faults.next_answers("POST", BATCH, [lost])
        command = ("upload", files, "-s", server.url, "--resend-unknown", "--json")
        bold = uploader(*command, home=tmp_path, constants=QUICK_LOOKS)
        assert server.faults.count("POST", BATCH) == 3
    assert careful.code == 4
    assert careful.of("file.failed")[0]["code"] == "outcome_unknown"
    assert bold.code == 0


def test_progress_is_plain_in_a_pipe_and_none_on_request(
    server: EmbeddedServer, make_files: Files, tmp_path: Path
) -> None:
    """Plain lines in a pipe, nothing but the summary with `none`."""
    files = make_files(**{"a.mp4": 1})
    plain = uploader("upload", files, "-s", server.url, home=tmp_path)
    none = uploader("upload", files, "-s", server.url, "--resend", "--progress", "none", home=tmp_path)
    assert f"✓ {files / 'a.mp4'}" in plain.err
    assert "\x1b" not in plain.err
    assert len(none.err.splitlines()) == 3, "the verdict, and where the files are"


def test_quiet_prints_only_what_failed(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """Nothing at all when it went well, and what failed when it did not."""
    files = make_files(**{"a.mp4": 1})
    assert uploader("upload", files, "-s", server.url, "--quiet", home=tmp_path).err == ""
    server.faults.fail_files.append("a*")
    failed = uploader("upload", files, "-s", server.url, "--quiet", home=tmp_path)
    assert failed.code == 4
    assert "a.mp4" in failed.err


def test_verbose_lists_more_than_twenty_files(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """More than 20 files are listed one by one only on request."""
    files = make_files(**{f"{number:02}.mp4": 1 for number in range(25)})
    normal = uploader("upload", files, "-s", server.url, home=tmp_path)
    verbose = uploader("upload", files, "-s", server.url, "-v", home=tmp_path)
    assert sum(line.startswith("✓ /") for line in normal.err.splitlines()) == 0
    assert sum(line.startswith("✓ /") for line in verbose.err.splitlines()) == 25


def test_header_and_token_go_with_every_call(server: EmbeddedServer, make_files: Files, tmp_path: Path) -> None:
    """The header goes with every call, and so does the token."""
    with Proxy(server.url, sniffer := Sniffer()) as proxy:
        options = ("--proxy", proxy.url, "--header", "X-Team: red")
        done = uploader(
            "upload", make_files(**{"a.mp4": 1}), "-s", server.url, *options, home=tmp_path, UPLOADER_TOKEN="t0ken"
        )
    assert done.code == 0
    calls = sniffer.seen.count(b"GET http") + sniffer.seen.count(b"POST http") + sniffer.seen.count(b"CONNECT ")
    assert calls >= 3
    asked = sniffer.seen.count(b" /socket.io/") + calls - sniffer.seen.count(b"CONNECT ")
    assert sniffer.seen.count(b"X-Team: red") == sniffer.seen.count(b"Authorization: Bearer t0ken") == asked


@pytest.mark.thorough
def test_certificate_of_an_unknown_authority_needs_ca_bundle(
    server: EmbeddedServer, authority: trustme.CA, make_files: Files, tmp_path: Path
) -> None:
    """A certificate of an unknown authority is refused with a hint, and accepted with the CA bundle."""
    files = make_files(**{"a.mp4": 100_000})
    with tls_front(server.url, authority) as url:
        refused = uploader("upload", files, "-s", url, home=tmp_path)
        assert refused.code == 6
        assert "--ca-bundle" in refused.err
        done = uploader("upload", files, "-s", url, "--ca-bundle", tmp_path / "ca.pem", "--json", home=tmp_path)
    assert done.code == 0, done.err


def test_client_cert_is_shown_to_a_server_that_requires_one(
    server: EmbeddedServer, authority: trustme.CA, make_files: Files, tmp_path: Path
) -> None:
    """A server that requires a client certificate gets it."""
    cert = authority.issue_cert("client@example.com")
    cert.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    files, trusted = make_files(**{"a.mp4": 1}), ("--ca-bundle", tmp_path / "ca.pem")
    with tls_front(server.url, authority, ask_client=True) as url:
        assert uploader("upload", files, "-s", url, *trusted, "--retries", "0", home=tmp_path).code == 6
        options = (*trusted, "--client-cert", tmp_path / "client.pem")
        assert uploader("upload", files, "-s", url, *options, home=tmp_path).code == 0


def test_insecure_accepts_any_certificate_with_a_warning(
    server: EmbeddedServer, authority: trustme.CA, make_files: Files, tmp_path: Path
) -> None:
    """Without certificate checks the upload works, with a warning."""
    with tls_front(server.url, authority) as url:
        done = uploader("upload", make_files(**{"a.mp4": 1}), "-s", url, "--insecure", "--json", home=tmp_path)
    assert done.code == 0
    assert [event["code"] for event in done.of("warning")] == ["insecure"]
    assert "InsecureRequestWarning" not in done.err


def test_all_calls_use_the_proxy_of_the_option(make_files: Files, tmp_path: Path) -> None:
    """All calls go through the proxy, the option before the environment's."""
    with running_server(allow_hosts=("files.test",)) as server, Proxy(server.url, sniffer := Sniffer()) as proxy:
        address = proxy.url
        dead = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "NO_PROXY": ""}
        files = make_files(**{"a.mp4": 1})
        done = uploader("upload", files, "-s", "http://files.test", "--proxy", address, home=tmp_path, **dead)
    assert done.code == 0, done.err
    assert b"POST http://files.test/api/upload/files/" in sniffer.seen


def socks_proxy(asked: list[str], target: tuple[str, int]) -> ScriptedServer:
    """A proxy of SOCKS 5 (RFC 1928) that connects to `target` whatever it is asked for, which it records."""

    def script(peer: Peer) -> None:
        def read(count: int) -> bytes:
            if len(data := peer.read(count)) < count:
                raise EOFError  # the upload ended while it connected
            return data

        read(read(2)[1])
        peer.sock.sendall(b"\x05\x00")
        kind = read(4)[3]
        asked.append(read(read(1)[0]).decode() if kind == 3 else socket.inet_ntoa(read(4)))
        read(2)
        with socket.create_connection(target) as server:
            peer.sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
            ends = {server: peer.sock, peer.sock: server}
            while ready := select.select(list(ends), [], [], PATIENCE)[0]:
                for end in ready:
                    if not (piece := end.recv(1 << 16)):
                        return
                    ends[end].sendall(piece)

    return ScriptedServer(script)


@pytest.mark.parametrize(
    ("scheme", "host", "given"), [("socks5", "127.0.0.1", "--proxy"), ("socks5h", "files.test", "ALL_PROXY")]
)
def test_all_calls_use_a_socks_proxy(scheme: str, host: str, given: str, make_files: Files, tmp_path: Path) -> None:
    """With `socks5h` the proxy resolves the name of the server."""
    pytest.importorskip("socks")
    asked: list[str] = []
    with running_server(allow_hosts=("files.test",)) as server:
        port = int(server.url.rpartition(":")[2])
        with socks_proxy(asked, ("127.0.0.1", port)) as proxy:
            url = f"{scheme}://127.0.0.1:{proxy.port}"
            option, variable = (("--proxy", url), {}) if given == "--proxy" else ((), {given: url})
            options = ("-s", f"http://{host}:{port}", *option, "--progress", "none")
            done = uploader("upload", make_files(**{"a.mp4": 1}), *options, home=tmp_path, NO_PROXY="", **variable)
    assert done.code == 0, done.err
    assert set(asked) == {host}


def test_socks_proxy_without_its_package_names_it(make_files: Files, tmp_path: Path) -> None:
    options = ("-s", "http://127.0.0.1:9", "--proxy", "socks5://me:pw@127.0.0.1:9")
    missing = {"uploader_cli.transfer.by_urllib3._SOCKS": ["no_such_package"]}
    done = uploader("upload", make_files(a=1), *options, home=tmp_path, constants=missing)
    assert done.code == 2
    assert (
        "the proxy socks5://127.0.0.1:9 needs PySocks, which is not installed (extra socks: no no_such_package)"
        in done.err
    )
    assert "pw" not in done.err


def test_a_refused_file_fails_when_named_and_is_skipped_when_found(make_files: Files, tmp_path: Path) -> None:
    """The same file: exit 4 by its name, exit 0 by its directory."""
    files = make_files(**{"a.mp4": 1, "b.txt": 1})
    with running_server(types=("mp4",)) as server:
        named = uploader("upload", files / "a.mp4", files / "b.txt", "-s", server.url, "--json", home=tmp_path)
        found = uploader("upload", files, "-s", server.url, "--json", home=tmp_path)
    assert (named.code, named.of("file.failed")[0]["code"]) == (4, "refused_type")
    assert named.finished["completed"] == 1
    assert (found.code, found.finished["skipped"]) == (0, 1)


def test_ca_bundle_of_the_environment_is_used(
    server: EmbeddedServer, authority: trustme.CA, make_files: Files, tmp_path: Path
) -> None:
    """The system's variables for CA bundles are used."""
    with tls_front(server.url, authority) as url:
        trusted = {"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")}
        done = uploader("upload", make_files(**{"a.mp4": 1}), "-s", url, home=tmp_path, **trusted)
    assert done.code == 0, done.err
