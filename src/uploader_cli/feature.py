"""What a feature adds to the core, in one value; `features` lists those of this installation.

A feature is a folder in `features/` whose `__init__` has its value `FEATURE`. That is read at every start, and imports
nothing but this module. What it names as `module:name` is in the folder, and is imported when it is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

from uploader_cli.features import FEATURES

T = TypeVar("T")
Place: TypeAlias = Literal["stored", "last"]
"""Where a step stands among the stages of a file: after the comparison of what is stored, or before its end."""


class FeatureOption(NamedTuple):
    """An option, with a line in the help as in `settings.model`; `before` is the option that it precedes there.

    `parse` names the parser of its value; a switch has none.
    """

    name: str
    default: Any
    text: str
    section: str
    commands: str
    before: str
    parse: str = ""
    config: Literal["any", "user", "none"] = "any"
    stored: bool = False


class Feature(NamedTuple):
    """A feature, of which the first one of the `options` turns it on; without options it is always on.

    `consumes`: with it a local file is compared with what the server has, and may be gone after that. Such a run finds
    the files that it has stored missing, which is no error.
    """

    name: str
    options: tuple[FeatureOption, ...] = ()
    consumes: bool = False
    checks_selection: str = ""
    """Function of the settings, the PATHs, the list or None, and the filter of its names; it raises `UsageError`."""
    steps: tuple[tuple[Place, str], ...] = ()
    """Each is a `Stage`, made with the context of the run."""
    plans: str = ""
    """Function of the settings and a file; it returns fields of events in a plan: what would become of the file."""

    def load(self, name: str) -> Any:
        """Return what the feature has under a name `module:name`; the module is imported now."""
        module, _, provided = name.partition(":")
        return getattr(import_module(f"uploader_cli.features.{self.name}.{module}"), provided)

    def is_on(self, settings: object) -> bool:
        """Return whether these settings turn the feature on."""
        return not self.options or getattr(settings, self.options[0].name) != self.options[0].default


@cache
def features() -> tuple[Feature, ...]:
    """Return the features of this installation, in their order."""
    return tuple(import_module(f"uploader_cli.features.{name}").FEATURE for name in FEATURES)


def used(settings: object) -> list[Feature]:
    """Return the features that these settings turn on."""
    return [feature for feature in features() if feature.is_on(settings)]


def options_of(settings: object, own: type[T]) -> T:
    """Return the options of a feature as its own value: a `NamedTuple` with their names."""
    return own(*(getattr(settings, name) for name in own.__annotations__))
