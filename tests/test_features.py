"""The wall around features: the core knows none of their names, and they are declared in a readable order."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import without
from command import environment

from uploader_cli.cli.app import COMMANDS
from uploader_cli.core.codes import WarningCode
from uploader_cli.core.events import Event, FileEnded
from uploader_cli.feature import Feature, features
from uploader_cli.settings import OPTIONS, Settings
from uploader_server import feature as server

CLIENT = Path(__file__).parent.parent / "src" / "uploader_cli"
SERVER = Path(__file__).parent.parent / "server_stub" / "uploader_server"
EXEMPT = (CLIENT / "settings" / "keywords.py", CLIENT / "__init__.py")
"""The public names of the library, which stay: they have types."""
CORE = [path for path in CLIENT.rglob("*.py") if CLIENT / "features" not in path.parents and path not in EXEMPT]
WORDS = {"on": r"settings\.on\b", "watch": r"settings\.watch\b", "workers": r"WarningCode\W+workers\b"}
"""Names that the core has for something else, with what would mean that of the feature."""


def declared(feature: Feature) -> set[str]:
    """Return the names that a feature declares but for commands; of a code its member, unless a warning has it, too.

    A format may have the name of a field: `sha256`.
    """
    fields = feature.load(feature.fields) if feature.fields else {}
    hooks = [step for _, step in feature.steps] + [place for _, place in feature.exports]
    return {
        *(option.name for option in feature.options),
        *(name for added in fields.values() for name, *_ in added),
        *(action.name for action in feature.actions),
        *({part for one in feature.formats for part in (one.name, one.suffix)} - {*FileEnded.__struct_fields__}),
        *in_head(feature),
        *(hook.partition(":")[2] for hook in hooks),
        *feature.modules,
        *(name for event in events_of(feature) for name in (event.__name__, event.type)),
        *({code.name.upper() for code in feature.codes} - set(WarningCode.__members__)),
        *(name.upper() for name in feature.warnings),
        *(name for name in (feature.directory, feature.extra) if name),
        *feature.variables,
    }


def in_head(feature: Feature) -> list[str]:
    """Return the fields that a feature adds to the head of a report."""
    head = feature.load(feature.head) if feature.head else None
    return [*head.of_run(Settings()), *head.TOTALS] if head is not None else []


def events_of(feature: Feature) -> tuple[type[Event], ...]:
    """Return the public events of a feature."""
    events: tuple[type[Event], ...] = feature.load(feature.events) if feature.events else ()
    return events


@cache
def parsed(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def names(path: Path) -> set[str]:
    """Return the identifiers, attributes and strings of a module, and the names of a string that is a list of them."""
    fields = ("id", "attr", "arg", "name", "asname", "value")
    found = {getattr(node, field, None) for node in parsed(path) for field in fields}
    texts = {name for name in found if isinstance(name, str)}
    return texts.union(*(text.split() for text in texts if re.fullmatch(r"[a-z_]+( [a-z_]+)+", text)))


@cache
def commands_in(path: Path) -> set[str]:
    """Return the commands that strings of a module list, as `"status"` or `f"{_SEND} resume"`, and functions of `cli/`.

    Elsewhere the name of a command may be a verb, as in `f"resume {self.run}"`, or a stage, as in `("report", 90)`.
    """
    texts = [node for node in parsed(path) if isinstance(node, ast.JoinedStr)]
    lists = [text for text in texts if all(part.isupper() for part in re.findall(r"{(.*?)}", ast.unparse(text)))]
    prose = {part for text in texts if text not in lists for part in text.values}
    for node in parsed(path):
        match node:
            case ast.Tuple([name, ast.Constant(int())]):
                prose.add(name)
    plain = [node.value for node in parsed(path) if isinstance(node, ast.Constant) and node not in prose]
    words = [text.split() for text in plain if isinstance(text, str)]
    functions = {node.name for node in parsed(path) if isinstance(node, ast.FunctionDef) and path.parent.name == "cli"}
    return functions.union(*(some for some in words if COMMANDS.keys() >= {*some}))


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_core_has_no_name_of_a_feature(feature: Feature) -> None:
    own, flags = declared(feature) - WORDS.keys(), [OPTIONS[option.name].flag for option in feature.options]
    commands = {command.name for command in feature.commands}
    flags += [f"uploader {name}" for name in commands]
    meant = [WORDS[name] for name in declared(feature) & WORDS.keys()]
    for path in CORE:
        assert own.isdisjoint(names(path)), (path, own.intersection(names(path)))
        assert commands.isdisjoint(commands_in(path)), path
        text = path.read_text(encoding="utf-8")
        assert not [flag for flag in flags if flag in text], path
        assert not [pattern for pattern in meant if re.search(pattern, text)], path


@pytest.mark.parametrize("feature", server.features(), ids=lambda feature: feature.name)
def test_core_of_the_server_has_no_name_of_a_feature(feature: server.Feature) -> None:
    own = {option.name for option in feature.options}
    texts = [*(option.flag for option in feature.options), *(path for path, _ in feature.paths)]
    for path in SERVER.rglob("*.py"):
        if SERVER / "features" not in path.parents:
            assert own.isdisjoint(names(path)), (path, own.intersection(names(path)))
            text = path.read_text(encoding="utf-8")
            assert not [one for one in texts if f'"{one}' in text], path


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_what_a_feature_names_can_be_loaded(feature: Feature) -> None:
    hooks = [value for value in feature if isinstance(value, str) and ":" in value]
    hooks += [place for _, place in (*feature.steps, *feature.exports, *feature.brings)]
    hooks += [option.parse for option in feature.options if ":" in option.parse]
    hooks += [module for module in (feature.words, feature.sources, feature.head, feature.view) if module]
    hooks += [one.function for one in feature.commands]
    hooks += [one.function for one in feature.actions]
    hooks += [one.function for one in feature.formats]
    assert all(feature.load(hook) for hook in hooks)
    for module in feature.modules:
        public, own = import_module(f"uploader_cli.{module}"), feature.load(module)
        names = [name for name in vars(public) if not name.startswith("_")]
        assert names
        assert all(getattr(public, name) is getattr(own, name) for name in names)


@pytest.mark.parametrize("feature", [one for one in features() if one.extra], ids=lambda feature: feature.name)
def test_extra_of_a_feature_is_gone_with_it(feature: Feature, tmp_path: Path) -> None:
    (copy := tmp_path / "pyproject.toml").write_bytes((CLIENT.parents[1] / "pyproject.toml").read_bytes())
    with copy.open("rb") as file:
        before = tomllib.load(file)["project"]["optional-dependencies"]
    without.delete_extras({feature.name}, copy)
    with copy.open("rb") as file:
        left = tomllib.load(file)["project"]["optional-dependencies"]
    assert before.keys() - left.keys() == {feature.extra}
    assert not re.search(rf"\b{feature.extra}\b", left["dev"][0])
    assert len(left["dev"][0]) == len(before["dev"][0]) - len(feature.extra) - len(",")


@pytest.mark.parametrize("feature", features(), ids=lambda feature: feature.name)
def test_installation_without_a_feature_names_it(feature: Feature, tmp_path: Path) -> None:
    """`without.py` runs the other tests without it."""
    shutil.copytree(CLIENT, tmp_path / "uploader_cli", ignore=shutil.ignore_patterns("__pycache__"))
    without.delete(without.chosen(feature.name), tmp_path / "uploader_cli")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**environment(tmp_path), "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-m", "uploader_cli", *arguments]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)

    shown, schema, commands = (
        run("upload", "--help").stdout,
        run("upload", "--json-schema").stdout,
        run("--help").stdout,
    )
    assert OPTIONS["resend"].variable in shown
    assert "file.completed" in schema
    for option in feature.options:
        assert not re.search(rf"{OPTIONS[option.name].variable}\b", shown)
        refused = run("upload", OPTIONS[option.name].flag, ".")
        assert (refused.returncode, f"the feature {feature.name}" in refused.stderr) == (2, True), refused.stderr
    without_server = run("upload", ".").stderr
    assert "no server given" in without_server
    for command in feature.commands:
        assert f"\n  {command.name} " not in commands
        assert f"uploader {command.name}" not in commands + without_server
        refused = run(command.name, ".")
        assert (refused.returncode, f"the feature {feature.name}" in refused.stderr) == (2, True), refused.stderr
    for action in feature.actions:
        assert action.name not in run("report", "--help").stdout
        refused = run("report", action.name, "r.json")
        assert (refused.returncode, f"the feature {feature.name}" in refused.stderr) == (2, True), refused.stderr
    for form in feature.formats:
        for name in (f"r{form.suffix}", f"{form.name}:r"):
            refused = run("upload", "--report", name, ".")
            assert (refused.returncode, f"the feature {feature.name}" in refused.stderr) == (2, True), refused.stderr
        assert form.suffix not in shown
    if feature.sources:
        (tmp_path / "list").write_text("https://host/a.mp4?signature\n")
        for words in (["s3://bucket/a.mp4"], ["--from-file", "list"]):
            refused = run("upload", "--server", "http://localhost:1", *words)
            assert (refused.returncode, f"the feature {feature.name}" in refused.stderr) == (2, True), refused.stderr
            assert "signature" not in refused.stderr
    fields = feature.load(feature.fields) if feature.fields else {}
    names = {name for added in fields.values() for name, *_ in added} | {code.name for code in feature.codes}
    names |= {event.type for event in events_of(feature)}
    names = (names - {str(code) for code in WarningCode}) | {*feature.warnings}
    assert not {name for name in names if f'"{name}"' in schema}
