"""`uploader resume`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt
from uploader_cli.errors import UsageError


def resume(
    run_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="Run ID or its first characters. [default: the newest]", show_default=False
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the stored runs and exit.")] = False,
    forget: Annotated[
        str | None,
        typer.Option("--forget", metavar="RUN", help="Delete the stored run and exit; it can't be resumed then."),
    ] = None,
    profile: opt.Profile = None,
    jobs: opt.Jobs = None,
    limit_rate: opt.LimitRate = None,
    retries: opt.Retries = None,
    max_wait: opt.MaxWait = None,
    wait_for_server: opt.WaitForServer = None,
    stall: opt.Stall = None,
    warn_latency: opt.WarnLatency = None,
    warn_error_rate: opt.WarnErrorRate = None,
    lenient: opt.Lenient = None,
    resend_unknown: opt.ResendUnknown = None,
    verify: opt.Verify = None,
    analysis_to: opt.AnalysisTo = None,
    cancel_on_interrupt: opt.CancelOnInterrupt = None,
    state_dir: opt.StateDir = None,
    json: opt.Json = None,
    progress: opt.Progress = None,
    quiet: opt.Quiet = None,
    verbose: opt.Verbose = 0,
    log_file: opt.LogFile = None,
    log_level: opt.LogLevel = None,
    report: opt.Report = None,
    failed_to: opt.FailedTo = None,
    on_failure: opt.OnFailure = None,
    token_file: opt.TokenFile = None,
    token_command: opt.TokenCommand = None,
    header: opt.Header = None,
    ca_bundle: opt.CaBundle = None,
    client_cert: opt.ClientCert = None,
    insecure: opt.Insecure = None,
    proxy: opt.Proxy = None,
) -> None:
    """Resume an interrupted upload with its own options; options given here replace them."""
    flags = opt.flags(locals())
    things = {"RUN": run_id, "--list": list_ or None, "--forget": forget}
    asked = [name for name, given in things.items() if given is not None]
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} exclude each other", hint="omit one of them")
    if "" in (run_id, forget):
        raise UsageError(f"{asked[0]}: '' is not an ID", hint="list the runs with: uploader resume --list")
    from uploader_cli.run import resume as run

    if list_:
        raise typer.Exit(run.resume_list(flags))
    if forget is not None:
        raise typer.Exit(run.resume_forget(forget, flags))
    raise typer.Exit(run.resume_command(run_id, flags))
