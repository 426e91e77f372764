"""Black-box checks of an upload server against docs/protocol.md."""

from uploader_cli.smoke.checks import CHECKS, Check, chosen
from uploader_cli.smoke.runner import Stopped, run_checks
from uploader_cli.smoke.site import BUDGET, Site
from uploader_cli.smoke.verdicts import Report, Result, Verdict

__all__ = ["BUDGET", "CHECKS", "Check", "Report", "Result", "Site", "Stopped", "Verdict", "chosen", "run_checks"]
