"""`[profile.NAME]`: its settings, its precedence, and what the profile of a working directory may not set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from uploader_cli.errors import UsageError
from uploader_cli.settings import Layer, Settings, resolve, storable
from uploader_cli.settings.stored import resumed

if TYPE_CHECKING:
    from pathlib import Path

Resolve = Callable[..., Settings]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Change to a new working directory and return it."""
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the path of the user's config file, which does not exist yet."""
    return tmp_path / "config.toml"


@pytest.fixture
def settle(here: Path, own: Path) -> Resolve:
    def call(env: dict[str, str] | None = None, **flags: object) -> Settings:
        return resolve(flags, env=env or {}, cwd=here, user_config=own, need_server=False)

    return call


def test_precedence_flag_environment_profile_file_default(settle: Resolve, here: Path, own: Path) -> None:
    """Without the strongest source, the next one applies."""
    project = here / "uploader.toml"
    own.write_text("retries = 6\n[profile.x]\nretries = 4")
    project.write_text("retries = 5\n[profile.x]\nretries = 3")
    env = {"UPLOADER_RETRIES": "2"}

    assert settle(env, profile="x", retries="1").retries == 1
    assert settle(env, profile="x").retries == 2
    settings = settle(profile="x")
    assert (settings.retries, settings.source("retries").layer) == (3, Layer.DIRECTORY_PROFILE)
    assert str(settings.source("retries")) == f"{project}: profile.x.retries"
    project.write_text("retries = 5")
    settings = settle(profile="x")
    assert (settings.retries, settings.source("retries").layer) == (4, Layer.USER_PROFILE)
    assert str(settings.source("retries")) == f"{own}: profile.x.retries"
    own.write_text("retries = 6\n[profile.x]")
    assert settle(profile="x").retries == 5
    project.unlink()
    assert settle(profile="x").retries == 6
    own.write_text("[profile.x]")
    assert settle(profile="x").retries == 5


def test_unselected_profile_is_ignored(settle: Resolve, own: Path) -> None:
    own.write_text("retries = 6\n[profile.x]\nretries = 4")
    settings = settle()
    assert (settings.retries, settings.profile) == (6, None)


def test_profile_flag_overrides_the_environment(settle: Resolve, own: Path) -> None:
    own.write_text("[profile.x]\nretries = 1\n[profile.y]\nretries = 2")
    assert settle({"UPLOADER_PROFILE": "x"}).retries == 1
    settings = settle({"UPLOADER_PROFILE": "x"}, profile="y")
    assert (settings.retries, settings.profile, str(settings.source("profile"))) == (2, "y", "--profile")


def test_profile_falls_back_to_the_rest_of_the_file(settle: Resolve, own: Path) -> None:
    own.write_text("server = 'files.example'\njobs = 2\n[profile.x]\njobs = 8")
    settings = settle(profile="x")
    assert (settings.server, settings.jobs) == ("https://files.example", 8)


def test_relative_paths_of_a_profile_start_at_its_file(settle: Resolve, own: Path) -> None:
    own.write_text("[profile.x]\ntoken-file = 'word'")
    assert settle(profile="x").token_file == own.parent / "word"


def test_pyproject_has_profiles_too(settle: Resolve, here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.uploader.profile.ci]\nretries = 9")
    assert settle(profile="ci").retries == 9


def test_unknown_profile_is_refused_with_the_existing_names(settle: Resolve, here: Path, own: Path) -> None:
    own.write_text("[profile.staging]")
    (here / "uploader.toml").write_text("[profile.ci]")
    with pytest.raises(UsageError, match=r"^--profile: unknown profile 'stagin'$") as caught:
        settle(profile="stagin")
    assert caught.value.hint == "use one of: ci, staging"
    with pytest.raises(UsageError, match=r"^UPLOADER_PROFILE: unknown profile 'x'$"):
        settle({"UPLOADER_PROFILE": "x"})


