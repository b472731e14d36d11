"""`python -m paramserve.benchmarks.attacks`."""

import typer

from .app import attacks

if __name__ == "__main__":
    typer.run(attacks)
