"""The place of a role and of its chief: from options, or else from `TF_CONFIG`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from ..cluster.address import LOOPBACK, parse_address, parse_host
from ..cluster.spec import ClusterSpec, Role, Task
from ..errors import UsageError

# How long the name of this host may take to resolve, as in a cluster that has just made it.
RESOLVE_SECS = 5.0
# Options of a role's place, all of which `TF_CONFIG` can say.
_CHIEFS = ("host", "port")
_TASKS = ("chief", "host", "port", "index")


def find_place(role: Role, given: Mapping[str, Any]) -> dict[str, Any]:
    """Finds the place of this process: host, port and index, and its chief's address.

    Args:
        role: Of this process.
        given: Options by name. Where some of the place are left out, `TF_CONFIG` says them.

    Returns:
        These options by name; the port and the index only if they are known.

    Raises:
        UsageError: An address is of another form, no host, or unknown.
    """
    wanted = _CHIEFS if role is Role.CHIEF else _TASKS
    place = {name: given[name] for name in wanted if name in given}
    if len(place) < len(wanted):
        place = _read_tf_config(role, wanted) | place
    place["host"] = _check_host(place["host"]) if "host" in place else _default_host(given)
    if role is not Role.CHIEF:
        place["chief"] = _check_chief(place.get("chief"))
    return place


def _read_tf_config(role: Role, wanted: tuple[str, ...]) -> dict[str, Any]:
    """Reads the place from `TF_CONFIG`; empty if it has none."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return {}
    try:
        spec, task = ClusterSpec.from_tf_config(text)
    except ValueError as error:
        message = str(error)
        named = message.startswith("TF_CONFIG")
        raise UsageError(message if named else f"TF_CONFIG: {message}") from error
    if task.role is not role:
        raise UsageError(
            f"TF_CONFIG says this is {task}, but the command is `paramserve {role}`: run "
            f"`paramserve {task.role}`, or unset TF_CONFIG"
        )
    own, chief = parse_address(spec.address_of(task)), spec.address_of(Task(Role.CHIEF, 0))
    said = {"chief": chief, "host": own.host, "port": own.port, "index": task.index}
    return {name: said[name] for name in wanted}


def _check_chief(address: str | None) -> str:
    if address is None:
        raise UsageError("where is the chief? Give --chief HOST:PORT, or set TF_CONFIG")
    try:
        return str(parse_address(address, "--chief"))
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_host(host: str) -> str:
    """Returns the given host, once it resolves: names may get their addresses a moment late."""
    try:
        name = parse_host(host, "--host")
    except ValueError as error:
        raise UsageError(str(error)) from error
    deadline = time.monotonic() + RESOLVE_SECS
    while True:
        try:
            socket.getaddrinfo(name, None)
            return name
        except OSError as error:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"--host {host!r} does not resolve here ({error.strerror}): give a name or "
                    "address under which other tasks reach this process"
                ) from error
        time.sleep(0.2)


def _default_host(given: Mapping[str, Any]) -> str:
    """Returns the loopback address; for a process that serves other hosts, this host's name."""
    if not (given.get("insecure") or given.get("tls_cert")):
        return LOOPBACK
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return LOOPBACK
    return name
