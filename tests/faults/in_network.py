"""A `paramserve` command on a host of its own."""

from paramserve.benchmarks.programs.entry import enter_network
from paramserve.jobs.launch.command import run_command


def run_in_network(namespace, *arguments):
    """Runs a command in a network namespace, or in this process's own if the name is empty."""
    if namespace:
        enter_network(namespace)
    run_command(*arguments)
