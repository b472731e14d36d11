"""The benchmark of the control plane: simulated tasks stay in the job of a real chief."""

import json
import math

import pytest

from paramserve.benchmarks.control_plane.report import figure_table, plot_points, write_json
from paramserve.benchmarks.control_plane.trial import Figures, Settings, measure

SETTINGS = Settings(ps=3, heartbeat_secs=0.2, lease_secs=20.0, secs=2.0, processes=2)


@pytest.fixture(scope="module")
def point():
    return measure(8, SETTINGS)


def test_simulated_tasks_stay_in_the_job_and_hear_of_a_lost_server(point):
    assert (point.workers, point.ps, point.registered, point.held) == (8, 3, 11, 11)
    assert point.all_held
    assert (point.lost, point.unanswered) == (0, 0)
    # A heartbeat of each of them in every 0.2 s, on a machine that may be slow.
    assert 11 <= point.answers <= 11 * 12
    assert 0 < point.p50_secs <= point.p99_secs < math.inf
    assert point.chief_cores > 0
    assert 0 < point.heard_secs <= point.ready_secs


def test_figures_are_written_as_table_json_and_picture(point, tmp_path):
    silent = Figures(**{**vars(point), "p99_secs": math.inf, "heard_secs": None, "held": 0})
    points = [point, silent]
    table = figure_table(points)
    cells = {column.header: list(column.cells) for column in table.columns}
    assert cells["held"] == ["all", "0 of 11"]
    assert cells["p99 ms"][1] == cells["over heard s"][1] == "never"
    write_json(tmp_path / "figures.json", points, SETTINGS)
    document = json.loads((tmp_path / "figures.json").read_text())
    assert [each["p99_secs"] for each in document["points"]] == [point.p99_secs, None]
    assert document["settings"]["heartbeat_secs"] == 0.2
    plot_points([point], tmp_path / "figures.png")
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")
