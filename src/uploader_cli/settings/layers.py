"""The sources of settings: flags, the environment, two config files and their profiles.

Each source becomes one mapping by option name.
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
    """Return the path of the user's config file, which may not exist."""
    import platformdirs

    return platformdirs.user_config_path("uploader") / "config.toml"


class Layer(StrEnum):
    """The kinds of source, highest precedence first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    DIRECTORY_PROFILE = "profile of the working directory"
    USER_PROFILE = "profile"
    WORKING_DIRECTORY = "working directory"
    USER_CONFIG = "user config"
    DEFAULT = "default"

    @property
    def untrusted(self) -> bool:
        """True for the working directory, whose config may be from somebody else."""
        return self in (Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE)


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one value. `name` is for users: `--retries`, `UPLOADER_RETRIES`, or file and key."""

    layer: Layer
    name: str

    def __str__(self) -> str:
        return self.name


class Given(NamedTuple):
    """A raw value; relative paths in it start at `base`."""

    raw: Any
    source: Source
    base: Path


class Config(NamedTuple):
    """The settings of one config file, and of its profiles by name."""

    base: dict[str, Given]
    profiles: dict[str, dict[str, Given]]


DEFAULT = Source(Layer.DEFAULT, "default")
PROFILES = "profile"
"""The table of a config file that holds the profiles."""


def from_flags(flags: Mapping[str, object | None], options: Mapping[str, Option], cwd: Path) -> dict[str, Given]:
    """Return the flags that were used; None and an empty list mark unused flags."""
    return {
        name: Given(raw, Source(Layer.FLAG, options[name].flag), cwd)
        for name, raw in flags.items()
        if raw is not None and raw != []
    }


def from_environment(env: Mapping[str, str], options: Mapping[str, Option], cwd: Path) -> dict[str, Given]:
    """Read `UPLOADER_<OPTION>`; an empty variable counts as unset, a list has one item per line."""
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
    """Read `uploader.toml`, else `[tool.uploader]` of `pyproject.toml`, in `cwd` only; also return notes for the user.

    The directory may belong to somebody else, so it may not set options that send a secret or a linked file elsewhere,
    run a command or write a file.
    """
    own, shared = cwd / "uploader.toml", cwd / "pyproject.toml"
    tool = _read(shared).get("tool", {})
    section = tool.get("uploader") if isinstance(tool, dict) else None
    notes: tuple[str, ...] = ()
    file, table = shared, section
    if own.is_file():
        if section is not None:
            notes = (f"[tool.uploader] in {shared} is ignored because {own} exists",)
        file, table = own, _read(own)
    if table is None:
        return Config({}, {}), notes
    found = _config(table, file, Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE, options)
    for stratum in (found.base, *found.profiles.values()):
        for name, given in stratum.items():
            if not options[name].stranger:
                raise UsageError(
                    f"{given.source}: not allowed in the config of a working directory, which may be untrusted",
                    hint=f"use {options[name].ways(user_config)}",
                )
    return found, notes


def from_user_config(file: Path | None, options: Mapping[str, Option]) -> Config:
    """Read the user's config file, if it exists."""
    return _config(_read(file), file, Layer.USER_CONFIG, Layer.USER_PROFILE, options) if file else Config({}, {})


def _config(table: object, file: Path, base: Layer, profile: Layer, options: Mapping[str, Option]) -> Config:
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.uploader] must be a table")
    profiles = table.get(PROFILES, {})
    if not isinstance(profiles, dict) or not all(isinstance(inner, dict) for inner in profiles.values()):
        raise UsageError(f"{file}: {PROFILES}: each profile must be a table", hint=f"write [{PROFILES}.NAME]")
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
            raise UsageError(f"{source}: unknown setting", hint=f"did you mean {near}?")
        if not options[name].in_config:
            raise UsageError(f"{source}: secrets are not allowed in config files", hint=f"use {options[name].ways()}")
        if options[name].many and not isinstance(raw, list):
            raise UsageError(f"{source}: must be a list", hint=f'write {key} = ["…"]')
        found[name] = Given(raw, source, file.parent)
    return found


def _read(file: Path) -> dict[str, Any]:
    """Parse the file; an empty dictionary if it does not exist."""
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{file}: can't be read ({error.strerror})") from None
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
