"""The checks `ietf-…` of `uploader smoke`: what servers of the IETF's resumable uploads do."""

from uploader_cli.feature import Feature

FEATURE = Feature("ietf", uses=("checks", "smoke"), brings=(("smoke", "uploads"),))
