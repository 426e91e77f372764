"""Where the token comes from, and that it is never shown."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from uploader_cli.core.masking import mask
from uploader_cli.errors import UsageError
from uploader_cli.settings import Settings, bearer, resolve
from uploader_cli.transfer.credentials import new_secret

SECRET = "s3cret-token-of-a-test"


def settle(cwd: Path, env: dict[str, str] | None = None, **flags: object) -> Settings:
    return resolve({"server": "localhost", **flags}, env=env or {}, cwd=cwd, user_config=cwd / "own.toml")


def test_from_the_environment(tmp_path: Path) -> None:
    assert settle(tmp_path, {"UPLOADER_TOKEN": f" {SECRET}\n"}).bearer() == SECRET


def test_first_token_of_a_pipe_is_awaited_longer_than_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bearer, "AGAIN_LIMIT", 0.0)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    settings = settle(tmp_path, token_file=str(pipe))
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(pipe.write_text, "of-a-pipe")
        assert settings.bearer() == "of-a-pipe"
        assert written.result()
    assert settings.bearer(refresh=True) is None


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    settings = settle(tmp_path, token_file=str(file))
    assert settings.bearer() == SECRET
    file.write_text("another")
    assert settings.bearer() == "another"


@pytest.mark.parametrize("content", [None, "", " \n", f"{SECRET}\ntwo lines", "naïve", b"\xff\xfe"])
def test_a_file_without_a_token_is_named(tmp_path: Path, content: str | bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=f"--token-file: the token file {file}") as caught:
        settle(tmp_path, token_file=str(file)).bearer()
    assert SECRET not in str(caught.value)


def test_a_command_is_run_once_and_again_for_a_refresh(tmp_path: Path) -> None:
    command = f'echo x >> "{tmp_path / "runs"}" && wc -l < "{tmp_path / "runs"}"'
    settings = settle(tmp_path, token_command=command)
    assert [settings.bearer(), settings.bearer(), settings.bearer(refresh=True), settings.bearer()] == [
        "1",
        "1",
        "2",
        "2",
    ]


def test_a_command_is_run_once_for_two_threads(tmp_path: Path) -> None:
    command = f'echo x >> "{tmp_path / "runs"}"; sleep 0.2; wc -l < "{tmp_path / "runs"}"'
    settings = settle(tmp_path, token_command=command)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: settings.bearer(), range(2))) == ["1", "1"]


@pytest.mark.parametrize(("end", "code"), [("exit 3", "3"), ("kill -9 $$", "-9")])
def test_a_failing_command_is_named_by_its_exit_code_alone(tmp_path: Path, end: str, code: str) -> None:
    settings = settle(tmp_path, {"UPLOADER_TOKEN_COMMAND": f"echo {SECRET}; echo {SECRET} >&2; {end}"})
    said = f"UPLOADER_TOKEN_COMMAND: the token command failed with exit code {code}$"
    with pytest.raises(UsageError, match=said) as caught:
        settings.bearer()
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_a_command_that_prints_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the output of the token command is empty"):
        settle(tmp_path, token_command="true").bearer()


def test_a_command_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a grandchild keeps the pipe open."""
    monkeypatch.setattr(bearer, "COMMAND_LIMIT", 0.2)
    os.mkfifo(tmp_path / "pipe")
    ends_with_the_test = os.open(tmp_path / "pipe", os.O_RDWR)
    settings = settle(tmp_path, token_command=f"cat '{tmp_path}/pipe'; true")
    with pytest.raises(UsageError, match="took longer than"):
        settings.bearer()
    os.close(ends_with_the_test)


