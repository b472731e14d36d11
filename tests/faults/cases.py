"""The fault matrix: role, fault, moment and mode, and the combinations that make no sense."""

from dataclasses import dataclass
from itertools import product

ROLES = ("ps", "chief", "worker", "evaluator", "spare")
FAULTS = {
    "sigkill": "SIGKILL",
    "sigterm": "SIGTERM",
    "sigstop": "SIGSTOP, and SIGCONT two seconds after the lease",
    "halfcut": "all that its host sends is lost, until two seconds after the lease",
    "cut": "all that its host sends or is sent is lost, until two seconds after the lease",
    "slow": "each packet of its host and to it comes 200 ms later, and 5 % never",
    "disk": "the disk of the log directory is full for a lease and two seconds",
    "memory": "the kernel gives it no more address space (RLIMIT_AS), where it needs some",
}
NETWORK_FAULTS = ("halfcut", "cut", "slow")
MOMENTS = {
    "init": "as soon as its process is there",
    "step": "after 20 steps",
    "checkpoint": "while a checkpoint is written",
    "scaling": "while parameter servers are added",
    "shutdown": "once the chief has said that training is over",
}
MODES = ("sync", "async")


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    role: str
    fault: str
    moment: str
    mode: str

    def __str__(self):
        return f"{self.role}-{self.fault}-{self.moment}-{self.mode}"

    @property
    def target(self) -> str:
        """The process that it happens to: the evaluation runs in the chief's."""
        return {"evaluator": "chief-0", "worker": "worker-1"}.get(self.role, f"{self.role}-0")

    @property
    def needs_spare(self) -> bool:
        return self.role in ("ps", "spare")


def all_cases() -> list[Case]:
    return [Case(*each) for each in product(ROLES, FAULTS, MOMENTS, MODES)]


def why_senseless(case: Case) -> str | None:
    """Why there is nothing to try; None if there is."""
    if case.role == "evaluator" and case.moment != "shutdown":
        return (
            "the evaluation runs in the chief's process, once training is over: see chief, and "
            "evaluator at shutdown, where the chief is hit in the middle of it"
        )
    if case.fault == "disk" and case.role in ("ps", "worker", "spare"):
        return "it writes nothing into the log directory: chief and evaluator do"
    return None


# One of each kind, for a test run without all faults.
CHOICE = (
    "ps-sigkill-step-sync",
    "chief-sigkill-checkpoint-async",
    "worker-sigstop-step-sync",
    "ps-cut-step-async",
)
