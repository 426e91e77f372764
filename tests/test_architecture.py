"""The rules of imports, also of the tests, and of names. Imports in functions and for types count as well."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from uploader_cli.feature import features
from uploader_cli.features import FEATURES
from uploader_cli.settings.keywords import FEATURE_OF, FEATURE_OF_COMMAND
from uploader_server import feature as server_feature

ROOT = Path(__file__).parent.parent
OURS = "uploader_cli"
CLIENT = ROOT / "src" / OURS
SERVER = ROOT / "server_stub" / "uploader_server"
TESTS = ROOT / "tests"

PACKAGES = {
    "core": "core",
    "errors": "core.codes",  # the vocabulary of failures
    "exit_status": "errors core.codes",
    "extras": "errors",
    "feature": "features.FEATURES",
    "named_files": "errors signals",
    "private_files": "errors",
    "settings": "core.masking errors named_files settings",
    "selection": "core errors named_files settings sources selection",
    "transfer": "core errors extras named_files private_files settings sources transfer",
    "realtime": "core realtime",
    "render": "core exit_status named_files outputs private_files render",
    "report": "core errors exit_status named_files settings signals transfer.journal render.words report __version__",
    "sources": "core errors settings.spelling sources",
    "run": "core errors exit_status named_files private_files settings signals selection sources transfer "
    "realtime render report run",
    "cli": "core.masking report run render settings signals errors exit_status cli __version__",
}
"""Each package, and what it may import of ours; all of them `feature`, and for types `features.typed`."""

SERVER_PACKAGES = {
    **dict.fromkeys(("addresses", "errors", "logs", "options", "pace", "wire"), ""),
    "auth": "errors",
    "shares": "addresses auth errors",
    "config": "errors options pace simulation.rules wire",
    "storage": "options wire storage",
    "session": "config errors storage wire",
    "progress": "session storage wire",
    "sessions": "auth config errors progress session shares storage wire",
    "backend": "config http storage",
    "http": "addresses auth backend config errors logs options pace shares storage wire http",
    "tus": "auth errors http session sessions shares storage wire tus",
    "batch": "config errors http pace session sessions shares storage wire batch",
    "bundled": "backend batch errors http session sessions shares tus wire",
    "counts": "",
    "analyses": "counts http wire",
    "realtime": "analyses auth backend config counts errors http shares wire realtime",
    "simulation": "analyses auth backend batch config http options session storage wire simulation",
    "openapi": "auth batch config http session sessions simulation tus wire openapi",
    "faults": "simulation",
    "app": "analyses backend bundled config counts http openapi options realtime sessions shares simulation storage",
    "serving": "app config http options simulation storage",
    "__main__": "auth config logs options serving simulation",
}
"""The same of the server; all of them `feature`. Features import what they need of the core."""

SHARED = {
    "google_crc32c": "sources.checksums",
    "requests": "transfer.by_urllib3 transfer.dialler transfer.requests_session",
    "urllib3": "transfer.by_urllib3 transfer.dialler transfer.requests_session",
    "certifi": "transfer.dialler",
    "socketio": "realtime.socket",
    "engineio": "realtime.socket",
    "websocket": "realtime.websocket",
    "rich": "render.live",
    "tenacity": "transfer.pacer",
    "pathspec": "selection.filters",
    "typer": "cli",
    "msgspec": "core selection transfer realtime render run",
}
"""A dependency, and who of the core may import it."""

SERVER_SHARED = {
    "starlette": "app backend batch bundled features http realtime simulation tus",
    "granian": "serving",
    "socketio": "realtime",
    "engineio": "realtime",
    "multipart": "batch",
    "google_crc32c": "tus.checksums",
    "jwt": "auth",
}
"""The same of the server: the domain does without HTTP."""

TYPES = ("features.typed", "features.public")
"""What type checkers read of features."""

IMPURE = "time os io pathlib threading socket queue subprocess select ssl signal tempfile shutil random asyncio logging"
"""Standard modules that have no place in pure code: clocks, files, threads, sockets, chance."""
PURE = "core"
MACHINES = "machine pack batch upload join"
"""The modules of `protocols` that are machines, and of what these tell the driver."""
DIALECTS = "dialect tus_dialect ietf_dialect"
"""The modules of `protocols` that say what a request has, and what an answer means. There are no others."""


def within(name: str, places: str) -> bool:
    """Return True if `name` is one of `places` or below one."""
    return any(name == place or name.startswith(place + ".") for place in places.split())


def imports(path: Path, package: str) -> set[str]:
    """Return the full names of all modules, and names of modules, that a file imports."""
    out: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: -node.level or None] if node.level else []
            out |= {".".join(filter(None, [*base, node.module, alias.name])) for alias in node.names}
    return out


@functools.cache
def modules(top: Path) -> dict[str, set[str]]:
    """Return the imports of each module below `top`, by its dotted name without the top package (itself: empty)."""
    found = {}
    for path in sorted(top.rglob("*.py")):
        name = ".".join(path.relative_to(top).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        found[name] = imports(path, f"{top.name}.{name}")
    return found


def core() -> dict[str, set[str]]:
    """Return the imports of the client's modules that are of no feature."""
    return {name: used for name, used in modules(CLIENT).items() if not name.startswith("features.")}


