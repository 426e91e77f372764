"""Diagnose the connection to a server step by step: what works, what fails, why, and how to fix it."""

from uploader_cli.checks.doctor.context import Context
from uploader_cli.checks.doctor.examination import examine
from uploader_cli.checks.doctor.findings import Report, Result, Status

__all__ = ["Context", "Report", "Result", "Status", "examine"]
