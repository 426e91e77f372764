"""Frozen settings and their sources: flag > environment > config file > default."""

from uploader_cli.settings.config_files import config_template
from uploader_cli.settings.model import LEAST_RATE, OPTIONS, Settings, patience
from uploader_cli.settings.option import DEFAULT, Layer, Option, Source
from uploader_cli.settings.places import user_config_file, working_directory
from uploader_cli.settings.resolution import profiles, resolve, resolve_here
from uploader_cli.settings.stored import NAMED_BY_DIRECTORY, resumed, storable
from uploader_cli.settings.values import Header, Invalid, Metadata, parse_size
