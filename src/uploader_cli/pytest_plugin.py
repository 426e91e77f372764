"""The pytest plugin: the fixture `upload_server`, and a marker for its faults. See docs/tasks/embed.md."""

from uploader_cli.features.demo.pytest_plugin import pytest_configure as pytest_configure
from uploader_cli.features.demo.pytest_plugin import upload_server as upload_server
