"""The config files: of the working directory and of the user, each with profiles."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from uploader_cli.errors import UsageError
from uploader_cli.feature import features
from uploader_cli.settings.model import OPTIONS, Settings
from uploader_cli.settings.option import Layer, Source
from uploader_cli.settings.spelling import guess, lacking

PROFILES = "profile"  # the table of a config file that holds the profiles
_HEAD = """\
# The settings of `uploader`. Commented lines show the default, or an example where there is none.
# Flags and the environment override this file, and so does an uploader.toml in the working directory, for the settings
# it may contain. `uploader config` shows the effective settings and their sources.
"""
_FOOT = """
# A profile is selected with --profile NAME or UPLOADER_PROFILE and overrides the settings above:
# [profile.staging]
# server = "staging.example"
"""


USER = (Layer.USER_CONFIG, Layer.USER_PROFILE)
OF_DIRECTORY = (Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE)


class Given(NamedTuple):
    """A raw value; relative paths in it start at `base`."""

    raw: Any
    source: Source
    base: Path


Table: TypeAlias = Mapping[str, Given]
Tables: TypeAlias = Mapping[str, Table]


class Config(NamedTuple):
    """The settings of one config file, of its profiles by name, and of defaults by the option and the name."""

    base: Mapping[str, Given] = {}
    profiles: Mapping[str, Table] = {}
    named: Mapping[str, Tables] = {}


class Defaults(NamedTuple):
    """Values of options that are weaker than all other sources, as the value of an option names them.

    `endpoint` is how their tus server is given; `check` raises `UsageError` for settings that do not fit them.
    """

    table: Mapping[str, Given] = {}
    endpoint: str = "--tus-endpoint"
    check: Callable[[Settings], None] | None = None


def config_template() -> str:
    """Return a config file with all settings commented out."""
    parts = [_HEAD]
    for name, option in OPTIONS.items():
        if option.config != "none":
            example = option.metavar
            value = [example] if option.many else example if option.default in (None, "") else option.default
            parts.append(f"\n# {option.help}\n# {name} = {json.dumps(value)}\n")
    return "".join([*parts, _FOOT])


def of_user(file: Path | None) -> Config:
    """Read the user's config file, if it exists. Raises `UsageError`."""
    return _config(_read(file), file, USER) if file else Config()


def of_directory(cwd: Path, user_config: Path | None) -> tuple[Config, tuple[str, ...]]:
    """Read `uploader.toml`, else `[tool.uploader]` of `pyproject.toml`, in `cwd` only; also return notes for the user.

    The directory may belong to somebody else, so it may not set options that send a secret or a linked file elsewhere,
    run a command or write a file. Raises `UsageError`.
    """
    own, shared = cwd / "uploader.toml", cwd / "pyproject.toml"
    tool = _read(shared).get("tool", {})
    section = tool.get("uploader") if isinstance(tool, dict) else None
    notes: tuple[str, ...] = ()
    file, table = shared, section
    if os.path.isfile(own):
        if section is not None:
            notes = (f"[tool.uploader] in {shared} is ignored because {own} exists",)
        file, table = own, _read(own)
    if table is None:
        return Config(), notes
    found = _config(table, file, OF_DIRECTORY)
    for kind, tables in found.named.items():
        if tables:
            raise UsageError(
                f"{file}: {kind}: not allowed in the config of a working directory, which may be untrusted",
                hint=f"write [{kind}.NAME] into {user_config or 'your own config file'}",
            )
    for settings in (found.base, *found.profiles.values()):
        for name, given in settings.items():
            if OPTIONS[name].config != "any":
                raise UsageError(
                    f"{given.source}: not allowed in the config of a working directory, which may be untrusted",
                    hint=f"use {OPTIONS[name].ways(user_config)}",
                )
    return found, notes


def _config(table: object, file: Path, layers: tuple[Layer, Layer]) -> Config:
    """Parse a config file; `layers` are those of its settings and profiles."""
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.uploader] must be a table")
    own, named = dict(table), dict[str, Tables]()
    for kind in (PROFILES, *(feature.options[0].name for feature in features() if feature.defaults)):
        tables = own.pop(kind, {}) if kind == PROFILES or isinstance(own.get(kind), dict) else {}
        if not isinstance(tables, dict) or not all(isinstance(inner, dict) for inner in tables.values()):
            raise UsageError(f"{file}: {kind}: each {kind} must be a table", hint=f"write [{kind}.NAME]")
        of = Source(layers[1], "") if kind == PROFILES else Source(Layer.NAMED, "", option=kind)
        named[kind] = {name: _settings(inner, file, of, f"{kind}.{name}.") for name, inner in tables.items()}
    return Config(_settings(own, file, Source(layers[0], "")), named.pop(PROFILES), named)


def _settings(table: Mapping[str, Any], file: Path, of: Source, prefix: str = "") -> Table:
    """Parse settings; `of` is their source without its name."""
    found, spelled = dict[str, Given](), dict[str, str]()
    for key, raw in table.items():
        name, source = key.replace("-", "_"), of._replace(name=f"{file}: {prefix}{key}")
        if name not in OPTIONS or name == PROFILES:
            hint = lacking(name) or guess(name, OPTIONS.keys() - {PROFILES}, "uploader config lists the settings")
            raise UsageError(f"{source}: unknown setting", hint=hint)
        if OPTIONS[name].config == "none":
            why = "secrets are" if OPTIONS[name].secret else "it is of one run, and"
            raise UsageError(f"{source}: {why} not allowed in config files", hint=f"use {OPTIONS[name].ways()}")
        if OPTIONS[name].many and not isinstance(raw, list):
            raise UsageError(f"{source}: must be a list", hint=f'write {key} = ["…"]')
        if name in found:
            raise UsageError(f"{source}: the file sets it twice, also as {spelled[name]}", hint="keep one of them")
        found[name], spelled[name] = Given(raw, source, file.parent), key
    return found


def _read(file: Path) -> dict[str, Any]:
    """Parse the file; an empty dictionary if it does not exist, or is in a directory of somebody else."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        if isinstance(error, PermissionError) and not os.access(file.parent, os.X_OK):
            return {}
        raise UsageError(f"{file}: can't be read ({error.strerror})", hint="make it readable, or delete it") from None
    import tomllib  # deferred: most directories have no config

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line, problem = content.count(b"\n", 0, error.start) + 1, "not UTF-8"
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line, problem = int(at[1]) if at else content.count(b"\n") + 1, str(error)
    except (RecursionError, ValueError):  # tomllib does not say where
        line, problem = 1, "it is nested too deeply, or a number in it is too long"
    raise UsageError(f"{file}, line {line}: not valid TOML: {problem}", hint="fix the file or move it away")