def test_the_strongest_source_wins_then_token_file_command(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file")
    (tmp_path / "own.toml").write_text("token_command = 'echo of-the-command'")
    env = {"UPLOADER_TOKEN": "of-the-environment"}
    assert settle(tmp_path).bearer() == "of-the-command"
    assert settle(tmp_path, env).bearer() == "of-the-environment"
    assert settle(tmp_path, env | {"UPLOADER_TOKEN_FILE": str(file)}).bearer() == "of-the-environment"
    assert settle(tmp_path, env, token_file=str(file)).bearer() == "of-the-file"
    assert settle(tmp_path, env, token_file=str(file), token_command="echo flag").bearer() == "of-the-file"


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "tökén"])
def test_a_token_that_is_no_word_is_refused_and_not_repeated(tmp_path: Path, token: str) -> None:
    with pytest.raises(UsageError, match="UPLOADER_TOKEN: must be one word") as caught:
        settle(tmp_path, {"UPLOADER_TOKEN": token})
    assert token not in str(caught.value)


def test_no_secret_is_in_the_representation(tmp_path: Path) -> None:
    settings = settle(
        tmp_path,
        {"UPLOADER_TOKEN": SECRET},
        token_command=f"echo {SECRET}",
        header=[f"Authorization: Bearer {SECRET}"],
        proxy=f"http://me:{SECRET}@proxy:1",
    )
    assert SECRET not in f"{settings!r} {settings} {settings.sources}"
    assert settings.headers == {"Authorization": f"Bearer {SECRET}"}


def test_masking_hides_known_secrets_and_values_of_headers(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a-word-from-a-file")
    environment = {
        "UPLOADER_HEADER": "X-Api-Key: key-of-a-test\nX-Token: key-of-a-test-and-more",
        "UPLOADER_PROXY": "http://Aladdin:open%20sesame@proxy:1",
    }
    settle(tmp_path, environment, token_file=str(file)).bearer()
    text = mask(
        "a-word-from-a-file key-of-a-test http://u:p@h/x Authorization: Basic QQ==\nQWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )
    assert text == "*** *** http://***@h/x Authorization: Basic ***\n***"
    assert mask("key-of-a-test-and-more: open sesame") == "***: ***"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Digest a=1, b=2; c=3", "Authorization: Digest ***"),
        ("{'Authorization': 'Digest a=\"1\", b=\"2\"', 'X': 1}", "{'Authorization': ***, 'X': 1}"),
        ("('cookie', 'a=b; c=d')", "('cookie', ***)"),
        ("Set-Cookie: a=b; Path=/, and more", "Set-Cookie: ***, and more"),
        ("Proxy-Authorization: Basic QQ== was refused", "Proxy-Authorization: Basic *** was refused"),
    ],
)
def test_masking_leaves_the_rest_of_a_sentence(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_masking_hides_the_right_to_write_to_an_upload() -> None:
    for where in ("files", "packs"):
        url = f"https://h/below/api/upload/{where}/"
        assert mask(f"{url}{'0a' * 16}: 404 (no such upload)") == f"{url}***: 404 (no such upload)"
        assert mask(f"{url} and {url}?x") == f"{url} and {url}?x"


def test_masking_hides_an_upload_url_whose_host_is_in_other_letters() -> None:
    settle(Path(), upload_url="https://Files.Of-This-Test/u/0123")
    assert mask("https://files.of-this-test/u/0123: 404") == "https://Files.Of-This-Test/***: 404"


def test_masking_hides_secrets_of_sessions_by_their_form() -> None:
    for _ in range(50):
        assert mask(f"X-Session-Secret: {new_secret()}, and more") == "X-Session-Secret: ***, and more"


@pytest.mark.parametrize(
    "text",
    [
        "Basic training.mp4",
        "reports/Digest 2024.pdf: Bearer bonds.pdf",
        "Cookie, chocolate.mp4",
        "Cookie: chocolate.mp4",
        "authorization=letters.pdf",
        "Send a token: Authorization: Bearer …",
        "send Authorization: Bearer <token>. Or set UPLOADER_TOKEN",
        "Authorization: header is missing",
    ],
)
def test_masking_leaves_names_and_hints_that_only_resemble_headers(text: str) -> None:
    assert mask(text) == text
