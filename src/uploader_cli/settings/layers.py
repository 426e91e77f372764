"""Where a setting can come from: flags, the environment, two config files and their profiles.

Each becomes one mapping by option name.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from uploader_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from uploader_cli.settings.model import Option


def user_config_file() -> Path:
    """The user's own config file, whether it exists or not."""
    import platformdirs

    return platformdirs.user_config_path("uploader") / "config.toml"


class Layer(StrEnum):
    """The kinds of source, the strongest first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    DIRECTORY_PROFILE = "profile of the working directory"
    USER_PROFILE = "profile"
    WORKING_DIRECTORY = "working directory"
    USER_CONFIG = "user config"
    DEFAULT = "default"

    @property
    def may_be_a_stranger(self) -> bool:
        """True for what the working directory says: somebody else may have written it."""
        return self in (Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE)


@dataclass(frozen=True, slots=True)
class Source:
    """Where one value came from. `name` is how a person finds it: `--retries`, `UPLOADER_RETRIES`, file and key."""

    layer: Layer
    name: str

    def __str__(self) -> str:
        return self.name


class Given(NamedTuple):
    """A value as it was written; relative paths in it start at `base`."""

    raw: Any
    source: Source
    base: Path


class Config(NamedTuple):
    """What one config file says: for all runs, and in its profiles by their names."""

    base: dict[str, Given]
    profiles: dict[str, dict[str, Given]]


DEFAULT = Source(Layer.DEFAULT, "default")
PROFILES = "profile"
"""The table of a config file that holds the profiles."""


def from_flags(flags: Mapping[str, object | None], options: Mapping[str, Option], cwd: Path) -> dict[str, Given]:
    """What the command line gave; None and an empty list stand for a flag that was not used."""
    return {
        name: Given(raw, Source(Layer.FLAG, options[name].flag), cwd)
        for name, raw in flags.items()
        if raw is not None and raw != []
    }


def from_environment(env: Mapping[str, str], options: Mapping[str, Option], cwd: Path) -> dict[str, Given]:
    """`UPLOADER_<OPTION>`; an empty variable counts as unset, a list has one item a line."""
    found = {}
    for name, option in options.items():
        raw: object = env.get(option.variable, "")
        if option.many:
            raw = [line for line in str(raw).splitlines() if line.strip()]
        if raw:
            found[name] = Given(raw, Source(Layer.ENVIRONMENT, option.variable), cwd)
    return found


def from_working_directory(
    cwd: Path, options: Mapping[str, Option], user_config: Path | None
) -> tuple[Config, tuple[str, ...]]:
    """`uploader.toml`, else `[tool.uploader]` of `pyproject.toml`, of this directory alone; with what to tell the user.

    The directory may be a stranger's, so it may set only what can't send a secret away (a token, or what a link of
    its points to), run something or write a file.
    """
    own, shared = cwd / "uploader.toml", cwd / "pyproject.toml"
    tool = _read(shared).get("tool", {})
    section = tool.get("uploader") if isinstance(tool, dict) else None
    notes: tuple[str, ...] = ()
    file, table = shared, section
    if own.is_file():
        if section is not None:
            notes = (f"[tool.uploader] in {shared} is ignored: {own} wins",)
        file, table = own, _read(own)
    if table is None:
        return Config({}, {}), notes
    found = _config(table, file, Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE, options)
    for stratum in (found.base, *found.profiles.values()):
        for name, given in stratum.items():
            if not options[name].stranger:
                raise UsageError(
                    f"{given.source}: a working directory may be a stranger's, so its config may not set this",
                    hint=f"use {options[name].ways(user_config)}",
                )
    return found, notes


def from_user_config(file: Path | None, options: Mapping[str, Option]) -> Config:
    """The user's own config file, if there is one."""
    return _config(_read(file), file, Layer.USER_CONFIG, Layer.USER_PROFILE, options) if file else Config({}, {})


def _config(table: object, file: Path, base: Layer, profile: Layer, options: Mapping[str, Option]) -> Config:
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.uploader] must be a table")
    profiles = table.get(PROFILES, {})
    if not isinstance(profiles, dict) or not all(isinstance(inner, dict) for inner in profiles.values()):
        raise UsageError(f"{file}: {PROFILES}: each profile is a table", hint=f"write [{PROFILES}.NAME]")
    own = {key: raw for key, raw in table.items() if key != PROFILES}
    return Config(
        _from_table(own, file, base, options),
        {name: _from_table(inner, file, profile, options, f"{PROFILES}.{name}.") for name, inner in profiles.items()},
    )


def _from_table(
    table: Mapping[str, Any], file: Path, layer: Layer, options: Mapping[str, Option], prefix: str = ""
) -> dict[str, Given]:
    found = {}
    for key, raw in table.items():
        name, source = key.replace("-", "_"), Source(layer, f"{file}: {prefix}{key}")
        if name not in options or name == PROFILES:
            near = difflib.get_close_matches(name, [*options.keys() - {PROFILES}], n=1, cutoff=0)[0]
            raise UsageError(f"{source}: there is no such setting", hint=f"the nearest is {near}")
        if not options[name].in_config:
            raise UsageError(
                f"{source}: a secret is not written into a config file", hint=f"use {options[name].ways()}"
            )
        if options[name].many and not isinstance(raw, list):
            raise UsageError(f"{source}: must be a list", hint=f'write {key} = ["…"]')
        found[name] = Given(raw, source, file.parent)
    return found


def _read(file: Path) -> dict[str, Any]:
    """The file's tables; none where there is no such file."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{file}: can't be read ({error.strerror})") from None
    import tomllib  # most directories have no config: --version and --help don't pay for it

    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line, problem = content.count(b"\n", 0, error.start) + 1, "not UTF-8"
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line, problem = int(at[1]) if at else content.count(b"\n") + 1, str(error)
    except (RecursionError, ValueError):  # tomllib does not say where
        line, problem = 1, "it is nested too deeply, or a number in it is too long"
    raise UsageError(f"{file}, line {line}: not valid TOML: {problem}", hint="correct the file or move it away")
