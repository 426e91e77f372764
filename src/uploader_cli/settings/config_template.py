"""The config file that `uploader config init` writes: every setting is there, none is set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uploader_cli.settings.model import OPTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD = """\
# The settings of `uploader`. What is commented out is the default, or an example where there is none.
# Flags and the environment outrank this file, and so does an uploader.toml of the working directory, as far as it may
# set anything. `uploader config` shows what is in effect and where it comes from.
"""
_FOOT = """
# A profile is chosen with --profile NAME or UPLOADER_PROFILE, and outranks what stands above:
# [profile.staging]
# server = "staging.example"
"""


def config_template(hints: Mapping[str, tuple[str, str]]) -> str:
    """TOML; `hints` are for each setting a sentence and the word that stands for its value in the help."""
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