RULES = [(CLIENT, *rule) for rule in PACKAGES.items()] + [(SERVER, *rule) for rule in SERVER_PACKAGES.items()]


@pytest.mark.parametrize(("top", "package", "may"), RULES, ids=[f"{top.name}.{package}" for top, package, _ in RULES])
def test_package_imports_only_what_its_rule_allows(top: Path, package: str, may: str) -> None:
    inside = {name: used for name, used in modules(top).items() if within(name, package)}
    assert inside
    for name, used in inside.items():
        ours = {item.removeprefix(top.name + ".") for item in used if within(item, top.name)}
        assert {item for item in ours if not within(item, f"{may} feature features.typed")} == set(), name


def test_every_module_of_the_server_has_a_rule() -> None:
    places = " ".join([*SERVER_PACKAGES, "feature", "features"])
    assert {name for name in modules(SERVER) if name and not within(name, places)} == set()


def test_feature_is_imported_by_itself_only() -> None:
    """What it adds is named in its `__init__`, which is read at each start and imports only `feature`.

    Others import it that say so (`Feature.uses`).
    """
    uses = {f"features.{feature.name}": feature.uses for feature in features()}
    uses |= {module: (feature.name,) for feature in features() for module in feature.modules}
    assert modules(CLIENT)["feature"] >= {f"{OURS}.features.FEATURES"}
    for name, used in modules(CLIENT).items():
        own = ".".join(name.split(".")[:2])
        known = f"{OURS}.{own} {OURS}.features.FEATURES {OURS}.features.typed"
        known = " ".join([known, *(f"{OURS}.features.{other}" for other in uses.get(own, ()))])
        others = {item for item in used if item.startswith(f"{OURS}.features.") and not within(item, known)}
        assert others == set() or name in ("", *TYPES), name
        if within(name, "features") and name in (own, "features") and name not in TYPES:
            assert {item for item in used if within(item, OURS) and not within(item, f"{OURS}.feature")} == set(), name


def test_feature_of_the_server_is_imported_by_itself_only() -> None:
    """Others import it that say so (`Feature.uses`). Its `__init__` imports only `feature`."""
    top, uses = f"{SERVER.name}.features", {one.name: one.uses for one in server_feature.features()}
    for name, used in modules(SERVER).items():
        own = name.split(".")[1] if within(name, "features") and name != "features" else ""
        known = " ".join([f"{top}.FEATURES", *(f"{top}.{one}" for one in (own, *uses.get(own, ())) if one)])
        assert {item for item in used if within(item, top) and not within(item, known)} == set(), name
        if name in ("features", f"features.{own}"):
            ours = {item for item in used if within(item, SERVER.name)}
            assert {item for item in ours if not within(item, f"{SERVER.name}.feature")} == set(), name


def test_pure_code_is_pure() -> None:
    """It imports msgspec, and the standard library without clocks, files, threads and sockets."""
    for name, used in modules(CLIENT).items():
        if within(name, PURE):
            foreign = {item for item in used if not within(item, OURS)}
            assert not {item for item in foreign if within(item, IMPURE)}, name
            others = {item for item in foreign if item.split(".")[0] not in sys.stdlib_module_names}
            assert {item for item in others if not within(item, "msgspec")} == set(), name


