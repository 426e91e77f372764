"""The built-in presets, each against a server that enforces the documented rules of its service."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from command import Done, uploader
from docs_pages import ROOT
from tus_services import (
    MIB,
    CloudflareStream,
    Directus,
    FileBrowser,
    OpenCloud,
    Service,
    Supabase,
    Transloadit,
    Tusd,
    Vimeo,
)

from uploader_cli.__main__ import main
from uploader_cli.features.presets.known import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scripted_server import Answer, Request

    Files = Callable[..., Path]

SIZE = 17 * MIB + 1


@dataclass
class Case:
    """A service. `server_id` is the beginning of the ID of a file, `chunks` are those of one of `SIZE` bytes."""

    service: type[Service]
    metadata: dict[str, str] = field(default_factory=dict)
    chunks: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    server_id: str = ""
    stores_empty_files: bool = True


CASES = {
    "tusd": Case(Tusd, {"filename": "clip.mp4", "filetype": "video/mp4"}),
    "cloudflare-stream": Case(
        CloudflareStream, {"name": "clip.mp4", "filetype": "video/mp4"}, server_id="cab807e0c477d01baq20f66c3d1dfc2"
    ),
    "supabase": Case(
        Supabase,
        {"objectName": "files/clip.mp4", "bucketName": "videos", "contentType": "video/mp4", "cacheControl": "3600"},
        (6 * MIB, 6 * MIB, 5 * MIB + 1),
        ("--metadata", "bucketName=videos"),
    ),
    "directus": Case(
        Directus,
        {"filename_download": "clip.mp4", "type": "video/mp4"},
        (8 * MIB, 8 * MIB, MIB + 1),
        server_id="8cbb43fe-4cdf-4991-8352-c461779cec0",
        stores_empty_files=False,
    ),
    "transloadit": Case(
        Transloadit,
        {"assembly_url": "https://api2.transloadit.com/assemblies/1", "fieldname": "file", "filename": "clip.mp4"},
        options=("--metadata", "assembly_url=https://api2.transloadit.com/assemblies/1"),
    ),
    "filebrowser": Case(FileBrowser, options=("--header", "X-Auth: a.b.c")),
    "opencloud": Case(OpenCloud, {"filename": "clip.mp4"}, server_id="storage$space!u"),
    "ocis": Case(OpenCloud, {"filename": "clip.mp4"}, server_id="storage$space!u"),
}


@pytest.mark.parametrize(
    "preset", [pytest.param(preset, marks=[pytest.mark.thorough] * (preset != "ocis")) for preset in CASES]
)
def test_preset_meets_the_rules_of_its_service(preset: str, make_files: Files, tmp_path: Path) -> None:
    """The form of its endpoint, the metadata and no other, the sizes of chunks, empty files, no checksums."""
    case, files = CASES[preset], make_files(**{"clip.mp4": SIZE, "short.mp4": 3, "empty.mp4": 0})
    with case.service() as service:
        options = ("--tus-endpoint", service.url, "--preset", preset, *case.options, "--json", "-j", "1")
        done = uploader("upload", files, *options, home=tmp_path)
    refusals = [refusal for refusal in service.refusals if not refusal.startswith("OPTIONS")]  # which is a hint
    assert (done.code, refusals) == (0, []), done.err
    (clip,) = (upload for upload in service.uploads.values() if upload.length == SIZE)
    assert (clip.content, clip.metadata) == ((files / "clip.mp4").read_bytes(), case.metadata)
    assert tuple(clip.chunks) == (case.chunks or tuple(clip.chunks))
    assert [event["reason"] for event in done.of("file.skipped")] == ["empty"] * (not case.stores_empty_files)
    completed = {event["path"]: event for event in done.of("file.completed")}
    assert len(completed) == 2 + case.stores_empty_files
    assert (completed[str(files / "clip.mp4")]["server_id"] or "").startswith(case.server_id)
    assert not completed[str(files / "clip.mp4")]["verified"]
    assert not any("upload-checksum" in headers for _, headers in service.requests)


@pytest.mark.thorough
def test_preset_of_uploads_that_the_service_has_created(make_files: Files, tmp_path: Path) -> None:
    clip = make_files(**{"clip.mp4": SIZE}) / "clip.mp4"
    with Vimeo() as service:
        options = ("--upload-url", service.existing(SIZE), "--preset", "vimeo")
        done = uploader("upload", clip, *options, home=tmp_path)
        assert (done.code, service.refusals, service.only.content) == (0, [], clip.read_bytes()), done.err


def failures(done: Done) -> list[dict[str, Any]]:
    """Return the failures of a run, or of a plan, whose events are others."""
    return [event for event in map(json.loads, done.out.splitlines()) if event["type"] == "file.failed"]


DRY_RUN = [pytest.param((), id="run"), pytest.param(("--dry-run",), id="dry run", marks=pytest.mark.feature("plan"))]
REFUSED_NAMES = {
    "supabase": (Supabase, {"pläne.png": 1, "a#b.png": 1, "plain (1).png": 1}, ("--metadata", "bucketName=b")),
    "opencloud": (OpenCloud, {"a\\b.png": 1, "pläne.png": 1}, ()),
}


@pytest.mark.parametrize("preset", REFUSED_NAMES)
@pytest.mark.parametrize("dry_run", DRY_RUN)
def test_name_that_the_service_refuses_fails_before_its_first_byte(
    preset: str, dry_run: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    """As a refusal by the server; the other files are sent."""
    kind, sizes, more = REFUSED_NAMES[preset]
    files = make_files(**sizes)
    with kind() as service:
        options = ("--tus-endpoint", service.url, "--preset", preset, *more, *dry_run, "--json")
        done = uploader("upload", files, *options, home=tmp_path)
        assert (done.code, len(service.uploads)) == (4, 0 if dry_run else 1), done.err
    failed = failures(done)
    assert {event["code"] for event in failed} == {"server_refused"}
    assert len(failed) == len(sizes) - 1
    if preset == "supabase":
        first = next(event["message"] for event in failed if "pläne" in event["path"])
        assert first == (
            "the server does not take 'ä' in objectName: files/pläne.png; a column objectName in a list gives another"
        )


@pytest.mark.parametrize("dry_run", DRY_RUN)
def test_empty_file_that_the_service_refuses_is_not_sent(
    dry_run: tuple[str, ...], make_files: Files, tmp_path: Path
) -> None:
    files = make_files(**{"empty.txt": 0})
    with Directus() as service:
        options = ("--tus-endpoint", service.url, "--preset", "directus", *dry_run, "--json")
        done = uploader("upload", files / "empty.txt", *options, home=tmp_path)
        assert [method for method, _ in service.requests if method == "POST"] == []
    assert (done.code, [event["code"] for event in failures(done)]) == (4, ["empty"])


class Hooking(Service):
    """Runs its hook after a creation with all of a file, also of an empty one, and after each last PATCH.

    `early` is False for one that does not run it for bytes of the creation. As the S3 store of @tus/server it stores a
    file once it has got a body for it.
    """

    extensions = "creation,creation-with-upload"

    def __init__(self, *, early: bool) -> None:
        super().__init__()
        self.hooks: list[int] = []
        self.stored: set[int] = set()
        self._early = early

    def _post(self, request: Request) -> Answer:
        length = int(request.headers["upload-length"])
        if length == len(request.body) and (self._early or not length):
            self.hooks.append(length)
        if request.headers.get("content-type") == "application/offset+octet-stream":
            self.stored.add(len(request.body))
        return super()._post(request)

    def _patch(self, request: Request) -> Answer:
        self.stored.add(len(request.body))
        if int(request.headers["upload-offset"]) + len(request.body) in (0, 10):
            self.hooks.append(len(request.body))
        return super()._patch(request)


@pytest.mark.parametrize(
    ("options", "early", "hooks", "stored"),
    [
        (("--preset", "tusd"), True, [0, 10], {0, 10}),
        (("--preset", "tus-node-server"), True, [0, 10], {0, 10}),
        (("--preset", "tuspyserver"), False, [0, 10], {10}),
        ((), True, [0, 0, 1], {0, 9, 1}),
    ],
)
def test_hook_of_the_server_runs_once_for_each_file(
    options: tuple[str, ...], early: bool, hooks: list[int], stored: set[int], make_files: Files, tmp_path: Path
) -> None:
    """Also for an empty file, where a preset says that the server stores it at its creation; without one twice."""
    files = make_files(**{"empty.bin": 0, "small.bin": 10})
    with Hooking(early=early) as service:
        done = uploader("upload", files, "--tus-endpoint", service.url, *options, "--json", home=tmp_path)
    assert (done.code, sorted(service.hooks)) == (0, hooks), done.err
    assert service.stored == stored
    assert not any(event["verified"] for event in done.of("file.completed"))


ENDPOINTS = {
    "filebrowser without a name": ("filebrowser", "https://h/api/tus/", "needs the name of each file in the URL"),
    "project": ("supabase", "https://PROJECT.storage.supabase.co/storage/v1/upload/resumable", "replace PROJECT"),
    "account": ("cloudflare-stream", BUILT_IN["cloudflare-stream"].endpoint, "replace ACCOUNT"),
    "space": ("ocis", "https://h/dav/spaces/SPACE", "GET /graph/v1.0/me/drives"),
    "uploads of the service": ("vimeo", "https://api.vimeo.com/me/videos", "upload.upload_link of the answer"),
}


@pytest.mark.parametrize(("preset", "endpoint", "said"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_endpoint_against_the_form_of_the_preset_exits_2(
    preset: str, endpoint: str, said: str, make_files: Files, tmp_path: Path
) -> None:
    command = ("upload", make_files(a=1), "--preset", preset)
    done = uploader(*command, "--tus-endpoint", endpoint, home=tmp_path)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert said in done.err
    without = uploader(*command, home=tmp_path)
    assert without.code == 2
    assert "--upload-url" in without.err if preset == "vimeo" else BUILT_IN[preset].endpoint in without.err


def test_files_of_equal_names_need_their_directories(make_files: Files, tmp_path: Path) -> None:
    """In one space a name is a place; with `{dir}` each directory of the server has its own names."""
    files = make_files(**{"a/x.png": 1, "b/x.png": 2})
    with OpenCloud() as service:
        done = uploader("upload", files, "--tus-endpoint", service.url, "--preset", "ocis", "--json", home=tmp_path)
        assert (done.code, [event["code"] for event in done.of("file.failed")]) == (4, ["exists"])
        endpoint = f"{service.url}{{dir}}"
        done = uploader("upload", files, "--tus-endpoint", endpoint, "--preset", "ocis", "--no-resume", home=tmp_path)
        assert done.code == 0, done.err


# --- the command ------------------------------------------------------------------------------------------------------


def test_presets_are_listed(tmp_path: Path) -> None:
    """Also those of the user's config file."""
    config = tmp_path / "config" / "uploader" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[preset.mine]\nchunk-rule = "1M"\nempty-files = false\n')
    listed = uploader("presets", home=tmp_path)
    assert (listed.code, listed.err) == (0, "")
    rows = [line.split() for line in listed.out.splitlines()]
    assert [row[0] for row in rows] == ["preset", *BUILT_IN, "mine"]
    assert all(len(line) <= 80 for line in listed.out.splitlines())
    assert rows[4][:1] + rows[4][-3:] == ["cloudflare-stream", "5M-200M/256K", "unknown", "no"]
    assert rows[-1][-3:] == ["1M", "no", "yes"]
    as_json = json.loads(uploader("presets", "--json", home=tmp_path).out)
    assert [one["preset"] for one in as_json] == [*BUILT_IN, "mine"]


