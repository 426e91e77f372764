"""The choice of the view."""

from __future__ import annotations

import pytest

from uploader_cli.render import choose, use_color, use_links

TTY = {"TERM": "xterm-256color"}


@pytest.mark.parametrize(
    ("progress", "options", "kind"),
    [
        ("auto", {"stderr_is_tty": True, "env": TTY}, "live"),
        ("auto", {"stderr_is_tty": False, "env": TTY}, "plain"),
        ("auto", {"stderr_is_tty": True, "env": {"TERM": "dumb"}}, "plain"),
        ("auto", {"stderr_is_tty": True, "env": {**TTY, "CI": "true"}}, "plain"),
        ("auto", {"stderr_is_tty": True, "env": {**TTY, "CI": "false"}}, "live"),
        ("auto", {"stderr_is_tty": True, "env": {}}, "live"),
        ("auto", {"stderr_is_tty": True, "env": TTY, "quiet": True}, "none"),
        ("auto", {"stderr_is_tty": True, "env": TTY, "json_on_tty": True}, "none"),
        ("live", {"stderr_is_tty": False, "env": {**TTY, "CI": "1"}, "quiet": True}, "live"),
        ("live", {"stderr_is_tty": True, "env": {"TERM": "dumb"}}, "plain"),
        ("plain", {"stderr_is_tty": True, "env": TTY, "json_on_tty": True}, "plain"),
        ("none", {"stderr_is_tty": True, "env": TTY}, "none"),
    ],
)
def test_view_follows_from_options_and_terminal(progress: str, options: dict[str, object], kind: str) -> None:
    assert choose(progress, **options) == kind  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("env", "is_tty", "color"),
    [
        (TTY, True, True),
        (TTY, False, False),
        ({**TTY, "NO_COLOR": "1"}, True, False),
        ({**TTY, "NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colour_follows_from_environment_and_terminal(env: dict[str, str], is_tty: bool, color: bool) -> None:
    assert use_color(env, is_tty=is_tty) is color


@pytest.mark.parametrize(
    ("env", "is_tty", "links"),
    [
        (TTY, True, False),
        ({**TTY, "VTE_VERSION": "7600"}, True, True),
        ({**TTY, "VTE_VERSION": "5000"}, True, False),
        ({**TTY, "VTE_VERSION": "7600"}, False, False),
        ({"TERM": "tmux-256color", "VTE_VERSION": "7600"}, True, False),
        ({"TERM": "tmux-256color", "FORCE_HYPERLINK": "1"}, True, True),
        ({"TERM": "dumb", "FORCE_HYPERLINK": "1"}, True, False),
        ({"TERM": "xterm-kitty"}, True, True),
        ({"TERM": "xterm-kitty", "FORCE_HYPERLINK": "0"}, True, False),
        ({**TTY, "TERM_PROGRAM": "vscode"}, True, True),
    ],
)
def test_links_where_the_terminal_knows_them(env: dict[str, str], is_tty: bool, links: bool) -> None:
    assert use_links(env, is_tty=is_tty) is links
