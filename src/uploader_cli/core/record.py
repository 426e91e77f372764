"""The base class of frozen values: as a frozen dataclass, but defined and created in a fraction of the time."""

from __future__ import annotations

from dataclasses import Field, fields, make_dataclass
from functools import cache
from typing import Any, ClassVar

from msgspec import Struct


@cache
def _fields(kind: type[Record]) -> dict[str, Field[Any]]:
    return {field.name: field for field in fields(make_dataclass(kind.__name__, kind.__struct_fields__))}


class _Fields:
    """What the functions of `dataclasses` look for, made when it is needed."""

    def __get__(self, _record: Record | None, kind: type[Record]) -> dict[str, Field[Any]]:
        return _fields(kind)


class Record(Struct, frozen=True):
    """A frozen value. The functions of `dataclasses` accept it; those of `msgspec.structs` are faster."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]] = _Fields()  # type: ignore[assignment]
