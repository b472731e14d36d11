"""`python -m paramserve`: the `paramserve` command."""

from .cli.app import main

main()
