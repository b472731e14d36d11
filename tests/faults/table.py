"""Writes the fault matrix as a Markdown table; rows of cases that were not run stay as they are."""

import re
from pathlib import Path

from .cases import FAULTS, MOMENTS, all_cases, why_senseless

HEAD = """# Fault matrix

The outcome for a small job when one fault hits one of its processes. `make faults` injects all of
them into real processes, and writes this page. The job has 2 parameter servers and 2 workers,
and a spare where a parameter server or the spare is hit. It takes restore points in memory every
0.5 s, and has leases of 3 s.

A case has **passed** when all of this is true: the job has trained to the end of its input; each
batch counts exactly once an epoch; the weights are those of an undisturbed run; and no process is
left. In sync mode the weights equal, to 1e-4, those after as many undisturbed steps. In async mode
they are the known solution, to 1e-2. In async mode one step is exempt: that in which a worker is
killed, frozen or cut off for longer than its lease. It may be applied without being counted, or
count for the next epoch too. So may steps that are under way when a server is cut off
([input.md](input.md), [recovery.md](recovery.md)). **Ended** means that the job ended as
documented, with the reason, and that the same command then resumed and completed it.

Cases are named role-fault-moment-mode. *Seconds* are from the fault to the next steps that count.
The job makes ten to twenty steps a second. No figure means that there was no step to wait for. The
figures only compare the cases: the machine has two cores, and other work to do.

"""
ROW = re.compile(r"\| `([a-z-]+)` \| (.*?) \| (.*?) \|$")


class FaultTable:
    """A pytest plugin: collects results by the properties that the tests record."""

    def __init__(self, path: Path):
        self._path = path
        self._rows = self._read()

    def pytest_runtest_logreport(self, report):
        found = dict(report.user_properties)
        if "case" not in found or report.when != "call":
            return
        if report.passed:
            result = found.get("result", "passed")
        elif report.skipped:
            result = report.longrepr[2].removeprefix("Skipped: ")
        else:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = crash.message.partition("\n")[0] if crash else "see the tests' output"
            result = f"**failed**: {said.replace('|', '/')[:120]}"
        self._rows[found["case"]] = (result, found.get("seconds", ""))
        # Each time: the whole matrix takes so long that it may be broken off.
        self._path.write_text(HEAD + "".join(self._parts()))

    def _read(self):
        text = self._path.read_text() if self._path.exists() else ""
        return {m[1]: (m[2], m[3]) for m in map(ROW.match, text.splitlines()) if m}

    def _parts(self):
        yield from _glossary("fault", FAULTS)
        yield from _glossary("moment", MOMENTS)
        yield "| case | result | seconds |\n|---|---|---|\n"
        senseless = {}
        for case in all_cases():
            if why := why_senseless(case):
                senseless.setdefault((case.role, why), []).append(case)
                continue
            result, secs = self._rows.get(str(case), ("not run", ""))
            yield f"| `{case}` | {result} | {secs} |\n"
        yield "\n## Cases that make no sense\n\n| cases | why |\n|---|---|\n"
        for (role, why), cases in senseless.items():
            yield f"| `{role}-{_any_of(cases, 'fault')}-{_any_of(cases, 'moment')}-*` | {why} |\n"


def _any_of(cases, field):
    """The values of a field that occur, in order."""
    every = {"fault": FAULTS, "moment": MOMENTS}[field]
    found = list(dict.fromkeys(getattr(case, field) for case in cases))
    if len(found) == len(every):
        return "*"
    return found[0] if len(found) == 1 else "{" + ",".join(found) + "}"


def _glossary(word, meanings):
    yield f"| {word} | what happens |\n|---|---|\n"
    for name, meaning in meanings.items():
        yield f"| {name} | {meaning} |\n"
    yield "\n"
