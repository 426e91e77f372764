"""The way to a server, examined step by step: what works, what does not, why, and what to do about it."""

from uploader_cli.doctor.examination import examine
from uploader_cli.doctor.findings import Report, Result, Status
from uploader_cli.doctor.visit import Visit

__all__ = ["Report", "Result", "Status", "Visit", "examine"]
