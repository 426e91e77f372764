"""`uploader upload`."""

from typing import Annotated

import typer

from uploader_cli.cli import options as opt


def _print_schema(wanted: bool) -> None:
    if wanted:
        from uploader_cli.render import ndjson

        typer.echo(ndjson.schema_text())
        raise typer.Exit


def upload(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="[PATH...]", help="Files and directories.", show_default=False)
    ] = None,
    profile: opt.Profile = None,
    server: opt.Server = None,
    category: opt.Category = None,
    protocol: opt.Protocol = None,
    tus_endpoint: opt.TusEndpoint = None,
    jobs: opt.Jobs = None,
    chunk_size: opt.ChunkSize = None,
    checksum: opt.Checksum = None,
    pack: opt.Pack = None,
    limit_rate: opt.LimitRate = None,
    include: opt.Include = None,
    exclude: opt.Exclude = None,
    shard: opt.Shard = None,
    follow_links: opt.FollowLinks = None,
    from_file: opt.FromFile = None,
    from_format: opt.FromFormat = None,
    null: opt.Null = None,
    lenient: opt.Lenient = None,
    skip_existing: opt.SkipExisting = None,
    trust_receipts: opt.TrustReceipts = None,
    dry_run: opt.DryRun = None,
    retries: opt.Retries = None,
    max_wait: opt.MaxWait = None,
    wait_for_server: opt.WaitForServer = None,
    stall: opt.Stall = None,
    warn_latency: opt.WarnLatency = None,
    warn_error_rate: opt.WarnErrorRate = None,
    fail_fast: opt.FailFast = None,
    resend_unknown: opt.ResendUnknown = None,
    resume: opt.Resume = None,
    verify: opt.Verify = None,
    analyze: opt.Analyze = None,
    analysis_to: opt.AnalysisTo = None,
    cancel_on_interrupt: opt.CancelOnInterrupt = None,
    state_dir: opt.StateDir = None,
    json: opt.Json = None,
    json_schema: Annotated[
        bool,
        typer.Option(
            "--json-schema",
            callback=_print_schema,
            is_eager=True,
            help="Print the JSON Schema of --json and exit.",
            rich_help_panel=opt.group_of("json_schema"),
        ),
    ] = False,
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
    """Upload files and directories."""
    settings = opt.load(locals())
    if settings.dry_run:
        from uploader_cli.run.dry_run import dry_run as command
    else:
        from uploader_cli.run.commands import upload_command as command
    raise typer.Exit(command(settings, paths or []))
