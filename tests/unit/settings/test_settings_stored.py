"""The stored options of a run restore its settings in another environment, and have no secret."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import feature_samples
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploader_cli.errors import UsageError
from uploader_cli.settings import OPTIONS, Header, Layer, Metadata, Settings, resolve, storable
from uploader_cli.settings.stored import admitted
from uploader_cli.settings.values import ChunkRule, Moment

STORED = [name for name, option in OPTIONS.items() if option.stored and name != "profile"]
"""What decides a run by itself; for the profile see test_settings_profiles.py."""
NOWHERE = Path("/nowhere")
LATER = {
    "UPLOADER_SERVER": "later.example",
    "UPLOADER_CATEGORY": "scenic",
    "UPLOADER_PROTOCOL": "tus",
    "UPLOADER_TUS_ENDPOINT": "later.example/files",
    "UPLOADER_METADATA": "later=9",
    "UPLOADER_CHUNK_RULE": "9M",
    "UPLOADER_RETRY_STATUS": "499",
    "UPLOADER_ID_HEADER": "later",
    "UPLOADER_PART_METADATA": "no",
    "UPLOADER_PARTS": "no",
    "UPLOADER_EMPTY_FILES": "no",
    "UPLOADER_EMPTY_AT_CREATION": "yes",
    "UPLOADER_BYTES_AT_CREATION": "no",
    "UPLOADER_ALLOWED_NAMES": "[a-z]",
    "UPLOADER_PLACE": "filename",
    "UPLOADER_JOBS": "9",
    "UPLOADER_CHUNK_SIZE": "9M",
    "UPLOADER_CHECKSUM": "sha1",
    "UPLOADER_PACK": "no",
    "UPLOADER_LIMIT_RATE": "9M",
    "UPLOADER_INCLUDE": "later",
    "UPLOADER_EXCLUDE": "later",
    "UPLOADER_EXCLUDE_FROM": "later",
    "UPLOADER_MIN_SIZE": "9",
    "UPLOADER_MAX_SIZE": "9",
    "UPLOADER_NEWER_THAN": "9d",
    "UPLOADER_DEST": "later",
    "UPLOADER_IF_EXISTS": "fail",
    "UPLOADER_FINISH_TIMEOUT": "9",
    "UPLOADER_RETRIES": "9",
    "UPLOADER_MAX_WAIT": "9",
    "UPLOADER_WAIT_FOR_SERVER": "9",
    "UPLOADER_TRUST_RECEIPTS": "yes",
    "UPLOADER_STALL": "9",
    "UPLOADER_FROM_FORMAT": "csv",
    "UPLOADER_UPLOAD_URL": "https://later.example/u1",
    **{f"UPLOADER_{name.upper()}": text for name, text in feature_samples.TEXTS.items()},
    **{f"UPLOADER_{name.upper()}": "yes" for name in STORED if OPTIONS[name].default is False},
}
"""Each stored option, as the environment has it when the run is resumed."""

globs = st.lists(st.text(min_size=1).filter(str.strip), max_size=3).map(tuple)
times = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)
of_tus = {"empty_at_creation", "checksum_compared"}  # which `--server` refuses
switches: dict[str, st.SearchStrategy[Any]] = {
    name: st.booleans() for name in STORED if OPTIONS[name].default is False and name not in of_tus
}
common: dict[str, st.SearchStrategy[Any]] = switches | {
    "jobs": st.just("auto") | st.integers(1, 10**6),
    "chunk_size": st.integers(1024, 10**17),
    "checksum": st.sampled_from(["auto", "none", "sha1", "sha256"]),
    "pack": st.booleans(),
    "limit_rate": st.none() | st.integers(2048, 10**17),
    "include": globs,
    "exclude": globs,
    "exclude_from": st.lists(st.sampled_from([Path("/a.txt"), Path("/b c")]), max_size=2).map(tuple),
    "min_size": st.integers(0, 10**17),
    "max_size": st.none() | st.integers(0, 10**17),
    "newer_than": st.none() | st.sampled_from([0, 1.5e9]).map(lambda at: Moment(Moment("", at).__str__(), at)),
    "dest": st.sampled_from([None, "a", "a b/ü"]),
    "if_exists": st.sampled_from(["rename", "fail"]),
    "retries": st.integers(0, 10**6),
    "max_wait": times,
    "wait_for_server": times,
    "trust_receipts": st.booleans(),
    "stall": times,
    "from_format": st.sampled_from(["auto", "plain", "nul", "csv", "jsonl"]),
    **{name: st.sampled_from(values) for name, values in feature_samples.VALUES.items()},
}
to_a_server = st.builds(
    Settings,
    server=st.sampled_from(["http://localhost:8005", "https://files.example/up"]),
    category=st.sampled_from(["personal", "scenic"]),
    protocol=st.sampled_from(["auto", "batch", "tus", "ietf"]),
    **common,
)
to_an_endpoint = st.builds(
    Settings,
    tus_endpoint=st.sampled_from(["http://localhost:1080/files/", "https://tus.example/up"]),
    protocol=st.sampled_from(["tus", "ietf"]),
    chunk_rule=st.sampled_from([None, ChunkRule(9, 10**17, 1)]),
    retry_status=st.lists(st.integers(400, 599)).map(tuple),
    id_header=st.sampled_from([None, "stream-media-id"]),
    place=st.sampled_from([(), ("filename",), ("relativePath", "filename")]),
    metadata=st.lists(
        st.builds(
            Metadata, st.sampled_from("ab"), st.none() | st.sampled_from(["", "a b", "{name}", "{stem}-{size} }"])
        )
    ).map(tuple),
    **common,
)


def rebuilt(stored: dict[str, Any], env: dict[str, str] | None = None, **flags: object) -> Settings:
    return resolve(flags, stored=stored, env=env or {}, cwd=NOWHERE, user_config=None)


def test_later_environment_sets_each_stored_option() -> None:
    assert {f"UPLOADER_{name.upper()}" for name in STORED} == LATER.keys()


def test_an_option_of_a_newer_version_is_named() -> None:
    with pytest.raises(UsageError, match="the run has the option novel, which this version does not know"):
        rebuilt({"server": "http://a.example", "novel": True, "named_by_directory": True})


@pytest.mark.thorough
@given(settings=to_a_server | to_an_endpoint, env=st.sampled_from([{}, LATER]))
def test_a_run_comes_back_as_it_was_stored(settings: Settings, env: dict[str, str]) -> None:
    """Whatever the environment has come to say, and through JSON."""
    again = rebuilt(json.loads(json.dumps(storable(settings))), env)
    assert again.target_url == settings.target_url
    ignored = {"server", "category"} if settings.tus_endpoint else set()
    for name in set(STORED) - ignored:
        assert getattr(again, name) == getattr(settings, name), name
    assert storable(again) == storable(settings)


@pytest.mark.parametrize(
    ("written", "utc"),
    [("2026-01-31", "30T18:30"), ("2026-01-31T18:00", "31T12:30"), ("2026-01-31T18:00+02:00", "31T16:00")],
)
def test_newer_than_is_local_time_and_the_same_in_the_zone_of_a_later_run(
    written: str, utc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(zone: str, **how: Any) -> Settings:
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        return resolve(env={}, cwd=NOWHERE, user_config=None, **how)

    try:
        first = read("Asia/Kolkata", flags={"server": "localhost", "newer_than": written})
        again = read("America/New_York", flags={}, stored=json.loads(json.dumps(storable(first))))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert first.newer_than is not None
    assert str(first.newer_than) == f"2026-01-{utc}:00+00:00"
    assert again.newer_than is not None
    assert again.newer_than.at == first.newer_than.at


def test_new_options_override_stored_ones() -> None:
    stored = storable(Settings(server="http://localhost:1", retries=2, jobs=3))
    again = rebuilt(stored, retries="7", jobs=None, include=[])
    assert (again.retries, again.jobs) == (7, 3)
    assert resolve({**stored, "jobs": "5"}, env={}, cwd=NOWHERE, user_config=None).jobs == 5


def test_a_run_that_is_resumed_does_resume() -> None:
    stored = storable(Settings(server="http://localhost:1", resume=False))
    assert rebuilt(stored, {"UPLOADER_RESUME": "no"}).resume


def test_neither_secret_nor_command_nor_trust_is_stored(tmp_path: Path) -> None:
    for name in ("ca.pem", "me.pem"):
        (tmp_path / name).touch()
    settings = Settings(
        server="http://localhost:1",
        token="s3cret",
        token_file=tmp_path / "s3cret",
        token_command="echo s3cret",
        header=(Header("X-Key", "s3cret"),),
        proxy="http://proxy:1",
        ca_bundle=tmp_path / "ca.pem",
        client_cert=tmp_path / "me.pem",
        insecure=True,
    )
    assert storable(settings) == storable(Settings(server="http://localhost:1"))


def test_row_of_the_journal_brings_no_secret_command_or_trust() -> None:
    """Whoever has written it: these are the user's, and no run stores them."""
    row: dict[str, object] = {name: "x" for name, option in OPTIONS.items() if not option.stored and name != "resume"}
    stored = storable(Settings(server="http://localhost:1"))
    assert {"token_command", "header", "insecure", "ca_bundle", "proxy"} <= row.keys()
    assert admitted({**stored, **row}) == stored


