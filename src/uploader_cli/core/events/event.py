"""The base class of events, and the types of their fields."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast

from msgspec import Meta, defstruct, to_builtins
from msgspec.structs import astuple, replace

from uploader_cli.core.record import Record
from uploader_cli.feature import fields_of

T = TypeVar("T")
E = TypeVar("E", bound="Event")
Internal = Annotated[T, "internal"]
"""A field for the state, with a default: it is neither compared nor in the event stream."""
FileNumber = Annotated[int, Meta(ge=0, description="Number of the file, stable in the run")]
Count = Annotated[int, Meta(ge=0)]
Ordinal = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Milliseconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, description="Per second")]
Percent = Annotated[float, Meta(ge=0, le=100)]
Measured = Annotated[float, Meta(ge=0)]


class Event(Record, frozen=True, omit_defaults=True):
    """The base class. A public event is tagged with its type in the stream, which omits fields with their default."""

    type: ClassVar[str] = ""
    ends: ClassVar[bool] = False
    """Whether it is the last line of the stream."""
    texts: ClassVar[tuple[str, ...]] = ()
    """The fields that may quote the server: they are shown without secrets."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and astuple(self.public) == astuple(other.public)

    def __hash__(self) -> int:
        return hash(astuple(self.public))

    @property
    def public(self) -> Self:
        """The event as it is encoded for the stream: internal fields have their defaults."""
        internal = internal_fields(type(self))
        return replace(self, **internal) if internal else self


def public_among(values: Iterable[object]) -> tuple[type[Event], ...]:
    """Return the classes of public events among some values, each with its `type`."""
    found = tuple(
        kind for kind in values if isinstance(kind, type) and issubclass(kind, Event) and kind.__struct_config__.tag
    )
    for kind in found:
        kind.type = str(kind.__struct_config__.tag)
    return found


def with_features(kind: type[E]) -> type[E]:
    """Return an event with the fields that features add to it, after its own."""
    fields = fields_of(kind.__name__)
    if not fields:
        return kind
    named = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    return cast("type[E]", defstruct(kind.__name__, fields, bases=(kind,), namespace=named, frozen=True, kw_only=True))


if TYPE_CHECKING:
    from uploader_cli.features.typed import Added

    class Extended(Event, Added, frozen=True):
        """An event with fields of features."""
else:
    Extended = Event  # see `with_features`


@cache
def internal_fields(kind: type[Event]) -> dict[str, Any]:
    """Return the internal fields of an event with their defaults."""
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    last = zip(names[len(names) - len(defaults) :], defaults, strict=True)
    written = {name: text for base in kind.__mro__ for name, text in getattr(base, "__annotations__", {}).items()}
    return {name: default for name, default in last if str(written[name]).startswith("Internal[")}


def as_fields(event: Event) -> dict[str, Any]:
    """Return the fields of a public event or a `CallMade` by their names in the stream, as JSON values.

    Optional fields that are None are omitted.
    """
    fields: dict[str, Any] = to_builtins(event.public)
    fields.pop("type", None)
    return fields
