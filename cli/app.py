"""The `paramserve` command line: the name, arguments and help of each command."""

from __future__ import annotations

import os

# Before anything imports TensorFlow or Ray: their start-up chatter is for their developers.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import typer

from .. import __version__
from ..jobs.launch.parent import die_with_parent
from . import certs, migrate, operate, roles, run

EPILOG = (
    "Exit codes: 0 done; 1 the job failed; 2 bad usage; 3 a wait ran out (--max-wait-secs); "
    "130 ended by Ctrl-C or SIGTERM, with a checkpoint; 143 a single task left on SIGTERM."
)

app = typer.Typer(
    help="Parameter-server training for today's TensorFlow.",
    epilog=EPILOG,
    no_args_is_help=True,
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


def _paragraphs(text: str) -> str:
    """Leaves line breaks to the width of the terminal."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


for _name, _command in (
    ("run", run.run),
    ("chief", roles.chief),
    ("ps", roles.ps),
    ("worker", roles.worker),
    ("status", operate.status),
    ("scale", operate.scale),
    ("stop", operate.stop),
    ("checkpoint", operate.checkpoint),
    ("certs", certs.certs),
    ("migrate", migrate.migrate),
):
    app.command(_name, help=_paragraphs(_command.__doc__ or ""), epilog=EPILOG)(_command)


def main() -> None:
    """Runs the command line."""
    die_with_parent()
    app()
