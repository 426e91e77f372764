"""The way to a server, examined step by step: what works, what does not, why, and what to do about it."""

from uploader_cli.doctor.context import Context
from uploader_cli.doctor.examination import examine
from uploader_cli.doctor.findings import Report, Result, Status

__all__ = ["Context", "Report", "Result", "Status", "examine"]
