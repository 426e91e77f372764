"""Black-box checks of an upload server: does it keep the promises of the wire contract?"""

from uploader_cli.smoke.checks import CHECKS, Check, chosen
from uploader_cli.smoke.runner import Stopped, go_through
from uploader_cli.smoke.site import BUDGET, Site
from uploader_cli.smoke.verdicts import Report, Result, Verdict

__all__ = ["BUDGET", "CHECKS", "Check", "Report", "Result", "Site", "Stopped", "Verdict", "chosen", "go_through"]
