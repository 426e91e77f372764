"""How an option is declared, and the sources that may set it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from uploader_cli.settings import values

VARIABLES_BEGIN = "UPLOADER_"
"""The beginning of each environment variable."""
T = TypeVar("T")
Configs = Literal["any", "user", "none"]
"""The config files that may set an option: also that of a working directory, which may be from somebody else; only the
user's; or none."""


class Layer(StrEnum):
    """The kinds of source, highest precedence first."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    DIRECTORY_PROFILE = "profile of the working directory"
    USER_PROFILE = "profile"
    WORKING_DIRECTORY = "working directory"
    USER_CONFIG = "user config"
    NAMED = "named defaults"
    DEFAULT = "default"

    @property
    def rank(self) -> int:
        """0 for the highest precedence."""
        return list(Layer).index(self)

    @property
    def untrusted(self) -> bool:
        """True for the working directory, whose config may be from somebody else."""
        return self in (Layer.WORKING_DIRECTORY, Layer.DIRECTORY_PROFILE)


class Source(NamedTuple):
    """The source of a `value`. `name` is for users: `--retries`, `UPLOADER_RETRIES`, or file and key.

    `option` is the one that has named these defaults; empty in other layers.
    """

    layer: Layer
    name: str
    value: object = None
    option: str = ""

    @property
    def kind(self) -> str:
        """The kind of source for users."""
        return self.option or self.layer.value

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Source({self.name})"  # the value may be a secret


DEFAULT = Source(Layer.DEFAULT, "default")


class Option(NamedTuple):
    """One setting.

    `commands` take it on the command line, in the `section` of their help; `metavar` is empty for a switch or a
    counter. `names` are its allowed values, where these are names. It is `stored` where it defines a run, to resume it.
    A `secret` value is never shown. `resolve` gives a parsed value, with the environment, the one that a run has.
    """

    name: str
    default: Any
    parse: Callable[[object], Any]
    names: tuple[str, ...]
    section: str
    commands: tuple[str, ...]
    short: str
    metavar: str
    help: str
    config: Configs
    stored: bool
    must_exist: Literal["", "file", "file or directory"]
    secret: bool
    resolve: Callable[[Any, Mapping[str, str]], Any] | None

    @property
    def flag(self) -> str:
        """The flag on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return VARIABLES_BEGIN + self.name.upper()

    @property
    def many(self) -> bool:
        """True where it may be repeated."""
        return isinstance(self.default, tuple)

    def ways(self, user_config: Path | None = None) -> str:
        """Return the ways to set the option, for a hint."""
        ways = [self.flag] if self.commands else ["--token-file", "--token-command"] * (self.name == "token")
        file = f" or {user_config}" if user_config and self.config != "none" else ""
        return ", ".join([*ways, self.variable]) + file

    @classmethod
    def of(cls, spec: Field[Any]) -> Option:
        """Return the option that `Group` has declared as a field."""
        how = dict(spec.metadata)
        names = get_args(spec.type) if get_origin(spec.type) is Literal else ()
        parse = how.pop("parse") or (values.one_of(*names) if names else values.switch)
        head, _, text = how.pop("text").rpartition("  ")
        words = head.split()
        short = words.pop(0) if head.startswith("-") else ""
        how |= {"commands": tuple(how["commands"].split()), "short": short, "metavar": " ".join(words), "help": text}
        return cls(spec.name, spec.default, parse, names, **how)


class Group(NamedTuple):
    """Options of one section of the help that have much in common; a call declares one, as a field of `Settings`."""

    section: str
    commands: str
    config: Configs = "any"
    stored: bool = False

    def __call__(
        self,
        default: T,
        text: str,
        parse: Callable[[object], Any] | None = None,
        *,
        must_exist: Literal["", "file", "file or directory"] = "",
        secret: bool = False,
        resolve: Callable[[Any, Mapping[str, str]], Any] | None = None,
        **others: Any,
    ) -> T:
        """Declare an option; `others` differ from the group.

        `text` is its line in the help: short form and metavar, if any, two spaces, and the sentence. A boolean or a
        `Literal` needs no parser.
        """
        how = {"text": text, "parse": parse, "must_exist": must_exist, "secret": secret, "resolve": resolve}
        return field(default=default, repr=not secret, metadata={**self._asdict(), **how, **others})
