"""The page of the bundled server in Chromium, driven by Playwright."""

from __future__ import annotations

import random
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
import requests
from command import finish, start, uploader
from interop.foreign import open_session
from interop.proxies import FORWARD, nginx
from proxy import Proxy, SpoiledBody
from serving import running_server
from time_limits import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from interop.foreign import Node
    from playwright.sync_api import Locator, Page

    from uploader_server.serving import EmbeddedServer

pytestmark = [pytest.mark.interop, pytest.mark.debian, pytest.mark.feature("server/page")]

TOKEN = "the-token-of-the-page"
MIB = 1 << 20


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with running_server(packs=True) as server:
        yield server


def expect(locator: Locator) -> Any:
    from playwright.sync_api import expect

    return expect(locator)


def row(page: Page, name: str) -> Locator:
    return page.locator("#rows li").filter(has_text=name)


def kept(page: Page) -> Any:
    """What the page keeps of its sessions."""
    return page.evaluate("JSON.parse(localStorage.getItem('uploader-sessions'))")


def session_of(page: Page) -> str:
    """Wait until the page shows a session in its address and return the session's ID."""
    page.wait_for_url(re.compile("#."))
    return page.url.partition("#")[2]


def send(server: EmbeddedServer, session: str, name: str) -> None:
    """Send one file as another client."""
    fields = {"sessionId": session, "category": "personal"}
    parts = [("files", (name, b"content", "video/mp4"))]
    answer = requests.post(f"{server.url}/api/upload/batch", data=fields, files=parts, timeout=PATIENCE)
    answer.raise_for_status()


