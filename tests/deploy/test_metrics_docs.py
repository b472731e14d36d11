"""docs/metrics.md has the metrics that processes of a real job serve: no more, no less."""

import itertools
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

SECTIONS = {
    "Chief: the job as a whole": "chief:0",
    "Worker: its own steps": "worker:0",
    "Parameter server": "ps:0",
}
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| (.*?) ?\| (.*?) ?\| (.+) \|")
# The meaning of a name's last part, where it has one.
UNITS = {"seconds": "seconds", "bytes": "bytes", "step": "steps", "steps": "steps"}


@pytest.fixture(scope="module")
def documented(deploy):
    """Rows by section: (name, type, labels)."""
    text = (deploy.parent / "docs/metrics.md").read_text()
    _, *sections = text.split("\n## ")
    return {section.partition("\n")[0]: rows(section) for section in sections}


def rows(section):
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    matches = [ROW.fullmatch(line) for line in lines]
    assert all(matches), lines
    return [match.groups() for match in matches]


@pytest.mark.parametrize("section", SECTIONS)
def test_documented_metrics_are_the_served_ones(section, documented, live_job):
    expected = documented[section] + documented["Every process"]
    assert described(expected) == served(live_job.metrics(SECTIONS[section]))


def test_units_agree_with_names(documented):
    for name, _, _, unit, _ in itertools.chain(*documented.values()):
        last = name.removesuffix("_total").rpartition("_")[2]
        assert UNITS.get(last, unit) == unit, name


def described(rows):
    return sorted(
        (name, kind, tuple(re.findall(r"\w+", labels))) for name, kind, labels, *_ in rows
    )


def served(text):
    """Every metric of a process as (name, type, labels), without the times of creation."""
    found = []
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found.append((name, family.type, tuple(sorted(labels))))
    return sorted(found)
