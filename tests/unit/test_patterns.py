"""No regular expression needs more than linear time for what others send: texts made against each are read quickly."""

from __future__ import annotations

import ast
import contextlib
import gc
import importlib
import importlib.util
import itertools
import pkgutil
import re
import time
from pathlib import Path
from types import BuiltinMethodType, ModuleType
from typing import TYPE_CHECKING, Any

import pytest

import uploader_cli
import uploader_server
from uploader_server.http.errors import ApiError
from uploader_server.tus.headers import parse_concat, parse_metadata
from uploader_server.tus.ietf import file_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

kinds: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")
USES = {"match", "fullmatch", "search", "sub", "finditer", "findall", "split"}
SHORT, LONG = 2048, 8192  # characters
TIMES = 16  # how much longer than SHORT the text is whose time is compared
QUICK = 0.003  # seconds that a linear search of LONG characters does not need, on a slow machine
OWN_INPUT = {"uploader_cli.cli.app"}  # modules whose patterns see only our own texts


def used_patterns(module: ModuleType) -> Iterator[tuple[re.Pattern[Any], str]]:
    """The patterns of a module, and how each is used."""
    calls = list(ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))))
    uses: dict[str, set[str]] = {}
    for node in calls:
        if isinstance(node, ast.Attribute) and node.attr in USES and isinstance(node.value, ast.Name | ast.Attribute):
            name = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            uses.setdefault(name, set()).add(node.attr)
        match node:
            case ast.Call(ast.Attribute(ast.Name("re"), use), [ast.Constant(str(pattern)), _, *_]) if use in USES:
                yield re.compile(pattern), use
    for name, value in vars(module).items():
        if isinstance(value, re.Pattern):
            yield from ((value, use) for use in uses.get(name, ()))
        elif isinstance(value, BuiltinMethodType) and isinstance(value.__self__, re.Pattern):
            yield value.__self__, value.__name__
        elif isinstance(value, tuple) and value and isinstance(value[0], tuple) and value[0]:
            yield from ((one[0], "sub") for one in value if isinstance(one[0], re.Pattern))


def parts_of(tokens: Any) -> Iterator[list[list[str]]]:
    """The sequences of a parsed pattern, at any depth: for each of its items some texts that it matches."""
    yield [samples(kind, value) for kind, value in tokens]
    for kind, value in tokens:
        if kind in REPEATS:
            yield from parts_of(value[2])
        elif kind is kinds.SUBPATTERN:
            yield from parts_of(value[3])
        elif kind is kinds.BRANCH:
            for branch in value[1]:
                yield from parts_of(branch)


REPEATS = (kinds.MAX_REPEAT, kinds.MIN_REPEAT, kinds.POSSESSIVE_REPEAT)
CATEGORIES = {kinds.CATEGORY_DIGIT: "1", kinds.CATEGORY_SPACE: " ", kinds.CATEGORY_WORD: "a"}


def samples(kind: Any, value: Any) -> list[str]:
    """Some texts that an item of a parsed pattern matches."""
    if kind is kinds.LITERAL:
        return [chr(value)]
    if kind in {kinds.NOT_LITERAL, kinds.ANY}:
        return ["a" if value != ord("a") else "b"]
    if kind is kinds.IN:
        listed = [chr(at) for one, at in value if one is kinds.LITERAL]
        listed += [chr(end) for one, ends in value if one is kinds.RANGE for end in ends]
        listed += [CATEGORIES.get(at, "-") for one, at in value if one is kinds.CATEGORY]
        if value[0][0] is kinds.NEGATE:
            return [one for one in "a; \"':,=" if one not in listed][:4]
        return list(dict.fromkeys(listed))[:3]
    if kind in REPEATS:
        return [one * max(value[0], 1) for one in whole(value[2])]
    if kind is kinds.SUBPATTERN:
        return whole(value[3])
    if kind is kinds.BRANCH:
        return [one for branch in value[1] for one in whole(branch)][:6]
    return [""]


