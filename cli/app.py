"""The `paramserve` command line: what each command is called, takes and says about itself."""

from __future__ import annotations

import os

# Before anything imports TensorFlow or Ray: their start-up chatter is for their developers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import typer

from .. import __version__
from ..cluster.launch.parent import die_with_parent
from . import migrate, operate, roles, run

EPILOG = (
    "Exit codes: 0 done; 1 the job failed; 2 bad usage; 3 a wait ran out (--max-wait-secs); "
    "130 ended by Ctrl-C or SIGTERM, with a checkpoint; 143 a single task left on SIGTERM."
)

app = typer.Typer(
    help="Parameter-server training for today's TensorFlow.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paramserve {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Parameter-server training for today's TensorFlow."""


app.command("run", epilog=EPILOG)(run.run)
app.command("chief", epilog=EPILOG)(roles.chief)
app.command("ps", epilog=EPILOG)(roles.ps)
app.command("worker", epilog=EPILOG)(roles.worker)
app.command("status", epilog=EPILOG)(operate.status)
app.command("scale", epilog=EPILOG)(operate.scale)
app.command("stop", epilog=EPILOG)(operate.stop)
app.command("checkpoint", epilog=EPILOG)(operate.checkpoint)
app.command("migrate", epilog=EPILOG)(migrate.migrate)


def main() -> None:
    """Runs the command line."""
    die_with_parent()
    app()
