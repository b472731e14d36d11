"""Options of the processes of a job: where each runs, and how it finds the chief."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from ..option import Option, check_ranges
from .access import Access
from .chief_client import new_incarnation
from .security import SecurityOptions
from .signals import GRACE_SECS

MAX_WAIT_SECS = 600.0
RECOVERY_PANEL = "When something is lost or hangs"


def port_option(help: str) -> Option:
    """Returns the option of a port."""
    return Option(help=help, least=0, most=65535)


# Options that fields of several classes have.
MAX_WAIT_OPTION = Option(
    help="Longest wait for tasks, in seconds, before giving up.", unit="seconds", is_positive=True
)
METRICS_PORT_OPTION = port_option("Port of Prometheus metrics; 0 takes a free one.")
GRACE_OPTION = Option(
    help="Seconds that a process may stay after SIGTERM, to shut down gracefully.",
    unit="seconds",
    panel=RECOVERY_PANEL,
    is_positive=True,
)
DEBUG_OPTION = Option(help="Show tracebacks and debug logs.")


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Options of a process, whatever its role.

    Attributes:
        host: Host name or address under which other tasks reach this process.
        port: Port of its server; 0 takes a free one.
        metrics_port: Port of its metrics; 0 takes a free one.
        grace_secs: Seconds that it can stay once it is asked to end.
        incarnation: Unique to this life of the process.
        debug: Whether it prints tracebacks and debug logs.
        security: The token and TLS of its servers and calls.

    Raises:
        UsageError: A value is out of range.
    """

    host: Annotated[str, Option(help="Name or address under which others reach this process.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, port_option("Port of the TensorFlow server; 0 takes a free one.")] = 0
    metrics_port: Annotated[int, METRICS_PORT_OPTION] = 0
    grace_secs: Annotated[float, GRACE_OPTION] = GRACE_SECS
    incarnation: Annotated[
        str,
        Option(
            help="Unique to this life of the process; default: random. A launcher that gives it "
            "can tell the chief when the process has ended.",
            is_flag_only=True,
        ),
    ] = field(default_factory=new_incarnation)
    debug: Annotated[bool, DEBUG_OPTION] = False
    security: SecurityOptions = field(default_factory=SecurityOptions)

    def __post_init__(self) -> None:
        check_ranges(self)

    @cached_property
    def access(self) -> Access:
        """The token and TLS of this process.

        Raises:
            UsageError: Other hosts reach it and it has not both, or a file is broken.
        """
        access = self.security.access()
        access.check_host(self.host)
        return access

    @property
    def notice_secs(self) -> float | None:
        """Seconds after which a process that is asked to end has ended; None: no limit."""
        return self.grace_secs


@dataclass(frozen=True, kw_only=True)
class TaskOptions(ProcessOptions):
    """Options of a process that joins a job.

    Attributes:
        chief: `host:port` of the chief's control service.
        index: Its place among the tasks of its role; None takes the lowest free one.
        max_wait_secs: Seconds to wait for the chief, at the start and whenever it is silent.
    """

    chief: Annotated[
        str,
        Option(
            help="HOST:PORT of the chief's control service, an IPv6 host in brackets; default: "
            "TF_CONFIG's chief."
        ),
    ]
    index: Annotated[
        int | None, Option(help="Task index; default: the lowest free one.", is_flag_only=True)
    ] = None
    max_wait_secs: Annotated[float, MAX_WAIT_OPTION] = MAX_WAIT_SECS


@dataclass(frozen=True, kw_only=True)
class ParameterServerOptions(TaskOptions):
    """Options of a parameter server.

    Attributes:
        spare: True if it waits to take the place of a lost one.
    """

    spare: Annotated[
        bool,
        Option(help="Stand by, to take the place of a lost one.", is_flag_only=True),
    ] = False
