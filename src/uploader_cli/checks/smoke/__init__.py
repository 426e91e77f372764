"""Black-box checks of an upload server against docs/protocol.md."""

from uploader_cli.checks.smoke.checks import CHECKS, Check, chosen
from uploader_cli.checks.smoke.runner import Stopped, run_checks
from uploader_cli.checks.smoke.site import BUDGET, Site
from uploader_cli.checks.smoke.verdicts import Report, Result, Verdict

__all__ = ["BUDGET", "CHECKS", "Check", "Report", "Result", "Site", "Stopped", "Verdict", "chosen", "run_checks"]
