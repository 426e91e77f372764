"""The config file that `uploader config init` writes: all settings, commented out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uploader_cli.settings.model import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD = """\
# The settings of `uploader`. Commented lines show the default, or an example where there is none.
# Flags and the environment override this file, and so does an uploader.toml in the working directory, for the settings
# it may contain. `uploader config` shows the effective settings and their sources.
"""
_FOOT = """
# A profile is selected with --profile NAME or UPLOADER_PROFILE and overrides the settings above:
# [profile.staging]
# server = "staging.example"
"""


def config_template(hints: Mapping[str, tuple[str, str]]) -> str:
    """Return the TOML text; `hints` has a description and an example value for each setting."""
    parts = [_HEAD]
    for name, option in OPTIONS.items():
        if option.in_config:
            sentence, word = hints[name]
            parts.append(f"\n# {sentence}\n# {name} = {_value(option, word)}\n")
    return "".join([*parts, _FOOT])


def _value(option: Option, word: str) -> str:
    if option.many:
        return json.dumps([word])
    if option.default in (None, ""):
        return json.dumps(word)
    return json.dumps(option.default)