def whole(tokens: Any) -> list[str]:
    items = [samples(kind, value) or [""] for kind, value in tokens]
    first = [item[0] for item in items]
    others = [[*first[:at], other, *first[at + 1 :]] for at, item in enumerate(items) for other in item[1:]]
    return ["".join(one) for one in (first, *others)][:6]


def attacks(pattern: re.Pattern[Any]) -> Iterator[tuple[str, str]]:
    """Beginnings, and what is repeated after them."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    begins, repeated = {""}, set(' 1a/:;"\\')
    for items in parts_of(parser.parse(text, pattern.flags & (re.IGNORECASE | re.DOTALL))):
        joined: list[list[str]] = []
        for item in filter(any, items):
            if len(item) == 1 and joined and len(joined[-1]) == 1:
                joined[-1] = [joined[-1][0] + item[0]]
            else:
                joined.append(item)
        begins.update("".join(item[0] for item in joined[: at + 1])[:60] for at in range(len(joined)))
        for start, end in itertools.combinations(range(len(joined) + 1), 2):
            some = joined[start:end]
            repeated.update("".join(item[min(at, len(item) - 1)] for item in some) for at in range(max(map(len, some))))
    return itertools.product(begins, repeated - {""})


def seconds(call: Callable[[], object]) -> float:
    gc.disable()  # a collection looks at the objects of all tests before
    try:
        began = time.thread_time()
        call()
        return time.thread_time() - began
    finally:
        gc.enable()


def is_linear(read: Callable[[int], Callable[[], object]]) -> bool:
    """Say whether 16 times as many characters need about 16 times as long (quadratic time: 256 times).

    The limit is between the two, far from both: a busy machine can make one measurement several times too long.
    """
    if min(seconds(read(LONG)) for _ in range(2)) < QUICK:
        return True
    short, long = (min(seconds(read(size)) for _ in range(3)) for size in (SHORT, TIMES * SHORT))
    return long < 4 * TIMES * short


def modules() -> list[str]:
    packages = (uploader_cli, uploader_server)
    names = [found.name for one in packages for found in pkgutil.walk_packages(one.__path__, f"{one.__name__}.")]
    paths = {name: importlib.util.find_spec(name) for name in names}
    with_patterns = [
        name for name, spec in paths.items() if spec and spec.origin and "import re\n" in read(spec.origin)
    ]
    return [name for name in with_patterns if name not in OWN_INPUT]


def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def reader(pattern: re.Pattern[Any], use: str, begin: str, repeated: str) -> Callable[[int], Callable[[], object]]:
    search = getattr(pattern, use)

    def reading(size: int) -> Callable[[], object]:
        text: Any = begin + repeated * (size // len(repeated)) + "\0"
        text = text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")
        given = (text[:0], text) if use == "sub" else (text,)
        return lambda: list(search(*given)) if use == "finditer" else search(*given)

    return reading


@pytest.mark.parametrize("module", modules())
def test_pattern_reads_any_text_in_linear_time(module: str) -> None:
    for pattern, use in used_patterns(importlib.import_module(module)):
        for begin, repeated in attacks(pattern):
            linear = is_linear(reader(pattern, use, begin, repeated))
            assert linear, f"{pattern.pattern!r} after {begin!r} with {repeated!r} again and again"


@pytest.mark.parametrize("parse", [file_name, parse_metadata, parse_concat])
def test_header_is_parsed_in_linear_time(parse: Callable[[str], object]) -> None:
    begins, texts = ["", 'a; filename="', "a;", "final;"], [";", '"', ';"', '\\"', "a=;", "a ,", " "]
    for begin, repeated in itertools.product(begins, texts):

        def reading(size: int, begin: str = begin, repeated: str = repeated) -> Callable[[], object]:
            def call() -> None:
                with contextlib.suppress(ApiError):
                    parse(begin + repeated * (8 * size))

            return call

        assert is_linear(reading), f"after {begin!r} with {repeated!r} again and again"
