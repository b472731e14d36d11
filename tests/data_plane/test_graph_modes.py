"""The passes give the weights of the plain graph in all graph modes of TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROWS_AND_BRANCHES = {
    "sparse/test_deduplication.py": "test_partitioned_tables or test_ids_of_any_shape",
    "test_coalescing.py": "test_batches_of_unknown_size or test_variables_that_only_a_branch",
}
ANY_GRAPH = {"test_random_graphs.py": "test_weights_and_values_are_the_same"}
TABLES = {
    "sparse/test_deduplication.py": "test_rows_cross_once",
    "flat/test_tables.py": "test_ids_of_any_shape or test_a_batch_whose_size_changes",
    "lossy/test_combinations.py": "test_together_they_still_learn",
}


@pytest.mark.parametrize(
    ("mode", "stories"),
    [
        ("disable_eager_execution", ROWS_AND_BRANCHES),
        ("disable_v2_behavior", ROWS_AND_BRANCHES | ANY_GRAPH),
        # Shapes and control flow of version 1, but variables that can be stored together.
        ("disable_v2_behavior,enable_resource_variables", TABLES | ANY_GRAPH),
    ],
)
def test_in_other_modes(mode, stories):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.support.graph_mode"]
    chosen = ["-p", "no:cacheprovider", "-k", " or ".join(stories.values())]
    done = subprocess.run(
        [*command, *chosen, *(str(FOLDER / name) for name in stories)],
        cwd=FOLDER.parents[1],
        env={**os.environ, "GRAPH_MODE": mode},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-5000:]
