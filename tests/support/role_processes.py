"""The options of a running role, from its command line."""

import json


def handed_options(command):
    """Options by name; none where the role was started by hand.

    Args:
        command: The command line as `psutil` splits it, at each space of a process title.
    """
    if "--options" not in command:
        return {}
    return json.loads(" ".join(command[command.index("--options") + 1 :]))
