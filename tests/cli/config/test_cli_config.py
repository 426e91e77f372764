"""`uploader config`: effective settings with their sources, masked secrets, and a new config file."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import feature_samples
import pytest
from command import environment
from time_limits import PATIENCE

from uploader_cli.__main__ import main
from uploader_cli.settings import OPTIONS, Invalid, Option, Settings, resolve, user_config_file

if TYPE_CHECKING:
    from collections.abc import Callable

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("UPLOADER_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def own() -> Path:
    """The user's config file, not yet written; its directory is there."""
    file = user_config_file()
    assert file is not None
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def shown(capsys: Capture) -> Callable[..., dict[str, Any]]:
    def call(*arguments: str) -> dict[str, Any]:
        assert main(["config", *arguments, "--json"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        body = json.loads(out)
        assert isinstance(body, dict)
        return body

    return call


def test_each_setting_is_shown_with_its_source(
    own: Path, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """From a flag, the environment, a profile, the working directory, the user's file, or by default."""
    own.write_text("stall = 9\n[profile.x]\nserver = 'files.example'")
    (work / "uploader.toml").write_text("exclude = ['*.tmp', 'a b']")
    monkeypatch.setenv("UPLOADER_JOBS", "7")
    assert main(["config", "--profile", "x"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    words = " ".join(out.split())
    for row in (
        f"your config file: {own} profiles: x ",
        "profile x --profile",
        f"server https://files.example {own}: profile.x.server",
        "jobs 7 UPLOADER_JOBS",
        f"exclude *.tmp, a b {work / 'uploader.toml'}: exclude",
        f"stall 9 {own}: stall",
        "retries 5 default",
        "chunk_size auto default",
        "limit_rate – default",
        "follow_links off default",
    ):
        assert row in words
    assert {line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")} >= OPTIONS.keys()


def test_config_show_json_has_value_and_source_of_each_setting(
    own: Path, shown: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own.write_text("retries = 3")
    monkeypatch.setenv("UPLOADER_SERVER", "localhost:1")
    body = shown("show")
    assert (body["file"], body["profiles"], body["token_withheld"], body["notes"]) == (str(own), [], False, [])
    settings = body["settings"]
    assert settings.keys() == OPTIONS.keys()
    assert settings["server"] == {
        "value": "http://localhost:1",
        "source": "environment",
        "from": "UPLOADER_SERVER",
    }
    assert settings["retries"] == {"value": 3, "source": "user config", "from": f"{own}: retries"}
    assert settings["include"] == {"value": [], "source": "default", "from": "default"}
    assert settings["state_dir"]["value"] == str(Settings().state_path)


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    given = {
        "token": ("hunter2-token", "***"),
        "token_command": ("pass hunter2", "***"),
        "session_secret": ("hunter2-session", "***"),
        "upload_url": ("https://uploads.example/hunter2", "***"),
        "proxy": ("http://me:hunter2@proxy.example:1", "http://***@proxy.example:1"),
        "header": ("X-Api-Key: hunter2-key\nX-Team: video", ["X-Api-Key: ***", "X-Team: video"]),
        **feature_samples.SECRETS,
    }
    for name, (value, _) in given.items():
        monkeypatch.setenv(OPTIONS[name].variable, value)
    assert main(["config"]) == 0
    assert main(["config", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err
    settings = json.loads(out.splitlines()[-1])["settings"]
    assert {name: settings[name]["value"] for name in given} == {name: masked for name, (_, masked) in given.items()}
    assert given.keys() == {name for name, option in OPTIONS.items() if option.secret} | {"header"}
    assert re.search(r"token +\*\*\* +UPLOADER_TOKEN\n", out)


def test_config_shows_a_withheld_token_as_withheld(
    work: Path, monkeypatch: pytest.MonkeyPatch, shown: Callable[..., dict[str, Any]], capsys: Capture
) -> None:
    (work / "uploader.toml").write_text("server = 'evil.example'")
    monkeypatch.setenv("UPLOADER_TOKEN", "hunter2-token")
    assert shown()["token_withheld"]
    assert main(["config"]) == 0
    assert "withheld" in capsys.readouterr().out


def test_config_shows_the_tus_endpoint_as_upload_resolves_it(own: Path, shown: Callable[..., dict[str, Any]]) -> None:
    own.write_text("tus_endpoint = 'tus.example/files'")
    settings = shown()["settings"]
    assert settings["tus_endpoint"]["value"] == "https://tus.example/files"
    assert settings["protocol"]["value"] == "tus"


def test_config_escapes_control_characters(work: Path, capsys: Capture) -> None:
    (work / "uploader.toml").write_text('include = ["\\u001b[2J"]')
    assert main(["config"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def on_a_terminal(columns: int, home: Path, **extra: str) -> str:
    """Return what `uploader config` prints on a terminal of the given width."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "uploader_cli", "config"]
    subprocess.run(
        command, stdout=theirs, check=True, cwd=home, env=environment(home, TERM="xterm", **extra), timeout=90
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    return text.decode()


def test_long_config_row_has_its_source_on_the_next_line(tmp_path: Path) -> None:
    """So that value and source stay apart on a narrow terminal; defaults are dim, unless colours are unwanted."""
    narrow = on_a_terminal(40, tmp_path, UPLOADER_SERVER="a-server-with-a-long-name.example", NO_COLOR="1")
    assert "server               https://a-server-with-a-long-name.example\r\n        UPLOADER_SERVER\r\n" in narrow
    assert "\x1b" not in narrow
    wide = on_a_terminal(120, tmp_path, UPLOADER_JOBS="7")
    assert re.search(r"\njobs +7 +UPLOADER_JOBS\r", wide)
    assert re.search(r"\x1b\[2mretries +5 +default\x1b\[0m\r", wide)


def test_init_writes_a_private_file_that_sets_nothing(capsys: Capture) -> None:
    """With each line taken in that is a default, the settings are the defaults still."""
    assert main(["config", "init"]) == 0
    file = user_config_file()
    assert str(file) in capsys.readouterr().err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = file.read_text(encoding="utf-8")
    assert tomllib.loads(content) == {}
    named = dict(re.findall(r"^# (\w+) = (.*)$", content.partition("[profile")[0], re.MULTILINE))
    assert named.keys() == {name for name, option in OPTIONS.items() if option.config != "none"}
    defaults = [name for name in named if OPTIONS[name].default not in (None, "", ())]
    file.write_text("\n".join(f"{name} = {named[name]}" for name in defaults), encoding="utf-8")
    settings = resolve({}, env={}, cwd=Path("/nowhere"), user_config=file, need_server=False)
    assert {name: getattr(settings, name) for name in defaults} == {name: OPTIONS[name].default for name in defaults}
    assert tomllib.loads("\n".join(f"{name} = {value}" for name, value in named.items())).keys() == named.keys()


def test_init_overwrites_only_with_force(own: Path, capsys: Capture) -> None:
    own.write_text("retries = 1")
    own.chmod(0o644)
    assert main(["config", "init"]) == 2
    assert f"{own} exists already" in capsys.readouterr().err
    assert own.read_text() == "retries = 1"
    assert main(["config", "init", "--force"]) == 0
    assert tomllib.loads(own.read_text()) == {}
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    assert [entry.name for entry in own.parent.iterdir()] == [own.name]


def test_init_keeps_a_symlink(own: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("retries = 1")
    own.symlink_to(real)
    assert main(["config", "init", "--force"]) == 0
    assert own.is_symlink()
    assert tomllib.loads(real.read_text()) == {}


def test_init_in_an_unwritable_place_is_an_error(capsys: Capture) -> None:
    directory = user_config_file().parent
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where the directory should be")
    assert main(["config", "init"]) == 2
    assert "can't be written" in capsys.readouterr().err


def test_config_path_prints_the_users_config_file(capsys: Capture) -> None:
    assert main(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{user_config_file()}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shwo"], "unknown action 'shwo'"),
        (["--force"], "config show: --force is only for `config init`"),
        (["path", "--json"], "config path: --json is only for `config show`"),
        (["init", "--profile", "x"], "config init: --profile is only for `config show`"),
        (["--profile", "x"], "unknown profile 'x'"),
    ],
)
def test_config_refuses_conflicting_arguments(arguments: list[str], words: str, capsys: Capture) -> None:
    assert main(["config", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_config_error_names_file_and_line(own: Path, capsys: Capture) -> None:
    own.write_text("retrys = 1")
    assert main(["config"]) == 2
    assert capsys.readouterr().err == f"error: {own}: retrys: unknown setting\nhint: did you mean retries?\n"


def acceptable(option: Option) -> str:
    """Something that the option takes from the environment."""
    own = {
        "chunk_rule": "7M",
        "metadata": "filename={path}",
        "place": "filename",
    } | feature_samples.TEXTS
    if option.name in own:
        return own[option.name]
    for written in (*option.names, "7", "407", "7M", "yes", "1/2", "X-A: 1", "r.json", "http://a/b", "a=1"):
        with contextlib.suppress(Invalid):
            option.parse(written)
            return written
    raise AssertionError(f"{option.name} takes none of these")


def test_a_value_of_each_kind_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, work: Path, shown: Callable[..., dict[str, Any]]
) -> None:
    """Set every setting by the environment: each value fits JSON and a row."""
    (work / "7").touch()
    silent = {"profile", "quiet", "json"}
    for name in OPTIONS.keys() - silent:
        monkeypatch.setenv(OPTIONS[name].variable, acceptable(OPTIONS[name]))
    settings = shown()["settings"]
    assert {name for name, row in settings.items() if row["source"] != "environment"} == silent
    assert settings["report"]["value"] == [f"json:{work / 'r.json'}"]
    assert main(["config"]) == 0
    assert re.search(r"retries +7 +UPLOADER_RETRIES\n", capsys.readouterr().out)


def test_closed_config_directory_is_no_internal_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(0)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "closed"))
    line = [sys.executable, "-m", "uploader_cli", "config"]
    if not os.geteuid():  # root may enter every directory, without these capabilities only its own ones
        line = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *line]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "does not exist; create it with: uploader config init" in done.stdout
