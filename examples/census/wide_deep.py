"""Wide & deep on the Census Income data: who earns more than 50,000 dollars a year?

Plain TensorFlow graph code. The wide part is one weight for each category, bucket and crossing
of categories; it memorizes. The deep part is a small network over embeddings of the categories
and over the numbers; it generalizes. Their logits are added (Cheng et al. 2016,
https://arxiv.org/abs/1606.07792). Run it with::

    paramserve run examples/census/wide_deep.py:build --ps 2 --workers 2 --max-steps 2000
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from paramserve import TaskContext, TrainSpec

v1 = tf.compat.v1

# TensorFlow is untyped; the names document the meaning.
Tensor = Any
Batch = dict[str, Tensor]
# Makes a fully connected layer of inputs, units and a name.
Layer = Callable[[Tensor, int, str], Tensor]

DATA = Path(__file__).resolve().parent / "data"
TRAIN_FILE = DATA / "train.csv.gz"
TEST_FILE = DATA / "test.csv.gz"
LABEL = "income_over_50k"
# In the order of the file.
COLUMNS = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education_num",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital_gain",
    "capital_loss",
    "hours_per_week",
    "native_country",
    LABEL,
)
CATEGORIES = (
    "workclass",
    "education",
    "marital_status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native_country",
)
# `fnlwgt`, the weight of a person in the census sample, says nothing about the person.
NUMBERS = ("age", "education_num", "hours_per_week", "capital_gain", "capital_loss")
# Most are 0 and some are 99,999: without a logarithm they are all there is to see.
LOGARITHMIC = ("capital_gain", "capital_loss")

BUCKETS = {
    "age": [18, 22, 25, 28, 31, 35, 40, 45, 50, 55, 60, 65],
    "hours_per_week": [20, 30, 36, 40, 41, 46, 51, 60],
    "capital_gain": [1, 3000, 4000, 5000, 5500, 7000, 8000, 10000, 15000, 20000],
    "capital_loss": [1, 1500, 1600, 1750, 1850, 1900, 1980, 2200, 2400],
}
CROSSINGS = (
    ("education", "occupation"),
    ("education", "marital_status"),
    ("occupation", "marital_status"),
    ("workclass", "occupation"),
    ("relationship", "sex"),
    ("age", "relationship"),
    ("age", "education"),
    ("age", "hours_per_week"),
    ("hours_per_week", "occupation"),
    ("native_country", "education"),
)


@dataclass(frozen=True)
class Settings:
    """Settings for `--param name=value`.

    Attributes:
        batch_size: Rows in one worker's step.
        learning_rate: Of Adagrad.
        wide_buckets: Weights of the wide part; every feature is hashed to one of them.
        embedding_buckets: Rows of the table of embeddings, likewise.
        embedding_size: Floats in an embedding.
        hidden_units: Of the first hidden layer; the second has half as many.
        seed: Of the initial weights and the order of the rows.
    """

    batch_size: int = 128
    learning_rate: float = 0.1
    wide_buckets: int = 20_000
    embedding_buckets: int = 2_000
    embedding_size: int = 8
    hidden_units: int = 64
    seed: int = 1

    @classmethod
    def parse(cls, params: Mapping[str, str]) -> Settings:
        """Reads `--param` values.

        Raises:
            ValueError: A name is not known, or a value is no number above zero.
        """
        kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(cls)}
        given = {}
        for name, text in params.items():
            if name not in kinds:
                raise ValueError(f"unknown --param {name}={text}; known are {', '.join(kinds)}")
            try:
                given[name] = kinds[name](text)
            except ValueError:
                given[name] = math.nan
            if not 0 < given[name] < math.inf:
                kind = "a whole number" if kinds[name] is int else "a number"
                raise ValueError(
                    f"--param {name}={text}: expected {kind} above 0, "
                    f"for example {name}={getattr(cls, name)}"
                )
        return cls(**given)


def build(task: TaskContext) -> TrainSpec:
    """Builds the training graph of one task.

    Raises:
        ValueError: A `--param` is unknown or malformed.
    """
    return train_spec(task, dense)


def train_spec(task: TaskContext, layer: Layer) -> TrainSpec:
    """Builds the training graph with any kind of layer."""
    settings = Settings.parse(task.params)
    v1.set_random_seed(settings.seed)
    batch = v1.data.make_one_shot_iterator(training_batches(task, settings)).get_next()
    logits = wide_and_deep(batch, settings, layer)
    labels = batch["label"]
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))
    accuracy = tf.reduce_mean(tf.cast(tf.equal(logits > 0, labels > 0.5), tf.float32))

    v1.summary.scalar("batch/accuracy", accuracy)
    v1.summary.scalar("batch/mean_prediction", tf.reduce_mean(tf.sigmoid(logits)))
    v1.summary.histogram("batch/logits", logits)
    return TrainSpec(
        loss=loss,
        optimizer=v1.train.AdagradOptimizer(settings.learning_rate),
        examples=tf.size(labels),
        metrics={"accuracy": accuracy},
        evaluate=lambda evaluator: evaluation(evaluator, layer),
    )


def evaluate(task: TaskContext) -> dict[str, tuple[Tensor, Tensor]]:
    """Builds the evaluation graph: every test row once.

    Returns:
        Name to (value, update operation): accuracy, area under the ROC curve, count of rows.
    """
    return evaluation(task, dense)


def evaluation(task: TaskContext, layer: Layer) -> dict[str, tuple[Tensor, Tensor]]:
    """Builds the evaluation graph with any kind of layer."""
    settings = Settings.parse(task.params)
    dataset = lines(TEST_FILE).batch(1024).map(features_of(settings))
    batch = v1.data.make_one_shot_iterator(dataset).get_next()
    logits = wide_and_deep(batch, settings, layer)
    labels = batch["label"] > 0.5
    rows = v1.get_local_variable("rows", [], tf.int64, initializer=v1.zeros_initializer())
    return {
        "accuracy": v1.metrics.accuracy(labels, logits > 0),
        "auc": v1.metrics.auc(labels, tf.sigmoid(logits), num_thresholds=1000),
        "rows": (rows.read_value(), rows.assign_add(tf.size(labels, tf.int64))),
    }


# The input: from lines of text to numbers and ids.


def lines(path: Path) -> Any:
    """Returns the dataset of a file's lines, without the header."""
    return tf.data.TextLineDataset(str(path), compression_type="GZIP").skip(1)


