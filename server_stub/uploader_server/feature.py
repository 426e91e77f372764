"""What a feature adds to the server, in one value; `features` lists those of this installation.

A feature is a folder in `features/` whose `__init__` has its value `FEATURE`. That is read at every start, and imports
nothing of ours but this module. What it names as `module:name` is in the folder, and is imported when it is used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar

from uploader_server.features import FEATURES

T = TypeVar("T")


class FeatureOption(NamedTuple):
    """An option of the command line, and a field of `ServerConfig`; see `options.option`.

    It precedes the option `before` in the help. `parse` names a function of the folder; a switch has none.
    """

    name: str
    default: Any
    flag: str
    text: str
    before: str
    parse: str = ""


class Part(Protocol):
    """A part of a running server."""

    def routes(self) -> list[Any]: ...


class Feature(NamedTuple):
    """A feature of the server."""

    name: str
    uses: tuple[str, ...] = ()
    """Features that it imports, and is gone without."""
    options: tuple[FeatureOption, ...] = ()
    part: str = ""
    """A class made with each `UploadApp` of the bundled flavour: a `Part`, which adds itself to what it is told."""
    paths: tuple[tuple[str, str], ...] = ()
    """How its paths begin, and the names by which their calls are counted."""
    free: str = ""
    """Its paths that need no token."""
    document: str = ""
    """A module about its calls for `/openapi.json`: `RECORDS` has schemas as in `openapi.schemas`, and `calls` returns
    the calls of a configuration as in `openapi.document`."""

    def load(self, name: str) -> Any:
        """Return what the feature has under a name `module` or `module:name`; the module is imported now."""
        module, _, provided = name.partition(":")
        found = import_module(f"uploader_server.features.{self.name}.{module}")
        return getattr(found, provided) if provided else found


@cache
def features() -> tuple[Feature, ...]:
    """Return the features of this installation, in their order."""
    return tuple(import_module(f"uploader_server.features.{name}").FEATURE for name in FEATURES)


def provided(hook: str) -> dict[str, Any]:
    """Return what each feature names in this field, by its name; without those that name nothing."""
    return {one.name: one.load(getattr(one, hook)) for one in features() if getattr(one, hook)}


def options_of(config: object, own: type[T]) -> T:
    """Return the options of a feature as its own value: a `NamedTuple` with their names."""
    return own(*(getattr(config, name) for name in own.__annotations__))
