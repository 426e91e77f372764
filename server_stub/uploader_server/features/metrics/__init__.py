"""Metrics for Prometheus at `/metrics` (docs/server.md)."""

from uploader_server.feature import Feature

FEATURE = Feature("metrics", part="metrics:Metrics", paths=(("/metrics", "metrics"),), document="description")
