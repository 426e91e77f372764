"""What the tests of the core need of the feature."""

from __future__ import annotations

SECRETS = {"on_failure": ("notify --key hunter2", "***")}