def test_without_any_profile_the_file_for_them_is_named(settle: Resolve, own: Path) -> None:
    with pytest.raises(UsageError) as caught:
        settle(profile="x")
    assert caught.value.hint == f"no profile is defined: write [profile.NAME] into {own} or uploader.toml"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("[profile.x]\nretrys = 1", "profile.x.retrys: unknown setting", "did you mean retries?"),
        ("[profile.x]\nprofile = 'y'", "profile.x.profile: unknown setting", "uploader config lists"),
        ("profile = 'x'", "profile: each profile must be a table", "write [profile.NAME]"),
        ("[profile]\nretries = 1", "profile: each profile must be a table", "write [profile.NAME]"),
        ("[profile.x]\ntoken = 'abcdef'", "profile.x.token: secrets are not allowed in config files", "use "),
        ("[profile.x]\nmax-wait = 1\nmax_wait = 2", "max_wait: the file sets it twice, also as max-wait", "keep one"),
        ("[profile.x]\ninclude = 'a'", "profile.x.include: must be a list", "write "),
    ],
)
def test_error_in_any_profile_is_reported(content: str, message: str, hint: str, settle: Resolve, own: Path) -> None:
    """Profiles that are not selected are checked, too."""
    own.write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        settle()
    assert str(caught.value).startswith(f"{own}: ")
    assert caught.value.hint.startswith(hint)


def test_a_bad_value_in_a_profile_is_named_with_its_place(settle: Resolve, own: Path) -> None:
    own.write_text("[profile.x]\nretries = 'many'")
    with pytest.raises(UsageError, match=r"config.toml: profile.x.retries: must be a whole number"):
        settle(profile="x")


def test_a_working_directory_s_profile_may_not_set_more_than_its_config(settle: Resolve, here: Path) -> None:
    (here / "uploader.toml").write_text("[profile.x]\ntoken_command = 'evil'")
    with pytest.raises(UsageError, match="not allowed in the config of a working directory"):
        settle()


def test_a_server_named_only_by_the_directory_s_profile_gets_no_token(settle: Resolve, here: Path, own: Path) -> None:
    """Also if the user has a profile of that name, or one with a token."""
    (here / "uploader.toml").write_text("[profile.x]\nserver = 'evil.example'")
    own.write_text("[profile.x]\nserver = 'files.example'\ntoken_command = 'echo abcdef'")
    settings = settle(profile="x")
    assert (settings.server, settings.bearer()) == ("https://evil.example", None)
    assert settings.token_withheld
    own.write_text("[profile.x]\nserver = 'evil.example'\ntoken_command = 'echo abcdef'")
    assert settle(profile="x").bearer() == "abcdef", "the user has named it, too"


def test_the_token_of_a_profile_outranks_the_token_of_the_file(settle: Resolve, own: Path) -> None:
    (own.parent / "word").write_text("base-token")
    own.write_text("server = 'files.example'\ntoken_file = 'word'\n[profile.x]\ntoken_command = 'echo staging-token'")
    assert settle().bearer() == "base-token"
    assert settle(profile="x").bearer() == "staging-token"


def test_resume_uses_the_profile_of_the_run(settle: Resolve, here: Path, own: Path) -> None:
    """A resume uses its token or a newly given one; no token if the profile was removed."""
    own.write_text("[profile.x]\nserver = 'files.example'\ntoken_command = 'echo token-of-x'\n[profile.y]")
    stored = storable(settle(profile="x"))

    def again(**flags: object) -> Settings:
        return resolve(flags, stored=stored, env={}, cwd=here, user_config=own)

    settings = again()
    assert (settings.profile, settings.server, settings.bearer()) == ("x", "https://files.example", "token-of-x")
    settings = again(profile="y")
    assert (settings.profile, settings.server, settings.bearer()) == ("y", "https://files.example", None)
    own.unlink()
    settings = again()
    assert (settings.profile, settings.server) == (None, "https://files.example")
    assert settings.notes == (
        "the profile 'x' of the run is not in the config files here; the run continues without it",
    )


@pytest.mark.parametrize(
    ("run", "same"),
    [("https://h.example:443", True), ("https://H.example", True), ("https://h.example:80", False)],
)
def test_resumed_run_of_another_origin_gets_no_secrets(settle: Resolve, run: str, same: bool) -> None:
    settings = resumed(settle(server="https://h.example"), settle(server=run))
    assert settings.server == run.lower()
    assert bool(settings.distrust) is not same
