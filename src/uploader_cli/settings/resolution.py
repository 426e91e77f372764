"""From the world to `Settings`: flag > environment > config of the working directory > user config > default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uploader_cli.errors import UsageError
from uploader_cli.settings import layers
from uploader_cli.settings.layers import DEFAULT, Given, Layer, Source
from uploader_cli.settings.model import OPTIONS, Option, Settings
from uploader_cli.settings.values import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping


def resolve(
    flags: Mapping[str, object | None],
    *,
    env: Mapping[str, str],
    cwd: Path,
    user_config: Path | None,
    need_server: bool = True,
) -> Settings:
    """The settings for one command; `flags` by option name, None for one that was not used.

    A dry run needs no server. Raises `UsageError` that names the flag, variable or file and key, and the fix.
    """
    here, notes = layers.from_working_directory(cwd, OPTIONS, user_config)
    own = layers.from_user_config(user_config, OPTIONS)
    strata = (layers.from_flags(flags, OPTIONS, cwd), layers.from_environment(env, OPTIONS, cwd), here, own)
    found: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name, option in OPTIONS.items():
        given = next((stratum[name] for stratum in strata if name in stratum), None)
        sources[name] = given.source if given else DEFAULT
        if given:
            found[name] = _value(option, given)
    settings = Settings(**found, sources=sources, notes=notes)
    _check(settings, need_server=need_server, user_config=user_config)
    return _withhold(settings, own)


def _value(option: Option, given: Given) -> Any:
    try:
        if option.many:
            return tuple(option.parse(item) for item in given.raw)
        value = option.parse(given.raw)
    except Invalid as error:
        raise UsageError(f"{given.source}: {error}", hint=error.hint) from None
    if isinstance(value, Path):
        value = given.base / value
        if option.must_exist and not value.exists():
            raise UsageError(f"{given.source}: there is no file {value}")
    return value


def _check(settings: Settings, *, need_server: bool, user_config: Path | None) -> None:
    if not settings.server and need_server and not settings.dry_run:
        file = f"uploader.toml here{f', or {user_config}' if user_config else ''}"
        raise UsageError(
            "no server was named",
            hint=f'give --server URL, set UPLOADER_SERVER, or write server = "URL" into a config file ({file}). '
            "Without a server at hand: uploader demo",
        )
    loud, silent = settings.sources["verbose"], settings.sources["quiet"]
    if settings.quiet and settings.verbose and loud.layer is silent.layer is Layer.FLAG:
        raise UsageError("--quiet and --verbose exclude each other", hint="leave one of them out")


def _withhold(settings: Settings, own: Mapping[str, Given]) -> Settings:
    """Keep secrets from a server that only a working directory, which may be a stranger's, has named."""
    if settings.sources["server"].layer is not Layer.WORKING_DIRECTORY:
        return settings
    if "server" in own and _value(OPTIONS["server"], own["server"]) == settings.server:
        return settings  # the user's own config trusts it too
    has_token = settings.token or settings.token_file or settings.token_command
    harmless = tuple(header for header in settings.header if not header.secret)
    if has_token or harmless != settings.header:
        return replace(settings, header=harmless, token_withheld=True)
    return settings
