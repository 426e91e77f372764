"""Classes that features add to the library, for type checkers; written by docs/cli_options.py."""

from uploader_cli.features.analysis.events import Stage
from uploader_cli.features.then.fields import Removed

__all__ = ["Removed", "Stage"]
