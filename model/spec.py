"""`TrainSpec`, the result of a build function, and `TaskContext`, its argument."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..data_plane.tensors import GradientsAndVariables, Operation, Tensor, Variable
from ..errors import UsageError
from .input.source import InputSource, OpenFile, Read, WholeInput

if TYPE_CHECKING:
    from .input.shard_plan import InputPlan

log = logging.getLogger(__name__)

EvalMetrics = Mapping[str, tuple[Tensor, Tensor]]

LOOPS = ("training", "learn", "model_pruning")


@dataclass(frozen=True)
class TaskContext:
    """The task in which a model is being built.

    Attributes:
        role: "chief", "worker" or "evaluator".
        index: Task index within the role, from 0.
        num_workers: Workers the job was planned with. A worker that joins a running job may
            have an index of `num_workers` or more.
        num_ps: Parameter servers; 0 when everything is local, as in an evaluator.
        sync: True if gradients of the workers are aggregated into common steps.
        params: The user's `--param key=value` options.
        input: Deals the shards of `shards` and `file_shards`; by default the whole input is read
            here.
    """

    role: str = "worker"
    index: int = 0
    num_workers: int = 1
    num_ps: int = 0
    sync: bool = True
    params: Mapping[str, str] = field(default_factory=dict)
    input: InputSource = field(default_factory=WholeInput, repr=False, compare=False)

    @property
    def is_chief(self) -> bool:
        """True in the chief, which builds the graph but runs no input."""
        return self.role == "chief"

    def shards(
        self,
        num_records: int,
        *,
        batch_size: int,
        read: Read | None = None,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        shard_records: int | None = None,
        name: str = "train",
    ) -> Any:
        """Returns the job's common input; each worker reads the part that the chief deals to it.

        Relative to the model, also to one that was restored, each record counts once in an epoch.
        All tasks have to give the same arguments. Example::

            dataset = task.shards(len(labels), batch_size=128, read=batch_of, epochs=3)
            position, (x, y) = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()
            ...
            return TrainSpec(loss=loss, optimizer=optimizer, examples=tf.size(y), position=position)

        Args:
            num_records: Records in one epoch; they are numbered from 0.
            batch_size: Records of a step; the last batch may be smaller.
            read: Makes a batch out of record numbers, an int64 tensor of shape [records], by
                TensorFlow operations, some batches ahead of the steps. A batch for which it fails
                        is tried again, then set aside and reported. None: the numbers are the
                        batch.
            epochs: How often all records are read; None: without end.
            seed: Seed of the order.
            shuffle: True for another order of shards, and of records within a shard, in each epoch;
                False for the order of the numbers.
            shard_records: Records that a worker is dealt at a time, neighbours by number; a
                multiple of `batch_size`. None: of 1 to 16 batches.
            name: Name of the dataset, for people.

        Returns:
            A `tf.data.Dataset` of `(position, batch)`, with the position for `TrainSpec.position`.

        Raises:
            UsageError: A number is out of range, or there are too few shards for the workers.
        """
        # Not above: NumPy's threads would take the signals of a process that only has options read.
        from .input.datasets import make_dataset
        from .input.shard_plan import InputPlan, choose_shard_records

        if shard_records is None:
            shard_records = choose_shard_records(num_records, batch_size)
        plan = InputPlan(name, num_records, batch_size, shard_records, epochs, seed, shuffle)
        self._check_share(plan)
        return make_dataset(plan, self.input, read=read)

    def files(
        self,
        files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        batch_size: int,
        format: str | None = None,
        read: Read | None = None,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        header: bool | None = None,
        columns: Sequence[str] | None = None,
        shard_records: int | None = None,
        name: str = "train",
    ) -> Any:
        """Works as `shards`, with records of files, which are counted once for all tasks and runs.

        The index is kept in the log directory. A worker reads a range of a file at a time, so one
        file is enough for many workers; a compressed file (`.gz`) is read by one. Example::

            dataset = task.files("data/part-*.csv", batch_size=128, read=parse, epochs=3)
            position, (x, y) = tf.compat.v1.data.make_one_shot_iterator(dataset).get_next()

        Args:
            files: Names, or patterns with `*`, `?`, `[...]` and `**`: paths, or URLs of a file
                system that TensorFlow (`gs://`) or fsspec (`s3://`) has.
            batch_size: Records of a step, all of one file; the last batch of a file may be smaller.
            format: "tfrecord", "csv", "jsonl" or "parquet"; None: by the endings of the files'
                names.
            read: Makes a batch from a batch of records. These are a string tensor of shape
                [records]: serialized strings (tfrecord), or lines (jsonl) or rows (csv) without
                line ends. With parquet they are a tensor of shape [records] for each column, by its
                name. None: the records are the batch. Failures are treated as in `shards`.
            epochs: As in `shards`.
            seed: As in `shards`.
            shuffle: True for another order of the ranges in each epoch. Within a range, records
                come in the file's order.
            header: CSV: True if the first line of each file names the columns, and is no record.
                None: True, with an error if the line does not look like names.
            columns: Parquet: names of the columns to read; None: all.
            shard_records: Records of a range; a multiple of `batch_size`. None: of 1 to 16 batches.
                Ranges of Parquet files begin with a row group.
            name: Name of the dataset, for people.

        Returns:
            A `tf.data.Dataset` of `(position, batch)`, with the position for `TrainSpec.position`.

        Raises:
            UsageError: No file matches, one is damaged or has changed since the checkpoint that the
                job continues from, or a number is out of range.
        """
        from .input.datasets import make_dataset
        from .input.file_index import FileQuery
        from .input.files import IndexedFiles
        from .input.shard_plan import InputPlan, choose_shard_records

        patterns = [files] if isinstance(files, str | os.PathLike) else files
        names = tuple(str(each) for each in patterns)
        query = FileQuery(names, format or "", header, tuple(columns or ()))
        index = self.input.find_files(query)
        size = shard_records or choose_shard_records(index.records, batch_size)
        parts = index.cut(size)
        total = index.records
        plan = InputPlan(name, total, batch_size, size, epochs, seed, shuffle, parts)
        self._tell_readers(plan)
        return make_dataset(plan, self.input, read=read, files=IndexedFiles(index, query))

    def file_shards(
        self,
        files: Mapping[str, int],
        open_file: OpenFile,
        *,
        batch_size: int,
        read: Read | None = None,
        epochs: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        name: str = "train",
    ) -> Any:
        """Works as `files`, for any format, with files that a worker reads one at a time.

        A file that is missing, or has another number of records, ends the job.

        Args:
            files: Number of records of each file, by its name.
            open_file: Makes the dataset of a file's records in their order, such as
                `tf.data.TFRecordDataset`. It should not parse them: that is for `read`.
            batch_size: Records of a step, all of one file; its last batch may be smaller.
            read: Makes a batch out of a batch of records; otherwise as in `shards`. None: they are
                the batch.
            epochs: As in `shards`.
            seed: As in `shards`.
            shuffle: True for another order of the files in each epoch.
            name: Name of the dataset, for people.

        Returns:
            A `tf.data.Dataset` of `(position, batch)`, with the position for `TrainSpec.position`.

        Raises:
            UsageError: A number is out of range, or a file does not exist.
        """
        from .input.datasets import make_dataset
        from .input.files import GivenFiles, check_presence
        from .input.shard_plan import FilePart, InputPlan

        if not files:
            raise UsageError(f"dataset {name!r} has no files: give at least one")
        if empty := [file for file, records in files.items() if records < 1]:
            raise UsageError(f"file {empty[0]!r} has {files[empty[0]]} records: leave it out")
        parts = tuple(FilePart(*each) for each in files.items())
        total = sum(files.values())
        plan = InputPlan(name, total, batch_size, 0, epochs, seed, shuffle, parts)
        if not self.is_chief:  # Which reads no input, and may be on another host.
            check_presence(list(files))
        self._tell_readers(plan)
        return make_dataset(plan, self.input, read=read, files=GivenFiles(open_file))

    def _tell_readers(self, plan: InputPlan) -> None:
        if self.is_chief and plan.num_shards < self.num_workers:
            log.warning(
                "dataset %r has %d files or parts of files to read at a time: of %d workers, others"
                " wait",
                plan.name,
                plan.num_shards,
                self.num_workers,
            )

    def _check_share(self, plan: InputPlan) -> None:
        # One shard for each worker to read, and one to take next.
        if self.num_workers > 1 and plan.num_shards < 2 * self.num_workers:
            raise UsageError(
                f"dataset {plan.name!r} has {plan.num_shards} shards for {self.num_workers} "
                f"workers, expected 2 for each: give a smaller shard_records or batch_size"
            )


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """A model ready to be trained: the result of `build(task)`.

    The build function runs inside a fresh graph whose device scope puts variables on the parameter
    servers and all else on the task. The global step exists already
    (`tf.compat.v1.train.get_global_step()`). A ten-line model::

        def build(task):
            x, y = input_for(task.index)
            w = tf.compat.v1.get_variable("w", [10])
            loss = tf.reduce_mean((tf.linalg.matvec(x, w) - y) ** 2)
            return TrainSpec(
                loss=loss,
                optimizer=tf.compat.v1.train.GradientDescentOptimizer(0.1),
                examples=tf.shape(x)[0],
            )

    Attributes:
        loss: Scalar float tensor, the mean over the examples of one worker's step.
        optimizer: A `tf.compat.v1.train.Optimizer`; the service computes, aggregates (sync
            mode) and applies its gradients. Give this or `train_op`.
        train_op: Operation or tensor that makes one training step and increments the global
            step, for models with an update of their own. Async only: the service cannot aggregate
            gradients that it does not see.
        examples: Examples in one worker's step: an int, or a scalar integer tensor.
        position: Position of the step's batch, from `TaskContext.shards`; an int64 tensor of
            shape [3], or [batches, 3] for several batches. None: the input is the model's own.
        variables: Variables to train; by default the graph's trainable variables (of
            `keras_model` if that is given).
        keras_model: A Keras 3 model called in the build function. Its state updates (moving
            averages, seed generators) run with each step.
        metrics: Name to scalar tensor, reported beside the loss.
        hooks: `tf.compat.v1.train.SessionRunHook` instances, run in every worker.
        transform_gradients: Called with the `(gradient, variable)` pairs of one worker and
            returns those to apply: clipping, multipliers.
        evaluate: Called with a `TaskContext` of role "evaluator" in a fresh graph; builds the
            model on evaluation data, with variables of the same names, and returns name to
            `(value, update_op)` as `tf.compat.v1.metrics` functions do. The updates run until
            the input ends.
        loop: Name of the workers' training loop: "training", "learn" or "model_pruning", those of
            `paramserve.contrib`.
        loop_args: Arguments of that loop's `train` function, by name. Omitted arguments follow the
            job's options, or else their documentation. Arguments about the place (master, chief,
            waiting, directory) come from the task; `chief_only_hooks`, and monitors that run in the
            chief only, run in the first worker.
    """

    loss: Tensor
    optimizer: Any = None
    train_op: Operation | Tensor | None = None
    examples: Tensor | int = 1
    position: Tensor | None = None
    variables: Sequence[Variable] | None = None
    keras_model: Any = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    hooks: Sequence[Any] = ()
    transform_gradients: Callable[[GradientsAndVariables], GradientsAndVariables] | None = None
    evaluate: Callable[[TaskContext], EvalMetrics] | None = None
    loop: str = "training"
    loop_args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loop not in LOOPS:
            raise UsageError(f"TrainSpec.loop={self.loop!r}, expected one of {', '.join(LOOPS)}")
        if (self.optimizer is None) == (self.train_op is None):
            given = "neither" if self.optimizer is None else "both"
            raise UsageError(f"TrainSpec needs either optimizer= or train_op=, got {given}")
        if isinstance(self.train_op, (list, tuple, dict)):
            raise UsageError(
                f"TrainSpec.train_op is a {type(self.train_op).__name__}, expected one operation "
                "or tensor: give tf.group(*operations)"
            )


BuildFn = Callable[[TaskContext], TrainSpec]
