"""The composition root: what the commands and the library call. Everything below is put together here and only here."""

from uploader_cli.run.commands import upload_command, watch_command
from uploader_cli.run.config import init as config_init
from uploader_cli.run.config import show as config_show
from uploader_cli.run.doctor import doctor as doctor_command
from uploader_cli.run.dry_run import dry_run
from uploader_cli.run.report_merge import report_merge
from uploader_cli.run.rest_commands import cancel as cancel_command
from uploader_cli.run.rest_commands import delete as delete_command
from uploader_cli.run.rest_commands import status as status_command
from uploader_cli.run.rest_commands import validate as validate_command
from uploader_cli.run.resume import resume_command, resume_forget, resume_list
from uploader_cli.run.smoke import smoke as smoke_command
from uploader_cli.run.smoke import smoke_checks, smoke_list

__all__ = [
    "cancel_command",
    "config_init",
    "config_show",
    "delete_command",
    "doctor_command",
    "dry_run",
    "report_merge",
    "resume_command",
    "resume_forget",
    "resume_list",
    "smoke_checks",
    "smoke_command",
    "smoke_list",
    "status_command",
    "upload_command",
    "validate_command",
    "watch_command",
]