def test_no_protocol_knows_another() -> None:
    """tus, batches and packs: the scheduler chooses, and falls back."""
    dialects = ("tus_dialect dialect machine", "ietf_dialect dialect machine")
    for own in ("batch machine", "pack machine", *dialects, "upload join machine"):
        for name, used in modules(CLIENT).items():
            if within(name, " ".join(f"transfer.protocols.{module}" for module in own.split())):
                known = {
                    item.removeprefix(f"{OURS}.transfer.protocols.").split(".")[0]
                    for item in used
                    if within(item, f"{OURS}.transfer.protocols")
                }
                assert known <= set(own.split()), name


def test_kind_of_server_is_asked_where_it_is_chosen() -> None:
    """All others ask what `core.terms.Terms` says of the server."""
    readers = Counter(
        str(path.relative_to(CLIENT))
        for path in CLIENT.rglob("*.py")
        for node in ast.walk(parsed(path))
        if "foreign" in (getattr(node, field, None) for field in ("attr", "id", "arg"))
    )
    assert readers == {"settings/model.py": 2, "settings/resolution.py": 2, "transfer/targets.py": 1}


def test_machine_is_pure() -> None:
    """A protocol as a machine has no clock, thread, socket, file, journal, settings or pacer."""
    may = "core errors transfer.results transfer.protocols.machine transfer.protocols.upload"
    there = {path.stem for path in (CLIENT / "transfer/protocols").glob("*.py")} - {"__init__"}
    assert there == {*MACHINES.split(), *DIALECTS.split()}
    for name in MACHINES.split():
        used = modules(CLIENT)[f"transfer.protocols.{name}"]
        ours = {item.removeprefix(OURS + ".") for item in used if within(item, OURS)}
        assert {item for item in ours if not within(item, may)} == set(), name
        assert not {item for item in used if within(item, IMPURE)}, name


def test_dialect_is_pure() -> None:
    """It gets answers, and sends nothing."""
    own = " ".join(f"transfer.protocols.{name}" for name in DIALECTS.split())
    may = dict.fromkeys(own.split(), f"core errors transfer.answers transfer.protocols.machine {own}")
    may["transfer.answers"] = "core errors transfer.protocols.machine"
    for name, places in may.items():
        used = modules(CLIENT)[name]
        ours = {item.removeprefix(OURS + ".") for item in used if within(item, OURS)}
        assert {item for item in ours if not within(item, places)} == set(), name
        assert not {item for item in used if within(item, IMPURE)}, name


@pytest.mark.parametrize("library", SHARED)
def test_dependency_is_imported_in_its_module_only(library: str) -> None:
    check_dependency(library, core(), SHARED)


@pytest.mark.parametrize("library", SERVER_SHARED)
def test_dependency_of_the_server_is_imported_in_its_module_only(library: str) -> None:
    check_dependency(library, modules(SERVER), SERVER_SHARED)


def check_dependency(library: str, known: dict[str, set[str]], rules: dict[str, str]) -> None:
    users = {name for name, used in known.items() if any(within(item, library) for item in used)}
    assert users
    assert {name for name in users if not within(name, rules[library])} == set()


def test_every_dependency_has_an_import_rule() -> None:
    server = {name: used for name, used in modules(SERVER).items() if not name.startswith("features.")}
    for known, rules in ((core(), SHARED), (server, SERVER_SHARED)):
        used = {item.split(".")[0] for found in known.values() for item in found}
        assert used - set(rules) - set(sys.stdlib_module_names) - {OURS, SERVER.name, "platformdirs"} == set()


def test_server_does_not_import_the_client() -> None:
    """One mistake in the protocol must not pass on both sides."""
    assert modules(SERVER)
    assert {name for name, used in modules(SERVER).items() if any(within(item, OURS) for item in used)} == set()


@pytest.mark.parametrize("top", [CLIENT, SERVER], ids=["client", "server"])
def test_no_module_imports_itself_through_others(top: Path) -> None:
    """An import in a function would only hide the cycle until it is called."""
    graph = loaded_modules(top)
    graph[""] = set()  # the package names its exports for type checkers, and imports them when they are used
    assert cycle(graph) == []


def test_added_cycle_is_found() -> None:
    graph = loaded_modules(SERVER)
    assert graph["app"] >= {"config", "simulation.state", "http.middleware", "storage.store"}
    graph["wire"].add("app")
    found = cycle(graph)
    assert {"app", "wire"} <= set(found)
    assert all(imported in graph[module] for module, imported in pairwise(found))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def found_in_tests(pattern: str) -> dict[str, list[str]]:
    """Return the matches in modules of tests; as text, because to parse all of them takes seconds."""
    found = {path: re.findall(pattern, path.read_text("utf-8"), re.MULTILINE) for path in sorted(TESTS.rglob("*.py"))}
    return {str(path.relative_to(TESTS)): matches for path, matches in found.items() if matches}


