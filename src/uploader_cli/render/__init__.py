"""The views of a run for a person, a log and a script: each renderer draws from the state, none counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uploader_cli.core.events import Event
    from uploader_cli.core.state import ProgressState

Kind = Literal["live", "plain", "none"]


class Renderer(Protocol):
    """What the run loop calls, always in its own thread. Times are of the run clock (monotonic seconds).

    The events of a frame come at its end, before `refresh`; each with the state that it led to, and its own time.
    """

    def handle(self, event: Event, state: ProgressState, now: float) -> None:
        """Take a public event, a `CallMade` or a `FileCancelled`."""

    def refresh(self, state: ProgressState, now: float) -> None:
        """Draw; called about ten times a second, with or without events."""

    def close(self, state: ProgressState, now: float) -> None:
        """Leave the terminal as it was: the run is over, perhaps by an error."""


def choose(
    progress: Literal["auto", "live", "plain", "none"],
    *,
    stderr_is_tty: bool,
    env: Mapping[str, str],
    quiet: bool = False,
    json_on_tty: bool = False,
    encoding: str = "utf-8",
) -> Kind:
    """Which view goes to stderr.

    What was asked for outranks everything but a terminal that can't do it (`TERM=dumb`, an encoding without the
    glyphs): that gets lines. `json_on_tty`: `--json` writes to the terminal where the view would be.
    """
    able = env.get("TERM") != "dumb" and encoding.lower().replace("-", "").replace("_", "") == "utf8"
    if progress == "live":
        return "live" if able else "plain"
    if progress != "auto":
        return progress
    if quiet or json_on_tty:
        return "none"
    return "live" if stderr_is_tty and able and not in_ci(env) else "plain"


def in_ci(env: Mapping[str, str]) -> bool:
    """True where `CI` is set to anything but a no."""
    return env.get("CI", "").lower() not in ("", "0", "false", "no")


def use_color(env: Mapping[str, str], *, is_tty: bool) -> bool:
    """Colours go to a terminal that can show them, unless `NO_COLOR` is set to anything."""
    return is_tty and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