def training_batches(task: TaskContext, settings: Settings) -> Any:
    """Returns the dataset of batches of this worker's share of the rows, shuffled, without end."""
    # A worker that joins late has an index beyond the planned number, and shares a share.
    share = lines(TRAIN_FILE).shard(task.num_workers, task.index % task.num_workers)

    def shuffled(features: Batch) -> Any:
        count = tf.size(features["label"], tf.int64)
        order = tf.data.Dataset.range(count).shuffle(count, seed=settings.seed + task.index)
        order = order.repeat().batch(settings.batch_size)
        return order.map(lambda rows: {k: tf.gather(v, rows) for k, v in features.items()})

    # The share is small: it is parsed once, as one huge batch, and row numbers are shuffled.
    whole = share.batch(1_000_000).map(features_of(settings))
    return whole.flat_map(shuffled).prefetch(2)


def features_of(settings: Settings) -> Callable[[Tensor], Batch]:
    """Returns the function from a batch of lines, a string vector, to the model's input."""
    means, deviations = number_statistics()

    def features(batch: Tensor) -> Batch:
        defaults = [[0.0] if name in (*NUMBERS, LABEL) else [""] for name in COLUMNS]
        columns = dict(zip(COLUMNS, tf.io.decode_csv(batch, defaults), strict=True))
        numbers = [tf.math.log1p(columns[n]) if n in LOGARITHMIC else columns[n] for n in NUMBERS]
        categories = {name: columns[name] for name in CATEGORIES}
        buckets = {name: bucket(columns[name], edges) for name, edges in BUCKETS.items()}
        return {
            "label": columns[LABEL],
            "numbers": (tf.stack(numbers, axis=1) - means) / deviations,
            "deep_ids": hashed(categories, settings.embedding_buckets),
            "wide_ids": hashed(crossed(categories | buckets), settings.wide_buckets),
        }

    return features


