"""What can be changed in a module: the operators of mutmut that resemble mistakes, and five of our own."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Place(NamedTuple):
    """A line of a module, and a change of it."""

    line: int
    node: cst.CSTNode
    instead: cst.CSTNode
    in_function: bool
    """Whether it runs at calls, and not only when the module is imported."""


def conditions(node: cst.If | cst.CompIf) -> Iterator[cst.CSTNode]:
    """Make a condition always false, or always true."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    for operator, value in ((cst.And(), "False"), (cst.Or(), "True")):
        yield node.with_changes(test=cst.BooleanOperation(test, operator, cst.Name(value)))


def statements(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """Leave out a call whose result is not used."""
    if isinstance(node.value, cst.Call):
        yield node.with_changes(value=cst.Name("None"))


def contexts(node: cst.With) -> Iterator[cst.CSTNode]:
    """Leave out a lock, or what else a `with` enters without a name."""
    if not node.asynchronous and all(item.asname is None for item in node.items):
        yield cst.If(cst.Name("True"), node.body, leading_lines=node.leading_lines)


def arguments(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Leave out an argument; None in its place would only raise TypeError, and `zip` is as good without `strict`."""
    for changed in mutators.operator_arg_removal(node):
        if len(cst.ensure_type(changed, cst.Call).args) < len(node.args) and not m.matches(node.func, m.Name("zip")):
            yield changed


def numbers(node: cst.Integer | cst.Float) -> Iterator[cst.CSTNode]:
    """Make a small number one too large, and take a large one for one of a unit that is a thousand times larger."""
    value = node.evaluated_value
    yield node.with_changes(value=repr(value + 1 if value <= 10 else value * 1000))


OPERATORS = (
    *(pair for pair in mutators.mutation_operators if pair[1].__name__ in {
        *("operator_name", "operator_augmented_assignment", "operator_remove_unary_ops"),
        *("operator_symmetric_string_methods_swap", "operator_unsymmetrical_string_methods_swap", "operator_keywords"),
        *("operator_swap_op", "operator_match", "operator_if_exp"),
    }),
    ((cst.If, cst.CompIf), conditions),
    (cst.Expr, statements),
    (cst.With, contexts),
    (cst.Call, arguments),
    ((cst.Integer, cst.Float), numbers),
)  # fmt: skip
"""Strings are left as they are: they are the words of messages, or names whose loss every test notices."""
LEFT_OUT = (
    m.Annotation()
    | m.Decorator()
    | m.If(test=m.Name("TYPE_CHECKING"))
    | m.Expr(value=m.SimpleString())
    | m.Arg(keyword=m.Name("frozen"))  # only code that changes a value shows it
    | m.Call(func=m.Name("len") | m.Name("isinstance") | m.Name("cast") | m.Name("TypeVar"))
    | m.Raise()
)


class _Visitor(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Place] = []
        self._functions = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, LEFT_OUT):
            return False
        position = self.get_metadata(PositionProvider, node, None)
        if position is not None:
            for kinds, operator in OPERATORS:
                if isinstance(node, kinds):
                    line, inside = position.start.line, self._functions > 0
                    self.found += [Place(line, node, changed, inside) for changed in operator(node)]
        self._functions += isinstance(node, cst.FunctionDef | cst.Lambda) - isinstance(node, cst.Parameters)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        self._functions -= isinstance(original_node, cst.FunctionDef | cst.Lambda)
        self._functions += isinstance(original_node, cst.Parameters)  # defaults are computed with the definition


class Source:
    """A module and all changes of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        wrapper = MetadataWrapper(cst.parse_module(text))
        visitor = _Visitor()
        wrapper.visit(visitor)
        self._module, self.places = wrapper.module, visitor.found

    def changed(self, place: Place) -> str:
        """Return the text with one change."""
        changed = self._module.deep_replace(place.node, place.instead)
        assert isinstance(changed, cst.Module)
        return changed.code

    def difference(self, place: Place) -> Iterable[str]:
        """Return the lines that differ, as `diff -U0` prints them."""
        lines = difflib.unified_diff(self.text.splitlines(), self.changed(place).splitlines(), n=0, lineterm="")
        return [line for line in lines if not line.startswith(("---", "+++"))]