@pytest.mark.parametrize("key", ["server", "tus_endpoint"])
def test_a_server_that_only_a_directory_named_gets_no_token_later_either(tmp_path: Path, key: str) -> None:
    """Once stored, it would look like a choice of the user."""
    (tmp_path / "uploader.toml").write_text(f"{key} = 'https://evil.example/x'")
    stored = storable(resolve({}, env={}, cwd=tmp_path, user_config=None))
    (tmp_path / "uploader.toml").unlink()
    env = {"UPLOADER_TOKEN": "s3cret-token"}
    again = rebuilt(stored, env, header=["Cookie: a=b", "X-Team: video"])
    assert (again.target_url, again.bearer()) == ("https://evil.example/x", None)
    assert again.token_withheld
    assert again.headers == {"X-Team": "video"}
    assert again.source(key).layer is Layer.WORKING_DIRECTORY
    assert storable(again) == stored, "resumed twice, it is still untrusted"
    trusting = env | {f"UPLOADER_{key.upper()}": "evil.example/x"}
    assert rebuilt(stored, trusting).bearer() == "s3cret-token", "the user has named it since"


def test_a_server_that_the_user_named_gets_the_token() -> None:
    stored = storable(replace(Settings(server="http://localhost:1"), retries=1))
    assert rebuilt(stored, {"UPLOADER_TOKEN": "s3cret-token"}).bearer() == "s3cret-token"