def test_presets_on_a_narrow_terminal_are_names_and_services(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("uploader_cli.features.presets.command.columns", lambda *_: 60)
    assert main(["presets"]) == 0
    title, first, *_ = capsys.readouterr().out.splitlines()
    assert (title.split(), first.split()) == (["preset", "server", "or", "service"], ["tusd", "tusd"])


@pytest.mark.parametrize("preset", BUILT_IN)
def test_preset_is_shown_with_its_command_and_its_page(preset: str, tmp_path: Path) -> None:
    """Also what is unknown of it; its page has the command."""
    shown = uploader("presets", preset, home=tmp_path)
    assert shown.code == 0
    found = json.loads(uploader("presets", preset, "--json", home=tmp_path).out)
    command = next(line.split(None, 1)[1] for line in shown.out.splitlines() if line.startswith("  command "))
    assert found["endpoint"] in command
    assert all(what in shown.out for what in [*found["needs"].values(), *found["unknown"], *found["metadata"]])
    page = " ".join((ROOT / found["page"]).read_text(encoding="utf-8").split())
    assert found["page"] in shown.out
    assert f"--preset {preset}" in page
    assert "**Tested against**" in page


def test_unknown_preset_exits_2(tmp_path: Path) -> None:
    done = uploader("presets", "dropbox", home=tmp_path)
    assert done.code == 2
    assert "use one of: cloudflare-stream, directus" in done.err
