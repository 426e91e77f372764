"""What a preset changes in the settings, and in what is known of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from uploader_cli.core.capabilities import CREATION_WITH_UPLOAD, Capabilities
from uploader_cli.core.terms import Offer
from uploader_cli.settings import Settings, resolve
from uploader_cli.transfer.targets import target_of

if TYPE_CHECKING:
    from pathlib import Path

Resolve = Callable[..., Settings]
HERE = "http://h/files/"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the path of the user's config file, which does not exist yet."""
    return tmp_path / "config.toml"


@pytest.fixture
def settle(tmp_path: Path, own: Path) -> Resolve:
    def call(**flags: object) -> Settings:
        return resolve(flags, env={}, cwd=tmp_path, user_config=own, need_server=False)

    return call


def test_preset_of_the_user_outranks_the_built_in_one(settle: Resolve, own: Path) -> None:
    def retries() -> int:
        return settle(tus_endpoint="http://localhost:1080/files", preset="tusd").retries

    assert retries() == Settings().retries
    own.write_text("[preset.tusd]\nretries = 92")
    assert retries() == 92


def test_header_replaces_that_of_the_preset_in_any_case(settle: Resolve, own: Path) -> None:
    own.write_text('[preset.x]\nheader = ["X-Team: video", "X-More: 1"]')
    settings = settle(tus_endpoint="http://localhost:1080/files", preset="x", header=["X-TEAM: audio"])
    assert settings.headers == {"X-More": "1", "X-TEAM": "audio"}


@pytest.mark.parametrize(
    ("preset", "tells_missing", "with_upload", "empty"),
    [
        ("tusd", False, True, True),
        ("tus-node-server", True, True, True),
        ("tuspyserver", False, False, True),
        ("directus", False, True, False),
        ("none of ours", False, True, True),
    ],
)
def test_preset_adds_what_the_announcement_does_not_say(
    preset: str, tells_missing: bool, with_upload: bool, empty: bool, settle: Resolve, own: Path
) -> None:
    own.write_text('[preset."none of ours"]\nchecksum_compared = true\npart_metadata = false\n')
    settings = settle(tus_endpoint=HERE + "tus" * (preset == "directus"), preset=preset)
    offered = Capabilities(HERE, frozenset({"creation", CREATION_WITH_UPLOAD}))
    known = target_of(settings).terms(Offer(tus=offered))
    assert known.tus is not None
    assert (known.tells_missing, known.tus.creates_with_upload, known.limits.empty_files) == (
        tells_missing,
        with_upload,
        empty,
    )
    assert known.trusts_checksums is (preset == "none of ours")
    assert known.describes_parts is (preset != "none of ours")
    assert not known.gets_keys, "its service may know no other metadata"
    assert target_of(Settings(tus_endpoint=HERE)).terms(Offer(tus=offered)).gets_keys
