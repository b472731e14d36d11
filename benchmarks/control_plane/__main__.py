"""`python -m paramserve.benchmarks.control_plane`."""

import typer

from .app import control_plane

if __name__ == "__main__":
    typer.run(control_plane)
