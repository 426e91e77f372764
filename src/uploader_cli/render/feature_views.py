"""What features show of their parts of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from uploader_cli.core.state import ProgressState
from uploader_cli.feature import features
from uploader_cli.render.words import Row


class View(NamedTuple):
    """Functions that show the part `own` of the state, as far as a feature has them.

    Times are of the run clock (seconds).
    """

    above: Callable[..., list[Row]] = lambda *_, **__: []
    """`above(own, now, width, space, still=…)` draws at most `space` rows of the live view, above the running files.

    Where the run is `still`, nothing has a rate.
    """
    rows: Callable[[Any, float, int, int], list[Row]] = lambda *_: []
    """`rows(own, now, width, space)` draws at most `space` rows below them."""
    channel: Callable[[Any], tuple[str, str, str] | None] = lambda _: None
    """`channel(own)` returns glyph, text and style of what is shown in place of the realtime channel."""
    lines: Callable[..., list[str]] = lambda *_, **__: []
    """`lines(event, own, now, verbose=…)` returns the lines of a log about a public event, of the core or a feature."""
    once: Callable[[Any], list[str]] = lambda _: []
    """`once(own)` returns lines of a log that are printed as soon as they are known, once each."""
    summarize: Callable[..., Iterable[str]] = lambda *_, **__: ()
    """`summarize(lines, own, interrupted=…)` adds to the `Lines` of the summary, and returns the texts of warnings that
    need not be shown again."""
    failed: Callable[[Any], str] = lambda _: ""
    """`failed(own)` returns the subject of `… failed`, where something after all files has; else empty."""
    result: Callable[[Any], dict[str, Any]] = lambda _: {}
    """`result(own)` returns fields of the `Result`."""


def views(state: ProgressState) -> list[tuple[View, Any]]:
    """Return the views of the features that have a part of the state, each with that part."""
    return [(one.load(one.view), state.added[one.name]) for one in features() if one.name in state.added]