def test_tests_import_and_replace_no_private_name() -> None:
    """Also in texts for `monkeypatch`; ruff finds other uses (SLF001)."""
    found = found_in_tests(
        r"""^ *from .* import (?:.*[ (])?(_[a-z]\w*)|^ +(_[a-z]\w*),$|setattr\([^()]*["'](_[a-zA-Z]\w*)"""
    )
    assert {path for path, names in found.items() if any(any(name) for name in names)} == set()


def test_names_of_tests_say_condition_and_result() -> None:
    """At least three words: `test_resume_after_401_keeps_offset`, not `test_json`."""
    assert found_in_tests(r"^def (test_?[^_]*(?:_[^_]*)?)\(") == {}


def test_no_test_imports_another_test_module() -> None:
    """What several of them need is in a helper module. `--import-mode=importlib` gives each helper only one name."""
    assert found_in_tests(r"^ *(?:from|import) (.*\btest_\w+(?: import)?.*)") == {}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one cycle, each importing the next; none if there is no cycle."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def loaded_modules(top: Path) -> dict[str, set[str]]:
    """Return the modules of the package `top` that each of them loads."""
    known, prefix = modules(top), top.name
    return {
        name: {
            target
            for item in used
            if within(item, prefix)
            for target in loaded(item.removeprefix(prefix)[1:], name, known)
        }
        for name, used in known.items()
    }


def loaded(name: str, importer: str, known: dict[str, set[str]]) -> set[str]:
    """Return the modules that importing `name` loads: itself and the packages around it with content."""
    parts = name.split(".")
    while parts and ".".join(parts) not in known:  # the name of a class or function
        parts.pop()
    around = {".".join(parts[:count]) for count in range(1, len(parts))}
    return {".".join(parts)} | {package for package in around if known[package] and not within(importer, package)}


# --- names ------------------------------------------------------------------------------------------------------------


def constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the public constants of a module with their values, as they are written."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)):
                pairs = list(zip(names, values, strict=True))
            case ast.Assign([name], value) | ast.AnnAssign(name, value=ast.expr() as value):
                pairs = [(name, value)]
            case _:
                continue
        for name, value in pairs:
            if isinstance(name, ast.Name) and name.id.isupper() and not name.id.startswith("_"):
                yield name.id, ast.unparse(value)


def test_constant_has_one_meaning() -> None:
    """See the glossary in docs/architecture.md. A constant may be in several modules with the same value.

    Each feature has its `FEATURE`.
    """
    found = defaultdict(set)
    for path in CLIENT.rglob("*.py"):
        for name, value in constants(parsed(path)):
            found[name].add(value)
    assert {name: sorted(values) for name, values in found.items() if len(values) > 1 and name != "FEATURE"} == {}


BY_OTHERS = "create_queue start_background_task _send_request _engineio_client_class dispatch release_conn dask_setup "
BY_OTHERS += "response_class pytest_configure format_options"
"""Functions that libraries call by their names."""


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module uses, also those in texts, by which features are loaded."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(name, ast.Load()) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.Constant(str(text)) if len(text) < 100:
                yield from re.findall(r"\w+", text)


def definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions, methods, classes and constants, without functions that a decorator registers."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name, decorator_list=[*by]) if not any(isinstance(one, ast.Call) for one in by):
                yield name
            case ast.ClassDef(name):
                yield name
    yield from (name for name, _ in constants(tree))


def test_definition_has_a_user() -> None:
    """Without features it holds for the core, but for `feature`, which has what they use."""
    trees = [(path, parsed(path)) for path in CLIENT.rglob("*.py")]
    others = {CLIENT / "feature.py"}
    if not {*FEATURE_OF.values(), *FEATURE_OF_COMMAND.values()} <= {*FEATURES}:  # the missing one may be the user
        others.add(CLIENT / "features")
    used = {name for _, tree in trees for name in names_in(tree)}.union(BY_OTHERS.split())
    unused = {
        (str(path.relative_to(CLIENT)), name)
        for path, tree in trees
        for name in definitions(tree)
        if name not in used and not name.startswith("__") and {path, *path.parents}.isdisjoint(others)
    }
    assert unused == set()
