"""The wall around features: the core knows none of their names, and they are declared in a readable order."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from uploader_cli.core.codes import WarningCode
from uploader_cli.feature import Feature, features
from uploader_cli.settings import OPTIONS

CLIENT = Path(__file__).parent.parent / "src" / "uploader_cli"
EXEMPT = (CLIENT / "settings" / "keywords.py", CLIENT / "__init__.py")
"""The public names of the library, which stay: they have types."""
CORE = [path for path in CLIENT.rglob("*.py") if CLIENT / "features" not in path.parents and path not in EXEMPT]


def declared(feature: Feature) -> set[str]:
    """Return the names that a feature declares; of a code its member, unless a warning has the same."""
    fields = feature.load(feature.fields) if feature.fields else {}
    hooks = [step for _, step in feature.steps] + [place for _, place in feature.exports]
    return {
        *(option.name for option in feature.options),
        *(name for added in fields.values() for name, *_ in added),
        *(hook.partition(":")[2] for hook in hooks),
        *({code.name.upper() for code in feature.codes} - set(WarningCode.__members__)),
        *([feature.directory] if feature.directory else []),
    }


def names(path: Path) -> Iterator[str]:
    """Yield the identifiers, attributes and strings of a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "asname", "value"):
            if isinstance(name := getattr(node, field, None), str):
                yield name


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_core_has_no_name_of_a_feature(feature: Feature) -> None:
    own, flags = declared(feature), [OPTIONS[option.name].flag for option in feature.options]
    assert own
    for path in CORE:
        assert own.isdisjoint(names(path)), (path, own.intersection(names(path)))
        text = path.read_text(encoding="utf-8")
        assert not [flag for flag in flags if flag in text], path


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_what_a_feature_names_can_be_loaded(feature: Feature) -> None:
    hooks = [value for value in feature if isinstance(value, str) and ":" in value]
    hooks += [place for _, place in (*feature.steps, *feature.exports)]
    hooks += [option.parse for option in feature.options if option.parse]
    hooks += [feature.words] if feature.words else []
    assert all(feature.load(hook) for hook in hooks)