def bucket(numbers: Tensor, edges: list[int]) -> Tensor:
    """Returns for each number, as a string, how many of the edges it has reached."""
    reached = tf.searchsorted(tf.constant(edges, tf.float32), numbers, side="right")
    return tf.strings.as_string(reached)


def crossed(columns: Batch) -> Batch:
    """Adds the crossings to the columns: "Bachelors x Sales" is a feature of its own."""
    crossings = {
        " x ".join(names): tf.strings.join([columns[name] for name in names], " x ")
        for names in CROSSINGS
    }
    return {**columns, **crossings}


def hashed(columns: Batch, buckets: int) -> Tensor:
    """Hashes "name=value" of each column; returns int64 ids of shape (batch, columns)."""
    named = [tf.strings.join([name, value], "=") for name, value in columns.items()]
    return tf.strings.to_hash_bucket_fast(tf.stack(named, axis=1), buckets)


def number_statistics() -> tuple[Any, Any]:
    """Returns means and standard deviations of `NUMBERS` in the training rows, as float vectors."""
    with gzip.open(TRAIN_FILE, "rt", newline="") as file:
        next(file)
        numbers = np.loadtxt(file, delimiter=",", usecols=[COLUMNS.index(n) for n in NUMBERS])
    logarithmic = np.isin(NUMBERS, LOGARITHMIC)
    numbers[:, logarithmic] = np.log1p(numbers[:, logarithmic])
    return numbers.mean(axis=0).astype(np.float32), numbers.std(axis=0).astype(np.float32)


# The model.


def wide_and_deep(batch: Batch, settings: Settings, layer: Layer) -> Tensor:
    """Returns the logits, a float vector, of a batch."""
    return wide(batch, settings) + deep(batch, settings, layer)


def wide(batch: Batch, settings: Settings) -> Tensor:
    """Makes a linear model over the features and their crossings; the deep part has its bias."""
    with v1.variable_scope("wide"):
        weights = v1.get_variable(
            "weights", [settings.wide_buckets], initializer=v1.zeros_initializer()
        )
        return tf.reduce_sum(tf.gather(weights, batch["wide_ids"]), axis=1)


def deep(batch: Batch, settings: Settings, layer: Layer) -> Tensor:
    """Makes a network over embeddings of the categories and over the standardized numbers."""
    size = settings.embedding_size
    with v1.variable_scope("deep"):
        table = v1.get_variable(
            "embeddings",
            [settings.embedding_buckets, size],
            initializer=v1.random_normal_initializer(stddev=0.1),
        )
        embedded = tf.reshape(tf.gather(table, batch["deep_ids"]), [-1, len(CATEGORIES) * size])
        hidden = tf.concat([embedded, batch["numbers"]], axis=1)
        hidden = tf.nn.relu(layer(hidden, settings.hidden_units, "hidden_1"))
        hidden = tf.nn.relu(layer(hidden, settings.hidden_units // 2, "hidden_2"))
        return tf.squeeze(layer(hidden, 1, "logit"), axis=1)


def dense(inputs: Tensor, units: int, name: str) -> Tensor:
    """Adds a fully connected layer."""
    with v1.variable_scope(name):
        kernel = v1.get_variable("kernel", [inputs.shape[1], units])
        bias = v1.get_variable("bias", [units], initializer=v1.zeros_initializer())
        return tf.matmul(inputs, kernel) + bias
