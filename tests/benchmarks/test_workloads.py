"""The workloads have the shapes that they are named after, and train in every framework."""

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from paramserve.benchmarks.programs.graph import build_step
from paramserve.benchmarks.workloads.catalog import find_workload, workload_names
from paramserve.benchmarks.workloads.embeddings import ROWS, zipf_ids
from paramserve.errors import UsageError

v1 = tf.compat.v1
# Tables of 166 MB would only make the test slow.
SMALL = ("variables-6", "mebibytes-1")


@pytest.mark.parametrize(
    ("name", "count", "floats", "largest"),
    [
        ("many-small", 200, 100 * (64 * 64 + 64), 64 * 64),
        ("wide", 3, 3 * 2048 * 2048, 2048 * 2048),
        # The published numbers of parameters.
        ("resnet50", 161, 25_557_032, 512 * 512 * 9),
        ("vgg", 32, 138_357_544, 411_041_792 // 4),
        (
            "tables",
            32,
            26 * 100_000 * 16 + 417 * 256 - 256 + 256 + 256 * 128 + 128 + 129,
            1_600_000,
        ),
        ("pull-push", 64, (64 << 20) // 4, (1 << 20) // 4),
        ("variables-7", 7, 4 * 64 * 64 + 3 * 64, 64 * 64),
        ("mebibytes-8", 16, (8 << 20) // 4, (1 << 19) // 4),
    ],
)
def test_shapes(name, count, floats, largest):
    workload = find_workload(name)
    sizes = [variable.bytes // 4 for variable in workload.variables]
    assert (len(sizes), sum(sizes), max(sizes)) == (count, floats, largest)
    assert len({variable.name for variable in workload.variables}) == count


def test_resnet_is_97_mebibytes():
    assert find_workload("resnet50").bytes / 2**20 == pytest.approx(97.5, abs=0.1)


def test_a_step_counts_only_the_dense_bytes():
    tables = find_workload("tables")
    layers = sum(v.bytes for v in tables.variables if not v.name.startswith("table_"))
    assert tables.bytes_per_step == 2 * layers
    assert find_workload("pull").bytes_per_step == 64 << 20
    assert find_workload("pull-push").bytes_per_step == 2 * 64 << 20


@pytest.mark.parametrize("name", ["nothing", "variables-0", "variables-99999", "mebibytes-"])
def test_unknown_names(name):
    with pytest.raises(UsageError, match=name):
        find_workload(name)


def test_every_name_is_a_workload():
    assert [find_workload(name).name for name in workload_names()] == list(workload_names())


def test_zipf_ids_repeat_the_frequent_ones():
    ids = zipf_ids(np.random.default_rng(0), (20_000,))
    assert ids.dtype == np.int32
    assert 0 <= ids.min() <= ids.max() < ROWS
    _, counts = np.unique(ids, return_counts=True)
    counts = np.sort(counts)[::-1]
    assert len(counts) < len(ids) / 2
    # The most frequent is about 2 ** 1.1 times as frequent as the second.
    assert 1.8 < counts[0] / counts[1] < 2.5


@pytest.mark.parametrize("name", SMALL)
def test_a_step_changes_every_variable(name):
    workload = find_workload(name)
    with tf.Graph().as_default(), v1.Session() as session:
        train_op, step = build_step(workload, lambda: v1.train.GradientDescentOptimizer(0.1), "")
        session.run(v1.global_variables_initializer())
        variables = v1.trainable_variables()
        before = session.run(variables)
        session.run(train_op)
        after = session.run(variables)
        assert session.run(step) == 1
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["pull", "push", "pull-push-1"])
def test_a_transfer_adds_to_what_is_pushed(name):
    workload = find_workload(name)
    with tf.Graph().as_default(), v1.Session() as session:
        train_op, step = build_step(workload, lambda: None, "")
        session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
        for _ in range(2):
            session.run(train_op)
        assert session.run(step) == 2
        first = session.run(v1.trainable_variables()[0])
    assert (first != 0).all() == (name != "pull")


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
@pytest.mark.parametrize("name", ["variables-6", "mebibytes-1", "tables", "dlrm"])
def test_both_frameworks_compute_the_same_gradients(name):
    import torch

    workload = find_workload(name)
    random = np.random.default_rng(1)
    values = {
        spec.name: random.uniform(-spec.scale, spec.scale, spec.shape).astype(np.float32)
        for spec in workload.variables
    }
    batch = {key: pool[0] for key, pool in workload.input_pool().items()}

    constants = {key: tf.constant(value) for key, value in values.items()}
    with tf.GradientTape() as tape:
        tape.watch(constants)
        loss = workload.tf_loss(constants, {key: tf.constant(v) for key, v in batch.items()})
    expected = tape.gradient(loss, constants)

    leaves = {key: torch.tensor(value, requires_grad=True) for key, value in values.items()}
    tensors = {key: torch.as_tensor(value) for key, value in batch.items()}
    workload.torch_loss(leaves, tensors).backward()
    for key, leaf in leaves.items():
        mine, theirs = tf.convert_to_tensor(expected[key]).numpy(), leaf.grad.to_dense().numpy()
        # A unit whose sum is all but 0 may be on in one and off in the other.
        assert np.linalg.norm(mine - theirs) <= 0.01 * np.linalg.norm(theirs), key
