"""Files at URLs, as `s3://bucket/key` and `zip://name::https://…`, which fsspec reads."""

from uploader_cli.feature import Feature

FEATURE = Feature("urls", sources="reading", extra="fsspec")
