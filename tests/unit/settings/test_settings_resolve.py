"""The precedence of the sources of settings, and what each source may set."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import feature_samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.errors import UsageError
from uploader_cli.feature import features
from uploader_cli.settings import DEFAULT, OPTIONS, Layer, Settings, resolve
from uploader_cli.settings.resolution import TUS_ONLY

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
    directory = tmp_path / "home" / ".config" / "uploader"
    directory.mkdir(parents=True)
    return directory / "config.toml"


@pytest.fixture
def settle(here: Path, own: Path) -> Resolve:
    def call(env: dict[str, str] | None = None, **flags: object) -> Settings:
        return resolve({"server": "localhost:1", **flags}, env=env or {}, cwd=here, user_config=own)

    return call


def test_settings_without_any_source_are_the_defaults(settle: Resolve) -> None:
    settings = settle()
    assert (settings.category, settings.protocol, settings.jobs) == ("personal", "auto", "auto")
    assert (settings.retries, settings.max_wait, settings.stall) == (5, 1200.0, 30.0)
    assert (settings.progress, settings.verbose, settings.include, settings.header) == ("auto", 0, (), ())
    assert (settings.chunk_size, settings.checksum, settings.limit_rate, settings.resume) == (
        "auto",
        "auto",
        None,
        True,
    )
    assert (settings.tus_endpoint, settings.target_url) == (None, "http://localhost:1")
    assert not any(getattr(settings, name) for name, option in OPTIONS.items() if option.default is False)
    assert settings.source("retries").layer is Layer.DEFAULT
    assert settings.bearer() is None
    assert settings.notes == ()


def test_variable_that_is_no_setting_is_named(settle: Resolve) -> None:
    settings = settle(env={"UPLOADER_JOBS": "2", "UPLOADER_RETRYS": "1", "UPLOADER_ZQX": "1", "UPLOAD_SERVER": "x"})
    assert settings.notes == (
        "UPLOADER_RETRYS has no effect: did you mean UPLOADER_RETRIES?",
        "UPLOADER_ZQX has no effect: no setting has this name",
    )


def test_settings_are_frozen_and_can_be_built_by_hand() -> None:
    settings = Settings(server="http://localhost:1", retries=2, chunk_size=1 << 20)
    assert (settings.retries, settings.jobs) == (2, "auto")
    assert replace(settings, jobs=1).jobs == 1
    with pytest.raises(FrozenInstanceError):
        settings.retries = 3  # type: ignore[misc]


def test_precedence_flag_environment_directory_user_default(settle: Resolve, here: Path, own: Path) -> None:
    """Without the strongest source, the next one applies."""
    own.write_text("retries = 4")
    (here / "uploader.toml").write_text("retries = 3")
    env = {"UPLOADER_RETRIES": "2"}

    settings = settle(env, retries="1")
    assert (settings.retries, str(settings.source("retries"))) == (1, "--retries")
    settings = settle(env)
    assert (settings.retries, str(settings.source("retries"))) == (2, "UPLOADER_RETRIES")
    settings = settle()
    assert (settings.retries, settings.source("retries").layer) == (3, Layer.WORKING_DIRECTORY)
    assert settings.source("retries").name == f"{here / 'uploader.toml'}: retries"
    (here / "uploader.toml").unlink()
    settings = settle()
    assert (settings.retries, settings.source("retries").layer) == (4, Layer.USER_CONFIG)
    own.unlink()
    assert settle().retries == 5


@pytest.mark.parametrize("name", list(OPTIONS))
def test_each_option_is_read_from_the_environment(name: str, settle: Resolve, tmp_path: Path, own: Path) -> None:
    own.write_text("[profile.7]")
    pem = tmp_path / "some.pem"
    pem.touch()
    written = {
        "server": "files.example",
        "category": "scenic",
        "protocol": "batch",
        "progress": "plain",
        "log_level": "debug",
        "from_format": "csv",
        "if_exists": "fail",
        "header": "X-A: 1",
        "metadata": "a=1",
        "newer_than": "2d",
        "place": "filename",
        "retry_status": "409",
        "tus_endpoint": "tus.example/files/",
        "upload_url": "https://uploads.example/u1?tusv2=true",
        "checksum": "sha1",
        "chunk_size": "1M",
        "limit_rate": "1M",
        "resume": "no",
        "pack": "no",
        "part_metadata": "no",
        "parts": "no",
        "empty_files": "no",
        "bytes_at_creation": "no",
        "proxy": "proxy:1",
        "ca_bundle": str(pem),
        "client_cert": str(pem),
        "report": "r.json",
        **feature_samples.TEXTS,
    }.get(name, "7")
    if OPTIONS[name].default is False:
        written = "yes"
    flags: dict[str, Any] = {"server": None} if name in ("server", "tus_endpoint") else {}
    if name in TUS_ONLY:
        flags = {"server": None, "tus_endpoint": "tus.example"}
    flags |= {other: raw for other, raw in feature_samples.NEEDED.get(name, {}).items() if other != name}
    settings = settle({f"UPLOADER_{name.upper()}": written}, **flags)
    assert getattr(settings, name) != OPTIONS[name].default
    assert settings.source(name).name == f"UPLOADER_{name.upper()}"


def test_only_our_table_of_pyproject_is_read(settle: Resolve, here: Path) -> None:
    for other in ("[project]\nname = 'x'\n", "tool = 3\n"):
        (here / "pyproject.toml").write_text(other)
        assert settle().jobs == "auto"
    (here / "pyproject.toml").write_text("[tool.uploader]\njobs = 2\nfail-fast = true\nexclude = ['*.tmp']\n")
    settings = settle()
    assert (settings.jobs, settings.fail_fast, settings.exclude) == (2, True, ("*.tmp",))
    assert settings.source("fail_fast").name == f"{here / 'pyproject.toml'}: fail-fast"


def test_uploader_toml_overrides_pyproject_with_a_note(settle: Resolve, here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool.uploader]\njobs = 2\nretries = 1\n")
    (here / "uploader.toml").write_text("jobs = 3\n")
    settings = settle()
    assert (settings.jobs, settings.retries) == (3, 5)
    assert "pyproject.toml is ignored" in settings.notes[0]


def test_config_of_a_parent_directory_is_not_read(here: Path, own: Path) -> None:
    (here.parent / "uploader.toml").write_text("jobs = 2")
    assert resolve({"server": "x"}, env={}, cwd=here, user_config=own).jobs == "auto"


def test_a_list_in_the_environment_has_one_item_a_line(settle: Resolve) -> None:
    settings = settle({"UPLOADER_INCLUDE": "*.{mp4,avi}\n\na b\n"})
    assert settings.include == ("*.{mp4,avi}", "a b")


def test_a_report_starts_at_the_directory_of_its_file(settle: Resolve, own: Path, here: Path) -> None:
    own.write_text("report = ['r.json', 'csv:out/r.txt']")
    assert [str(report) for report in settle().report] == [f"json:{own.parent}/r.json", f"csv:{own.parent}/out/r.txt"]
    assert [report.path for report in settle(report=["r.csv"]).report] == [here / "r.csv"]


def test_a_list_replaces_the_weaker_one(settle: Resolve, own: Path) -> None:
    own.write_text("exclude = ['*.tmp']")
    assert settle(exclude=["*.bak"]).exclude == ("*.bak",)
    assert settle(exclude=[]).exclude == ("*.tmp",)


def test_a_flag_can_switch_off_what_the_config_switched_on(settle: Resolve, own: Path) -> None:
    own.write_text("fail_fast = true")
    assert settle().fail_fast is True
    assert settle(fail_fast=False).fail_fast is False


def test_empty_variable_counts_as_unset(settle: Resolve) -> None:
    settings = settle({"UPLOADER_RETRIES": "", "UPLOADER_TOKEN": ""})
    assert settings.retries == 5
    assert settings.bearer() is None


def test_relative_paths_start_at_their_file(settle: Resolve, own: Path, here: Path) -> None:
    own.write_text("token_file = 'token'")
    assert settle().token_file == own.parent / "token"
    assert settle(token_file="token").token_file == here / "token"


@pytest.mark.parametrize(
    ("flags", "env", "said"),
    [
        ({"retries": "x"}, {}, "--retries: must be a whole number, 0 or more, not 'x'"),
        ({"max_wait": "-1"}, {}, "--max-wait: must be none or a number of seconds"),
        ({}, {"UPLOADER_JOBS": "0"}, "UPLOADER_JOBS: must be auto or a whole number"),
        ({"category": "holiday"}, {}, "--category: must be personal or scenic, not 'holiday'"),
        ({"protocol": "ftp"}, {}, "--protocol: must be auto, batch, tus or ietf, not 'ftp'"),
        ({"chunk_size": "1"}, {}, "--chunk-size: must be auto or a size of at least 1024, not '1'"),
        (
            {"limit_rate": "0"},
            {},
            "--limit-rate: must be none or a size of at least 2048 .servers end slower requests., not '0'",
        ),
        ({"checksum": "md5"}, {}, "--checksum: must be auto, none, crc32c, sha1 or sha256, not 'md5'"),
        ({}, {"UPLOADER_RESUME": "perhaps"}, "UPLOADER_RESUME: must be true or false"),
        ({"progress": "fancy"}, {}, "--progress: must be auto, live, plain or none"),
        ({"ca_bundle": "nowhere.pem"}, {}, "--ca-bundle: no such file: .*nowhere.pem"),
        ({"quiet": True, "verbose": 1}, {}, "--quiet and --verbose exclude each other"),
    ],
)
def test_errors_name_what_was_typed(settle: Resolve, flags: dict[str, object], env: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settle(env, **flags)


def test_without_a_server_the_error_names_every_way_to_give_one(here: Path, own: Path) -> None:
    with pytest.raises(UsageError, match="no server") as caught:
        resolve({}, env={}, cwd=here, user_config=own)
    for way in ("--server", "UPLOADER_SERVER", "uploader.toml", str(own)):
        assert way in caught.value.hint


def test_command_without_a_server_needs_none(here: Path) -> None:
    assert resolve({}, env={}, cwd=here, user_config=None, need_server=False).server == ""


def test_a_limit_of_the_config_can_be_lifted(settle: Resolve, own: Path) -> None:
    own.write_text("limit_rate = '1M'")
    assert settle().limit_rate == 1 << 20
    assert settle(limit_rate="none").limit_rate is None


def test_the_state_directory(settle: Resolve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Path) -> None:
    assert settle(state_dir="state").state_path == here / "state"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert settle().state_path.name == "uploader"
    assert Settings(server="http://x", state_dir=tmp_path).state_path == tmp_path


# --- a tus endpoint ---------------------------------------------------------------------------------------------------

TUS = "https://tus.example/files/"


def test_a_tus_endpoint_needs_no_server(here: Path) -> None:
    settings = resolve({"tus_endpoint": TUS}, env={}, cwd=here, user_config=None)
    assert (settings.target_url, settings.target_option, settings.server) == (TUS, "tus_endpoint", "")
    assert settings.protocol == "tus"


def test_a_tus_endpoint_outranks_a_server_of_its_own_layer_and_below(here: Path, own: Path) -> None:
    own.write_text(f"server = 'files.example'\ncategory = 'scenic'\nprotocol = 'batch'\ntus_endpoint = '{TUS}'")
    settings = resolve({}, env={}, cwd=here, user_config=own)
    assert (settings.target_url, settings.protocol) == (TUS, "tus")
    settings = resolve({}, env={"UPLOADER_SERVER": "stronger.example"}, cwd=here, user_config=own)
    assert (settings.target_url, settings.tus_endpoint, settings.protocol) == (
        "https://stronger.example",
        None,
        "batch",
    )
    settings = resolve({"tus_endpoint": "a"}, env={"UPLOADER_SERVER": "b"}, cwd=here, user_config=own)
    assert settings.target_url == "https://a"


def test_a_command_about_sessions_knows_no_tus_endpoint(here: Path) -> None:
    env = {"UPLOADER_TUS_ENDPOINT": TUS}
    with pytest.raises(UsageError, match="no server"):
        resolve({}, env=env, cwd=here, user_config=None, ignored=["tus_endpoint"])
    env["UPLOADER_SERVER"] = "files.example"
    assert (
        resolve({}, env=env, cwd=here, user_config=None, ignored=["tus_endpoint"]).target_url == "https://files.example"
    )


def test_a_value_that_another_option_decides_has_the_source_of_that_option(here: Path, own: Path) -> None:
    own.write_text(f"tus_endpoint = '{TUS}'\nid_header = 'X'")
    to_endpoint = resolve({}, env={}, cwd=here, user_config=own)
    assert (to_endpoint.protocol, to_endpoint.source("protocol").name) == ("tus", f"{own}: tus_endpoint")
    to_server = resolve({}, env={"UPLOADER_SERVER": "files.example"}, cwd=here, user_config=own)
    for name in ("tus_endpoint", "id_header", "protocol"):
        assert getattr(to_server, name) == OPTIONS[name].default
        assert to_server.source(name) is DEFAULT, name


def test_a_changed_value_has_no_source(settle: Resolve) -> None:
    settings = settle(retries="3", jobs="2")
    changed = replace(settings, retries=4)
    assert (changed.source("retries").layer, changed.given_as("retries")) == (Layer.DEFAULT, "--retries")
    assert (replace(changed, retries=3).source("retries"), changed.source("jobs").name) == (
        settings.source("retries"),
        "--jobs",
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"server": "x"}, "--server and --tus-endpoint exclude each other"),
        (
            {"category": "personal"},
            "--category and --tus-endpoint exclude each other: a tus server has no categories",
        ),
        ({"protocol": "batch"}, "--protocol batch and --tus-endpoint exclude each other"),
    ],
)
def test_options_that_a_tus_endpoint_excludes(here: Path, flags: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve({"tus_endpoint": TUS, **flags}, env={}, cwd=here, user_config=None)


def test_tus_endpoint_overrides_excluded_options_of_weaker_sources(here: Path) -> None:
    env = {"UPLOADER_CATEGORY": "scenic", "UPLOADER_PROTOCOL": "batch"}
    assert resolve({"tus_endpoint": TUS}, env=env, cwd=here, user_config=None).protocol == "tus"
    with pytest.raises(UsageError, match="--category and UPLOADER_TUS_ENDPOINT exclude"):
        resolve({"category": "scenic"}, env={"UPLOADER_TUS_ENDPOINT": TUS}, cwd=here, user_config=None)


# --- config files ----------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_file_and_the_nearest_one(settle: Resolve, here: Path) -> None:
    (here / "uploader.toml").write_text("retrys = 3")
    with pytest.raises(UsageError, match=r"uploader\.toml: retrys: unknown setting") as caught:
        settle()
    assert caught.value.hint == "did you mean retries?"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"jobs = 2\nretries =\n", r"config\.toml, line 2: not valid TOML"),
        (b"jobs = 2\nretries = '''\n", r"config\.toml, line 3: not valid TOML"),
        (b"jobs = 2\n# \xff\n", r"config\.toml, line 2: not valid TOML: not UTF-8"),
        (b"jobs = %s" % (b"9" * 5000), r"config\.toml, line 1: not valid TOML: it is nested too deeply, or"),
        (b"jobs = %s" % (b"[" * 5000), r"config\.toml, line 1: not valid TOML: it is nested too deeply, or"),
        (b'ca-bundle = "~\\u0000"', r"config\.toml: ca-bundle: .* contains a NUL character"),
        (b"jobs = true", r"config\.toml: jobs: must be auto or"),
        (b"include = '*.mp4'", r"config\.toml: include: must be a list"),
    ],
)
def test_bad_config_is_named_with_file_and_place(settle: Resolve, own: Path, content: bytes, said: str) -> None:
    own.write_bytes(content)
    with pytest.raises(UsageError, match=said):
        settle()


TOML = st.lists(
    st.sampled_from(
        [
            *(
                "retries",
                "server",
                "include",
                "profile",
                "token",
                "x.y",
                "=",
                " = ",
                "\n",
                "[",
                "]",
                "{",
                "}",
                '"',
                "'",
                ",",
            ),
            *("1", "true", "1979-05-27", "2020-01-01T00:00:00+99:99", "nan", "0x", "9" * 5000, "[" * 3000, "\0", "é"),
            *("retries = 3\n", 'include = ["*.mp4"]\n', "[profile.fast]\njobs = 9\n", 'ca-bundle = "~\\u0000"\n'),
        ]
    ),
    max_size=10,
).map("".join)


@given(TOML.map(str.encode) | st.binary(max_size=20))
def test_random_config_is_parsed_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "config.toml"
        file.write_bytes(content)
        said = str(file)
        try:
            resolve({"server": "http://localhost:1"}, env={}, cwd=Path(directory), user_config=file)
        except UsageError as error:
            said = str(error)
        assert str(file) in said


def test_the_section_must_be_a_table(settle: Resolve, here: Path) -> None:
    (here / "pyproject.toml").write_text("[tool]\nuploader = 3")
    with pytest.raises(UsageError, match="must be a table"):
        settle()


def test_config_that_cannot_be_read_is_an_error(settle: Resolve, own: Path) -> None:
    own.mkdir()
    with pytest.raises(UsageError, match="can't be read"):
        settle()


def test_a_token_is_not_written_into_a_config_file(settle: Resolve, own: Path) -> None:
    own.write_text("token = 's3cret-token'")
    with pytest.raises(UsageError, match=r"config\.toml: token: secrets are not allowed") as caught:
        settle()
    assert "UPLOADER_TOKEN" in caught.value.hint
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("key", ["name", feature_samples.of("fleet", "on"), feature_samples.of("shards", "shard")])
def test_what_is_of_one_run_is_not_written_into_a_config_file(settle: Resolve, own: Path, key: str) -> None:
    own.write_text(f"{key} = 'local:2'")
    with pytest.raises(UsageError, match=rf"config\.toml: {key}: it is of one run, and not allowed in config files"):
        settle()


@pytest.mark.parametrize(
    ("own", "files"), [(Path("/x.toml"), "uploader.toml here, or /x.toml"), (None, "uploader.toml here")]
)
def test_missing_server_is_an_error_that_names_the_config_files(own: Path | None, files: str, here: Path) -> None:
    """A user without a home directory has none of their own."""
    with pytest.raises(UsageError, match="no server given") as raised:
        resolve({}, env={}, cwd=here, user_config=own)
    assert f"into a config file ({files})" in raised.value.hint


# --- an untrusted directory


@pytest.mark.parametrize(
    "line",
    [
        "token_file = '/etc/passwd'",
        "token_command = 'touch /tmp/owned'",
        "header = ['X-A: 1']",
        "proxy = 'http://evil.example'",
        "ca_bundle = 'evil.pem'",
        "client_cert = 'evil.pem'",
        "insecure = true",
        "log_file = '/home/me/.profile'",
        "report = ['json:/home/me/.profile']",
        "failed_to = '/home/me/.profile'",
        "follow_links = true",
        "state_dir = '/home/me/elsewhere'",
        *(
            f"{option.name} = {['x'] if option.default == () else 'x'!r}"
            for feature in features()
            for option in feature.options
            if option.config == "user"
        ),
    ],
)
def test_a_working_directory_may_not_set(
    subtests: pytest.Subtests, settle: Resolve, here: Path, own: Path, line: str
) -> None:
    key = line.split()[0]
    (here / "uploader.toml").write_text(line)
    with pytest.raises(UsageError, match=rf"uploader\.toml: {key}: not allowed in the config of a working") as caught:
        settle()
    for way in (f"--{key.replace('_', '-')}", f"UPLOADER_{key.upper()}", str(own)):
        with subtests.test(way=way):
            assert way in caught.value.hint
    own.write_text((here / "uploader.toml").read_text())
    (here / "uploader.toml").write_text(f"[tool.uploader]\n{line}")
    (here / "uploader.toml").rename(here / "pyproject.toml")
    with pytest.raises(UsageError, match=rf"pyproject\.toml: {key}:"):
        settle()


def test_a_server_named_only_by_the_directory_gets_no_token(here: Path, own: Path) -> None:
    (here / "uploader.toml").write_text("server = 'https://evil.example'")
    own.write_text("header = ['Authorization: Basic abcd', 'X-Team: video']")
    env = {"UPLOADER_TOKEN": "s3cret-token"}
    settings = resolve({}, env=env, cwd=here, user_config=own)
    assert settings.token_withheld
    assert settings.bearer() is None
    assert settings.headers == {"X-Team": "video"}

    settings = resolve({"server": "https://evil.example"}, env=env, cwd=here, user_config=own)
    assert not settings.token_withheld, "the user said it: on the command line"
    assert settings.bearer() == "s3cret-token"
    own.write_text("server = 'evil.example/'")
    settings = resolve({}, env=env, cwd=here, user_config=own)
    assert not settings.token_withheld, "the user said it too: in their own config"
    assert settings.source("server").layer is Layer.WORKING_DIRECTORY


def test_a_tus_endpoint_named_only_by_the_directory_gets_no_token(here: Path, own: Path) -> None:
    """Also if the user trusts a server of that directory: files are not sent there."""
    (here / "uploader.toml").write_text(f"tus_endpoint = '{TUS}'")
    own.write_text("server = 'https://files.example'")
    env = {"UPLOADER_TOKEN": "s3cret-token"}
    settings = resolve({}, env=env, cwd=here, user_config=own)
    assert (settings.target_url, settings.token_withheld, settings.bearer()) == (TUS, True, None)
    assert not resolve({"tus_endpoint": TUS}, env=env, cwd=here, user_config=own).token_withheld
    own.write_text(f"tus_endpoint = '{TUS}'")
    assert not resolve({}, env=env, cwd=here, user_config=own).token_withheld


def test_without_a_secret_nothing_is_withheld(here: Path) -> None:
    (here / "uploader.toml").write_text("server = 'files.example'")
    assert not resolve({}, env={}, cwd=here, user_config=None).token_withheld