def test_page_shows_1000_files_of_a_command(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """A large file is followed while it is sent, and after a resume; of many small ones two fail."""
    server.faults.add("fail-file:broken*")
    folder = tmp_path / "trip"
    folder.mkdir()
    for number in range(1000):
        (folder / f"{'broken' if number < 2 else 'photo'}-{number:04}.jpg").write_bytes(b"%d" % number)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(bytes(10 * MIB))
    page.goto(server.url)
    assert uploader("upload", folder, "-s", server.url, home=tmp_path).code == 4
    slowly = ("--limit-rate", "200K", "--chunk-size", "100K")
    uploading = start("upload", clip, "-s", server.url, *slowly, home=tmp_path)
    page.locator("#sessions a").filter(has_text="0 of 1 file").click()
    expect(row(page, "clip.mp4")).to_contain_text(re.compile(r"[1-9]\d? % · "))
    expect(page.locator("#status")).to_have_text("Uploading")
    uploading.send_signal(signal.SIGINT)
    assert finish(uploading).code == 130
    assert uploader("resume", "--limit-rate", "none", home=tmp_path).code == 0
    expect(page.locator("#status")).to_have_text("Completed")
    page.locator("#sessions a").filter(has_text="failed").click()
    expect(page.locator("#status")).to_have_text("Partial")
    expect(page.locator("#figure")).to_have_text("998 of 1,000 files")
    expect(page.locator("#counted")).to_contain_text("2 failed")
    expect(page.locator("#reasons li")).to_have_text(["2 × Failed by the server's option --fail-file"])
    expect(page.locator("#filters")).to_have_text("All 1,000Running 0Failed 2Done 998")
    assert page.locator("#rows li").count() < 60
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    expect(page.locator("#rows li[aria-posinset='1000']")).to_be_in_viewport()
    assert page.locator("#rows li").count() < 60
    page.get_by_role("button", name="Failed 2").click()
    expect(page.locator("#rows .details")).to_have_text(["Failed by the server's option --fail-file"] * 2)


def test_page_polls_while_the_socket_is_lost(page: Page, server: EmbeddedServer) -> None:
    session = open_session(server, 3)
    calls = ("GET", f"/api/upload/progress/{session}")
    server.faults.set_realtime("off")
    page.goto(f"{server.url}/#{session}")
    channel = page.locator("#channel")
    for mode, label in (("off", "Polling"), (None, "Live"), ("off", "Polling")):
        server.faults.set_realtime(mode)
        expect(channel).to_have_text(label)
    send(server, session, "<b>polled.mp4")
    expect(row(page, "<b>polled.mp4")).to_contain_text("completed")
    server.faults.set_realtime(None)
    expect(channel).to_have_text("Live")
    expect(page.locator("#counted")).to_have_text(re.compile("^1 of 3 files"))
    polls = server.faults.count(*calls)
    assert polls > 1
    send(server, session, "live.mp4")
    expect(row(page, "live.mp4")).to_contain_text("completed")
    assert server.faults.count(*calls) <= polls + 1  # one after the reconnection may be under way


def test_page_shows_the_stages_of_an_analysis(page: Page) -> None:
    with running_server(analysis_seconds=20) as server:
        session = open_session(server)
        send(server, session, "a.mp4")
        page.goto(server.url)
        address, video = f"{server.url}/api/ai/analyze/content", {"videoPath": "/uploads/personal/a.mp4"}
        analysing = threading.Thread(target=requests.post, args=(address,), kwargs={"json": video}, daemon=True)
        analysing.start()
        stages = page.locator("#analyses .stages li")
        expect(page.locator("#analyses .badge")).to_have_text("Running")
        expect(stages.nth(1)).to_have_attribute("data-status", "running")
        expect(stages.nth(0)).to_have_text("upload Completed")
        server.faults.analysis_seconds = 0  # of the steps that are left
        expect(page.locator("#analyses .badge")).to_have_text("Completed")
        expect(stages.nth(4)).to_have_text("saving Completed")
        analysing.join(PATIENCE)


def test_dropped_folder_is_uploaded_with_its_paths(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """Dropped by the protocol of the browser's tools, because scripts can't make a drop of files."""
    files = {"trip/a.txt": b"one", "trip/day 1/夏 %.bin": b"two" * 9, "trip/empty": b""}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    page.goto(server.url)
    expect(page.locator("#add")).to_be_visible()
    tools = page.context.new_cdp_session(page)
    dropped = {"items": [], "files": [str(tmp_path / "trip")], "dragOperationsMask": 1}
    drag = {"x": 640, "y": 400, "data": dropped}
    tools.send("Input.dispatchDragEvent", {"type": "dragEnter", **drag})
    expect(page.locator("#overlay")).to_be_visible()
    tools.send("Input.dispatchDragEvent", {"type": "drop", **drag})
    expect(page.locator("#status")).to_have_text("Completed")
    expect(page.locator("#figure")).to_have_text(re.compile(r"^3 files, 30 B in [\d.]+ s$"))
    expect(page.locator("#overlay")).to_be_hidden()
    stored = server.root / "personal"
    assert {
        path.relative_to(stored).as_posix(): path.read_bytes() for path in stored.rglob("*") if path.is_file()
    } == files


def test_watch_follows_an_upload_of_the_page(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    server.faults.add("stall:create#1:in,seconds=5,at=64K")
    (tmp_path / "clip.mp4").write_bytes(bytes(200_000))
    page.goto(server.url)
    page.get_by_label("Category").select_option("scenic")
    page.get_by_label("Choose files").set_input_files(tmp_path / "clip.mp4")
    expect(page.get_by_role("button", name="Cancel upload")).to_be_visible()
    session = session_of(page)
    watched = finish(start("watch", session, "-s", server.url, "--json", home=tmp_path))
    assert (watched.code, [event["path"] for event in watched.of("file.completed")]) == (0, ["clip.mp4"])
    expect(page.locator("#status")).to_have_text("Completed")
    assert (server.root / "scenic/clip.mp4").stat().st_size == 200_000


def test_upload_has_the_name_of_its_file_before_the_server_knows_it(
    page: Page, server: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    server.faults.add(f"stall:create#1:before,seconds={PATIENCE:.0f}")
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files(tmp_path / "clip.mp4")
    session_of(page)
    expect(page.locator("#title")).to_have_text("clip.mp4")
    expect(page.locator("#sessions .name")).to_have_text("clip.mp4")


def test_upload_resumes_after_a_reload(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """The server stops reading in the second chunk; after the reload it continues there, in the same session."""
    large, small = tmp_path / "large.mp4", tmp_path / "small.mp4"
    large.write_bytes(bytes(range(256)) * 4096 * 12)
    small.write_bytes(b"small")
    server.faults.add(f"stall:patch#2:in,seconds={PATIENCE:.0f},at=2M")
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files([large, small])
    expect(row(page, "small.mp4")).to_contain_text("5 B · completed")
    expect(page.locator("#figure")).to_have_text("83 %")  # of 8 MiB and the 2 of the second chunk
    session = session_of(page)
    page.reload()
    expect(page.locator("#status")).to_have_text("Interrupted")
    expect(page.locator("#paused")).to_have_text("Choose large.mp4 again to continue this upload.")
    expect(page.locator("#sessions .badge")).to_have_text("Interrupted")
    for place in ("#more", "#counted", "#rows"):
        expect(page.locator(place)).not_to_contain_text(re.compile("left|/s"))
    expect(row(page, "large.mp4")).to_contain_text("of 12.0 MiB · interrupted")
    expect(page.locator("#filters")).to_have_text("All 2Running 0Failed 0Done 1")
    choose(page, large, small)
    expect(page.locator("#status")).to_have_text("Completed")
    expect(page.locator("#figure")).to_have_text(re.compile("^2 files, 12.0 MiB in "))
    assert session_of(page) == session
    assert server.faults.count("POST", "/api/upload/files/") == 2
    patched = sum(entry.received for entry in server.faults.requests if entry.method == "PATCH")
    assert patched < large.stat().st_size + 3 * MIB
    assert (server.root / "personal/large.mp4").read_bytes() == large.read_bytes()


def choose(page: Page, *files: Path) -> None:
    """Choose files by the button of an interrupted session."""
    with page.expect_file_chooser() as chooser:
        page.locator("#session").get_by_role("button", name="Choose files").click()
    chooser.value.set_files(files)


def test_paused_upload_continues_at_its_offset(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """While it is paused no request is sent; each of two files loses at most the chunk that was under way."""
    clips = [tmp_path / "one.mp4", tmp_path / "two.mp4"]
    for number, clip in enumerate(clips):
        clip.write_bytes(random.Random(number).randbytes(20 * MIB))
    server.faults.add(f"stall:patch#3-4:in,seconds={PATIENCE:.0f},at=1M")
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files(clips)
    expect(page.locator("#figure")).to_have_text("45 %")  # twice 8 MiB and the 1 of the second chunk
    page.get_by_role("button", name="Pause").click()
    for place in ("#status", "#sessions .badge"):
        expect(page.locator(place)).to_have_text("Paused")
    # one of them may still be queued: the other one has sent three chunks then
    expect(page.locator("#rows li").filter(has_text="of 20.0 MiB · paused").first).to_be_visible()
    expect(page.locator("#more")).not_to_contain_text("left")
    server.faults.clear()
    before = len(server.faults.requests)
    page.wait_for_timeout(1000)
    assert [entry for entry in server.faults.requests[before:] if entry.method in ("PATCH", "POST")] == []
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#figure")).to_have_text(re.compile("^2 files, 40.0 MiB in "))
    assert server.faults.count("POST", "/api/upload/files/") == 2
    assert sum(entry.received for entry in server.faults.requests if entry.method == "PATCH") < 60 * MIB
    for clip in clips:
        assert (server.root / "personal" / clip.name).read_bytes() == clip.read_bytes()


def test_shown_session_stays_when_another_one_starts(page: Page, server: EmbeddedServer) -> None:
    sessions = []
    for name in ("read.mp4", "new.mp4"):
        sessions.append(open_session(server))
        send(server, sessions[-1], name)
        if not sessions[1:]:
            page.goto(server.url)
            expect(page.locator("#title")).to_have_text("read.mp4")
            expect(page.locator("#newer")).to_be_hidden()
    newer = page.locator("#newer a")
    expect(newer).to_have_text("new.mp4")
    expect(page.locator("#title")).to_have_text("read.mp4")
    newer.click()
    expect(page.locator("#title")).to_have_text("new.mp4")
    expect(page.locator("#newer")).to_be_hidden()
    assert session_of(page) == sessions[1]


def test_page_has_no_finding_of_axe(page: Page, server: EmbeddedServer, node: Node, tmp_path: Path) -> None:
    """In light and dark, on a desktop and on a phone: the empty page, an upload in each state, and each dialog."""
    script = (node.directory / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")
    clip, small, broken = (tmp_path / name for name in ("clip.mp4", "small.mp4", "broken.mp4"))
    clip.write_bytes(bytes(9 * MIB))
    small.write_bytes(b"small")
    broken.write_bytes(b"broken")
    server.faults.add("fail-file:broken*")
    server.faults.add(f"stall:patch#1:in,seconds={PATIENCE:.0f},at=1M")

    def findings() -> list[str]:
        page.evaluate(script)
        found = []
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for width, height in ((1280, 800), (390, 844)):
                page.set_viewport_size({"width": width, "height": height})
                for one in page.evaluate("axe.run()")["violations"]:
                    found += [f"{scheme} {width}: {one['id']}: {node['html']}" for node in one["nodes"]]
        return found

    page.goto(server.url)
    expect(page.locator("#add")).to_be_visible()
    assert findings() == []
    page.get_by_label("Choose files").set_input_files(clip)
    expect(page.locator("#figure")).to_have_text("11 %")
    assert findings() == []
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("Paused")
    assert findings() == []
    page.reload()
    expect(page.locator("#status")).to_have_text("Interrupted")
    assert findings() == []
    page.get_by_role("button", name="Cancel upload").click()
    assert findings() == []
    page.get_by_role("dialog").get_by_role("button", name="Cancel upload").click()
    expect(page.locator("#status")).to_have_text("Cancelled")
    assert findings() == []
    for files, status in (([small, broken], "Partial"), ([small], "Completed")):
        page.locator("#files").set_input_files(files)
        expect(page.locator("#status")).to_have_text(status)
        assert findings() == []
    with running_server(auth_token=TOKEN) as closed:
        page.goto(closed.url)
        expect(page.get_by_role("dialog")).to_be_visible()
        assert findings() == []
        page.locator("#token").fill("wrong")
        page.get_by_role("button", name="Continue").click()
        expect(page.locator("#wrong")).to_be_visible()
        assert findings() == []


def test_corrupted_chunk_of_the_page_is_sent_again(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """Each chunk has its SHA-256, also that of a file in one request."""
    large, small = tmp_path / "large.mp4", tmp_path / "small.mp4"
    large.write_bytes(random.Random(0).randbytes(9 * MIB))
    small.write_bytes(b"small")
    with Proxy(server.url) as relay:
        relay.onlooker = SpoiledBody()
        page.goto(relay.url)
        page.get_by_label("Choose files").set_input_files([large, small])
        expect(page.locator("#figure")).to_have_text(re.compile("^2 files, 9.0 MiB in "))
        sent = [request.headers["upload-checksum"] for request in relay.requests if request.carries]
    assert {checksum.partition(" ")[0] for checksum in sent} == {"sha256"}
    assert [entry.status for entry in server.faults.requests].count(460) == 1
    for path in (large, small):
        assert (server.root / "personal" / path.name).read_bytes() == path.read_bytes()


def test_nobody_else_writes_to_a_session_of_the_page(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """Also over plain http of another address than loopback: there a page has less of `crypto`."""
    page.add_init_script("delete Crypto.prototype.randomUUID; delete Crypto.prototype.subtle")
    (tmp_path / "clip.mp4").write_bytes(bytes(9 * MIB))
    server.faults.add("slow:patch#1:200K")
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files(tmp_path / "clip.mp4")
    expect(row(page, "clip.mp4")).to_contain_text(re.compile(r"[1-9]\d? % · "))
    session = session_of(page)
    (mine,) = kept(page)[session]["files"]
    assert re.fullmatch("[0-9a-f]{32}", kept(page)[session]["secret"])
    assert re.fullmatch("[0-9a-f]{32}", mine["key"])
    for path in (f"session/{session}/finish", f"cancel/{session}"):
        refused = requests.post(f"{server.url}/api/upload/{path}", timeout=PATIENCE)
        assert (refused.status_code, refused.json()["error"]) == (403, "NOT_YOURS")
    dialog = page.get_by_role("dialog", name="Cancel this upload?")
    for answer, status in (("Keep uploading", "Uploading"), ("Cancel upload", "Cancelled")):
        page.get_by_role("button", name="Cancel upload").click()
        dialog.get_by_role("button", name=answer).click()
        expect(page.locator("#status")).to_have_text(status)


def test_upload_of_an_older_page_resumes(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """It kept its files without keys, and its session has no secret."""
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(bytes(3 * MIB))
    session = open_session(server)
    page.goto(server.url)
    expect(page.locator("#channel")).to_have_text("Live")  # it saves nothing from now on
    kept_file = {"path": "clip.mp4", "size": 3 * MIB, "date": int(clip.stat().st_mtime * 1000)}
    page.evaluate("kept => localStorage.setItem('uploader-sessions', JSON.stringify(kept))", {session: [kept_file]})
    page.reload()
    page.locator("#sessions a").filter(has_text="Interrupted").click()
    choose(page, clip)
    expect(page.locator("#status")).to_have_text("Completed")
    assert session_of(page) == session


def test_page_works_below_the_path_of_a_proxy(page: Page, tmp_path: Path) -> None:
    """Through nginx, and without websockets: Socket.IO then uses long polling."""
    (tmp_path / "clip.mp4").write_bytes(bytes(3 * MIB))
    with running_server(behind_proxy=("127.0.0.1",), websocket="refuse", described=False) as server:
        header = "proxy_set_header X-Forwarded-Prefix /files; client_max_body_size 0;"
        location = f"location /files/ {{ proxy_pass {server.url}/; {FORWARD} {header} }}"
        with nginx(tmp_path, location) as address:
            page.goto(f"{address}/files/")
            expect(page.locator("#channel")).to_have_text("Live")
            page.get_by_label("Choose files").set_input_files(tmp_path / "clip.mp4")
            expect(page.locator("#status")).to_have_text("Completed")
        assert (server.root / "personal/clip.mp4").stat().st_size == 3 * MIB


def test_refused_files_are_named(page: Page, tmp_path: Path) -> None:
    """One that the page knows to be refused, and one whose session is cancelled elsewhere."""
    with running_server(types=("mp4",)) as server:
        server.faults.add(f"stall:create#1:in,seconds={PATIENCE:.0f},at=1K")
        (tmp_path / "a.mp4").write_bytes(bytes(9000))
        (tmp_path / "b.txt").write_bytes(b"text")
        page.goto(server.url)
        page.get_by_label("Choose files").set_input_files([tmp_path / "a.mp4", tmp_path / "b.txt"])
        expect(page.locator("#notices")).to_contain_text("Not sent: b.txt (type .txt is not accepted)")
        expect(page.locator("#counted")).to_have_text(re.compile("^0 of 1 file"))
        session = session_of(page)
        secret = {"X-Session-Secret": kept(page)[session]["secret"]}
        requests.post(f"{server.url}/api/upload/cancel/{session}", headers=secret, timeout=PATIENCE).raise_for_status()
        expect(page.locator("#status")).to_have_text("Cancelled")
        expect(row(page, "a.mp4")).to_contain_text("cancelled")


def test_cancelled_and_failed_files_are_sent_again(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    """One that waits is cancelled and sent again in its session; those of the ended session in one new session.

    Polls remove the file whose request broke off from the session; events alone may leave it there.
    """
    server.faults.set_realtime("off")
    server.faults.add("slow:patch:200K")
    server.faults.add("fail-file:c.mp4")
    for name in "abcde":
        (tmp_path / f"{name}.mp4").write_bytes(bytes(2 * MIB))
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files([tmp_path / f"{name}.mp4" for name in "abcde"])
    for name, state in (("a.mp4", re.compile(r"\d % · .* of 2.0 MiB")), ("e.mp4", "2.0 MiB · queued")):
        expect(row(page, name)).to_contain_text(state)
        page.get_by_role("button", name=f"Cancel {name}").click()
        expect(row(page, name)).to_contain_text("cancelled")
    page.get_by_role("button", name="Retry e.mp4").click()
    server.faults.clear()
    server.faults.add("fail-file:c.mp4")
    expect(page.locator("#status")).to_have_text("Partial")
    expect(page.locator("#figure")).to_have_text("3 of 5 files")
    expect(page.locator("#more")).to_have_text(re.compile("^6.0 of 10.0 MiB stored in "))
    expect(page.locator("#counted")).to_have_text(re.compile("^1 failed · 1 cancelled · "))
    expect(page.locator("#sessions .counts")).to_have_text("3 of 5 files · 1 failed · 6.0 MiB")
    first = session_of(page)
    assert page.get_by_role("link", name="e.mp4").get_attribute("href") == f"{server.url}/uploads/personal/e.mp4"
    server.faults.clear()
    page.get_by_role("button", name="Retry 2 files").click()
    expect(page.locator("#figure")).to_have_text(re.compile("^2 files, 4.0 MiB in "))
    assert session_of(page) != first
    assert kept(page) == {}
    assert {path.name for path in (server.root / "personal").iterdir()} == {f"{name}.mp4" for name in "abcde"}


def test_upload_continues_when_the_server_is_back(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    server.faults.add("slow:patch#1:400K")
    (tmp_path / "clip.mp4").write_bytes(bytes(3 * MIB))
    page.goto(server.url)
    page.get_by_label("Choose files").set_input_files(tmp_path / "clip.mp4")
    expect(row(page, "clip.mp4")).to_contain_text(re.compile(r"s left · [\d.]+ [KM]iB/s"))
    server.faults.restart(down=8)
    for place in ("#status", "#sessions .badge"):
        expect(page.locator(place)).to_have_text("Paused")
    expect(page.locator("#paused")).to_have_text(
        re.compile(r"^Paused, the server has been unreachable for [\d.]+ s. The upload continues when it is back.$")
    )
    expect(row(page, "clip.mp4")).to_contain_text(re.compile(r"^\W*clip.mp4\s*\d+ % · [\d.]+ .*of 3.0 MiB\s"))
    expect(page.locator("#figure")).to_have_text(re.compile("^1 file, 3.0 MiB in "))
    assert (server.root / "personal/clip.mp4").stat().st_size == 3 * MIB


def test_cancelled_session_has_no_running_files(page: Page, server: EmbeddedServer, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(bytes(20 * MIB))
    page.goto(server.url)
    slowly = ("--limit-rate", "200K", "--chunk-size", "100K", "--cancel-on-interrupt")
    uploading = start("upload", clip, "-s", server.url, *slowly, home=tmp_path)
    page.locator("#sessions a").filter(has_text="0 of 1 file").click()
    expect(row(page, "clip.mp4")).to_contain_text(re.compile(r"[1-9]\d? % · "))
    uploading.send_signal(signal.SIGINT)
    finish(uploading)
    expect(page.locator("#status")).to_have_text("Cancelled")
    expect(row(page, "clip.mp4")).to_contain_text("cancelled")
    expect(page.locator("#filters")).to_contain_text("Running 0")
    expect(page.locator("#figure")).to_have_text("0 of 1 file")


def test_page_stays_below_a_rate_limit(page: Page) -> None:
    with running_server(rate_limit=6, rate_window=5.0) as server:
        open_session(server)
        page.goto(server.url)
        expect(page.locator("#channel")).to_have_text("Live")
        page.wait_for_timeout(7000)  # the limit counts for five seconds
        while server.faults.count("GET", "/api/activity") < 3:
            page.wait_for_timeout(100)
        assert [entry for entry in server.faults.requests if entry.status == 429] == []


def test_page_asks_for_the_token_and_lists_nothing_without_it(page: Page, tmp_path: Path) -> None:
    with running_server(auth_token=TOKEN) as server:
        asked, headers = {"category": "personal", "expectedFiles": 1}, {"authorization": f"Bearer {TOKEN}"}
        requests.post(f"{server.url}/api/upload/session", json=asked, headers=headers, timeout=PATIENCE)
        page.goto(server.url)
        dialog = page.get_by_role("dialog", name="Token")
        expect(dialog).to_be_visible()
        expect(page.locator("#wrong")).to_be_hidden()
        for given in ("wrong", TOKEN):
            assert page.locator("#sessions li").count() == 0
            page.get_by_role("textbox", name="Token").fill(given)
            page.keyboard.press("Enter")
            if given != TOKEN:
                expect(page.locator("#wrong")).to_be_visible()
        expect(dialog).to_be_hidden()
        expect(page.locator("#sessions li")).to_have_count(1)
        expect(page.locator("#channel")).to_have_text("Live")
        (tmp_path / "a.mp4").write_bytes(b"content")
        page.get_by_label("Choose files").set_input_files(tmp_path / "a.mp4")
        expect(page.locator("#figure")).to_have_text(re.compile("^1 file, 7 B in "))
        assert TOKEN not in page.url


def test_page_is_usable_by_keyboard_and_on_a_phone(page: Page, server: EmbeddedServer) -> None:
    session = open_session(server)
    send(server, session, "a.mp4")
    page.set_viewport_size({"width": 390, "height": 844})
    grounds = set()
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(server.url)
        grounds.add(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2
    link = page.get_by_role("navigation", name="Sessions").get_by_role("link")
    expect(link).to_have_text(re.compile(f"a.mp4.*Completed.*1 file · 7 B.*{session[:8]}", re.DOTALL))
    press_until(page, "Tab", link)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=2).and_(page.locator(".title"))).to_contain_text("a.mp4 · ")
    expect(link).to_be_hidden()
    back = page.get_by_role("link", name="All sessions")
    expect(back).to_be_focused()
    expect(page.get_by_role("progressbar", name="Progress of the session")).to_have_js_property("value", 100)
    done = page.get_by_role("button", name="Done 1")
    press_until(page, "Tab", done)
    page.keyboard.press("Space")
    expect(done).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    press_until(page, "Shift+Tab", back)
    page.keyboard.press("Enter")
    expect(link).to_be_visible()


def press_until(page: Page, key: str, target: Locator) -> None:
    """Press a key until the target has the focus."""
    for _ in range(20):
        page.keyboard.press(key)
        if target.evaluate("node => node === document.activeElement"):
            return
    raise AssertionError(f"{target} is not reached by {key}")
