"""The cost of options that trade exactness for speed on the Census example: hardly any."""

import gzip
import threading

import numpy as np
import pytest
import tensorflow as tf

from paramserve.data_plane.lossy.passes import transfer_hooks
from paramserve.data_plane.options import DataPlane, check_combination
from paramserve.data_plane.placement import on_cluster
from paramserve.data_plane.prepare import prepare
from support.static_servers import start_servers

v1 = tf.compat.v1
STEPS, BATCH, WORKERS = 120, 256, 2


@pytest.fixture(scope="module")
def cluster():
    """One parameter server and two workers in this process: sessions' targets, and their config."""
    config = v1.ConfigProto(inter_op_parallelism_threads=2, intra_op_parallelism_threads=1)
    servers = start_servers(ps=1, worker=WORKERS, config=config)
    return [servers["worker", index].target for index in range(WORKERS)], config


class Census:
    """The example's model, its rows as arrays, and a cluster to train it on."""

    def __init__(self, example, cluster):
        self.example, self.settings = example, example.Settings()
        self.targets, self.config = cluster
        self.train_rows, self.test_rows = map(self.read, (example.TRAIN_FILE, example.TEST_FILE))

    def read(self, path):
        with gzip.open(path, "rb") as file:
            lines = file.read().splitlines()[1:]
        with tf.Graph().as_default(), v1.Session() as session:
            features = self.example.features_of(self.settings)(tf.constant(lines))
            return session.run(features)

    def build(self, index):
        """The example's training graph, but for rows that are fed."""
        v1.set_random_seed(self.settings.seed)
        with on_cluster(1, f"/job:worker/task:{index}"):
            step = v1.train.get_or_create_global_step()
            batch = {
                name: v1.placeholder(rows.dtype, [None, *rows.shape[1:]])
                for name, rows in self.train_rows.items()
            }
            logits = self.example.wide_and_deep(batch, self.settings, self.example.dense)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=batch["label"], logits=logits)
            optimizer = v1.train.AdagradOptimizer(self.settings.learning_rate)
            return batch, logits, optimizer.minimize(tf.reduce_mean(losses), step)

    def open(self, index, options):
        """Returns a worker's function that makes a step, and one that ends it."""
        check_combination(options, sync=False)
        graph = tf.Graph()
        with graph.as_default():
            batch, _, train_op = self.build(index)
            init = v1.global_variables_initializer()
            prepare(graph, options, [train_op])
            session = v1.Session(self.targets[index], config=self.config)
            if index == 0:
                session.run(init)
            creator = type("Creator", (), {"create_session": lambda _: session})()
            monitored = v1.train.MonitoredSession(creator, transfer_hooks(options))
        order = np.random.default_rng(index)
        share = np.arange(index, len(self.train_rows["label"]), WORKERS)

        def step():
            rows = order.choice(share, BATCH)
            feed = {tensor: self.train_rows[name][rows] for name, tensor in batch.items()}
            monitored.run(train_op, feed)

        return step, monitored.close

    def train(self, **options):
        """Trains with two workers, in turn, or each at its own pace if that is bounded."""
        workers = [self.open(index, DataPlane(**options)) for index in range(WORKERS)]
        if "max_staleness" in options:
            threads = [
                threading.Thread(target=lambda step=step: [step() for _ in range(STEPS)])
                for step, _ in workers
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        else:
            for _ in range(STEPS):
                for step, _ in workers:
                    step()
        for _, close in workers:
            close()
        return self.evaluate()

    def evaluate(self):
        """Accuracy, area under the ROC curve and mean loss on the test rows."""
        with tf.Graph().as_default():
            batch, logits, _ = self.build(0)
            with v1.Session(self.targets[0], config=self.config) as session:
                feed = {tensor: self.test_rows[name] for name, tensor in batch.items()}
                values = session.run(logits, feed).astype(np.float64)
        positive = self.test_rows["label"] > 0.5
        ranks = np.argsort(np.argsort(values)) + 1
        pairs = positive.sum() * (~positive).sum()
        auc = (ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2) / pairs
        loss = np.mean(np.logaddexp(0, np.where(positive, -values, values)))
        return np.mean((values > 0) == positive), auc, loss


@pytest.fixture(scope="module")
def trained():
    """The result of each way of training; the exact one serves all tests."""
    return {}


@pytest.fixture
def census(load_example, cluster, trained):
    if "census" not in trained:
        trained["census"] = Census(load_example("census/wide_deep.py"), cluster)
        trained["exact"] = trained["census"].train()
    return trained["census"]


def test_the_exact_run_learns(census, trained):
    accuracy, auc, loss = trained["exact"]
    assert 0.83 < accuracy < 0.88
    assert 0.88 < auc < 0.94
    assert loss < 0.36


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"wire_dtype": "bfloat16"}, 0.002),
        ({"stale_pull": True}, 0.005),
        ({"local_steps": 4}, 0.01),
        ({"max_staleness": 4}, 0.005),
        ({"top_k": 0.05}, 0.01),
        ({"wire_dtype": "bfloat16", "stale_pull": True, "top_k": 0.05}, 0.01),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_an_option_costs_hardly_any_accuracy(census, trained, options, tolerance):
    accuracy, auc, loss = census.train(**options)
    exact_accuracy, exact_auc, exact_loss = trained["exact"]
    print(options, "accuracy, auc, loss:", accuracy, auc, loss, "exact:", *trained["exact"])
    assert accuracy == pytest.approx(exact_accuracy, abs=tolerance)
    assert auc == pytest.approx(exact_auc, abs=tolerance)
    assert loss == pytest.approx(exact_loss, abs=2 * tolerance)
