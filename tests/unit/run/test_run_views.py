"""The commands that the output suggests."""

from __future__ import annotations

from pathlib import Path

import pytest

from uploader_cli.run.views import resume_hint
from uploader_cli.settings import resolve


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        ({}, "uploader resume"),
        ({"state_dir": "a b"}, "uploader resume --state-dir '/work/a b'"),
        ({"profile": "x"}, "uploader resume --profile x"),
        ({"profile": "y"}, "uploader resume"),
    ],
)
def test_an_interrupted_run_is_found_again_where_its_journal_is(
    flags: dict[str, str], command: str, tmp_path: Path
) -> None:
    """A run remembers its profile; but the profile may set the state directory."""
    own = tmp_path / "config.toml"
    own.write_text("[profile.x]\nstate_dir = 'elsewhere'\n[profile.y]")
    settings = resolve(flags, env={}, cwd=Path("/work"), user_config=own, need_server=False)
    assert resume_hint(settings, ["a.mp4"]) == f"{command}, or the same command again"
