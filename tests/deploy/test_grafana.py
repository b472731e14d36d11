"""The dashboard's form; its expressions are evaluated in test_prometheus.py."""

import itertools
import json
import re

import pytest
import yaml


@pytest.fixture
def dashboard(deploy):
    return json.loads((deploy / "grafana/dashboards/paramserve.json").read_text())


def test_variables_are_defined_and_used(dashboard):
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z][a-z_]*)", json.dumps(dashboard)))
    assert defined == used == {"datasource", "job_id"}


def test_every_expression_is_about_the_chosen_job(dashboard):
    for target in targets(dashboard):
        selectors = re.findall(r"\{[^}]*\}", target["expr"])
        assert selectors, target["expr"]
        assert all('job_id=~"$job_id"' in selector for selector in selectors), target["expr"]


def test_everything_asks_the_chosen_data_source(dashboard):
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == source for panel in dashboard["panels"])
    assert all(target["datasource"] == source for target in targets(dashboard))


def test_panels_have_names_units_and_a_place_of_their_own(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels if panel["type"] == "timeseries"}) > 10
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in itertools.combinations(panels, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_several_series_in_a_panel_can_be_told_apart(dashboard):
    for panel in dashboard["panels"]:
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends), panel["title"]


def test_grafana_asks_as_often_as_prometheus_scrapes(deploy):
    provisioning = deploy / "grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    scrape = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text())["global"]
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scrape["scrape_interval"]


def test_the_documented_variable_is_the_one_that_provisioning_reads(deploy):
    provisioning = deploy / "grafana/provisioning/dashboards/paramserve.yml"
    (provider,) = yaml.safe_load(provisioning.read_text())["providers"]
    name = re.fullmatch(r"\$\{(\w+)\}", provider["options"]["path"])[1]
    assert f"{name}=" in (deploy.parent / "docs/deploy.md").read_text()


def targets(dashboard):
    return [target for panel in dashboard["panels"] for target in panel["targets"]]


def overlap(one, other):
    apart = (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )
    return not apart
