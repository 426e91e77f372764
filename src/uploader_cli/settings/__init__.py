"""Frozen settings and their sources: flag > environment > config file > default."""

from uploader_cli.settings.config_template import config_template
from uploader_cli.settings.layers import DEFAULT, Layer, Source, user_config_file
from uploader_cli.settings.masking import MASK, mask
from uploader_cli.settings.model import OPTIONS, Option, Settings
from uploader_cli.settings.resolution import profiles, resolve
from uploader_cli.settings.values import Header, Invalid, parse_size, server_url

__all__ = [
    "DEFAULT",
    "MASK",
    "OPTIONS",
    "Header",
    "Invalid",
    "Layer",
    "Option",
    "Settings",
    "Source",
    "config_template",
    "mask",
    "parse_size",
    "profiles",
    "resolve",
    "server_url",
    "user_config_file",
]
