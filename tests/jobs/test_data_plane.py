"""Jobs of real processes with other ways to store parameters and to send tensors."""

import pytest
import tensorflow as tf

from paramserve import DataPlane, Job

from .conftest import LINEAR


@pytest.fixture
def train(logdir):
    """Runs a job with 2 workers in one directory, from its checkpoint on."""

    def train(max_steps, *, num_ps=2, sync=True, **data_plane):
        return Job(
            LINEAR,
            logdir=str(logdir),
            launcher="process",
            num_ps=num_ps,
            num_workers=2,
            sync=sync,
            max_steps=max_steps,
            data_plane=DataPlane(**data_plane),
        ).run()

    return train


@pytest.mark.faults
def test_storage_and_number_of_servers_may_change_between_runs(train):
    """Sync: 2 x 10 examples a step, all counted; the loss continues to fall."""
    flat = train(30, storage="flat")
    names = dict(tf.train.list_variables(flat.checkpoint))
    plain = train(60, num_ps=1, wire_dtype="bfloat16")
    again = train(90, storage="flat", transfer_bucket_bytes=0)
    assert [run.global_step for run in (flat, plain, again)] == [30, 60, 90]
    per_step = flat.examples / 30
    assert [run.examples for run in (plain, again)] == [60 * per_step, 90 * per_step]
    assert dict(tf.train.list_variables(again.checkpoint)) == names
    assert again.loss < flat.loss


def test_async_options_train(train):
    first = train(60, sync=False, storage="flat", stale_pull=True, max_staleness=4)
    second = train(200, sync=False, local_steps=2, num_ps=1)
    assert 60 <= first.global_step <= 62
    assert 200 <= second.global_step <= 204
    assert second.loss < first.loss
