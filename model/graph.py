"""`TrainGraph`: the graph that a chief and its workers build from a build function.

Chief and workers each build the graph for themselves, in the same order, so the same variables
land on the same parameter servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ..cluster.chief_client import JobStopping
from ..cluster.spec import Role
from ..data_plane.graph_collections import forget_unrunnable, merge_summaries
from ..data_plane.options import DataPlane
from ..data_plane.placement import ServerLoad, on_cluster, server_loads
from ..data_plane.sync.builder import SyncOps
from ..data_plane.sync.dealer import TokenPlan
from ..data_plane.tensors import GradientsAndVariables, Operation, Tensor, Variable
from ..errors import ParamserveError, UsageError
from ..loops.loop import Loop, LoopContext
from ..reasons import as_failure
from .building import refuse_sync_replicas, refuse_sync_steps, refused_eager_calls, untuned
from .input.applied_counts import Counters, InputCounts, find_counts
from .job_options import JobDefaults
from .keras_updates import collect_updates, constant_writes, reset_names, trainable_values
from .loops import make_loop
from .savers import JobSaver, make_saver
from .spec import BuildFn, TaskContext, TrainSpec

v1 = tf.compat.v1

# The service's own variable: examples applied over the model's whole life.
EXAMPLES = "paramserve/examples"


@dataclass(frozen=True)
class TrainGraph:
    """A graph with the operations that the processes of a job run in it.

    Attributes:
        graph: The `tf.Graph`.
        spec: The result of the build function.
        loop: The training loop that it names.
        global_step: int64 scalar variable on the first parameter server.
        examples: int64 scalar variable: examples applied over the model's whole life.
        train_op: One step of a worker, as an operation.
        step_after: int64 scalar, the global step once `train_op` is done.
        step_examples: int64 scalar, examples of this worker's step.
        input: The input that it reads in shards, with the counts of its batches; None: none.
        sync: Sync mode's operations; None in async mode.
        summary_op: The model's merged summaries (serialized); None when it has none.
        init_op: Initializes the variables on the parameter servers; the model's own, if it has one.
        init_own: Initializes, by name, variables that an init op of the model's own cannot know:
            the service's variables, and those that were made after the model, such as slots.
        local_init_op: Initializes the task's own variables.
        local_init_with_tables: The same, and lookup tables and dataset iterators, which only a
            task that runs the model needs.
        uninitialized: Names of the global variables that are not initialized. In workers, only of
            one on each server: a server that has started again has none of them.
        chief_saver: Saves and restores everything, under the model's own names; None in workers.
        num_ps: Parameter servers that the variables are spread over.
        layout: Counts changes of that number in a job.
        loads: The load of each parameter server, optimizer slots included, by its index.
    """

    graph: Any
    spec: TrainSpec
    loop: Loop
    global_step: Variable
    examples: Variable
    train_op: Operation
    step_after: Tensor
    step_examples: Tensor
    input: InputCounts | None
    sync: SyncOps | None
    summary_op: Tensor | None
    init_op: Operation
    init_own: dict[str, Operation]
    local_init_op: Operation
    local_init_with_tables: Operation
    uninitialized: Tensor
    chief_saver: JobSaver | None
    num_ps: int
    layout: int = 0
    loads: dict[int, ServerLoad] = field(default_factory=dict)

    @property
    def saver(self) -> Any:
        """The `tf.compat.v1.train.Saver` of `job_saver`."""
        return self.job_saver.saver

    @property
    def job_saver(self) -> JobSaver:
        """The chief's saver."""
        assert self.chief_saver is not None, "only the chief saves"
        return self.chief_saver

    def container(self) -> AbstractContextManager[Any]:
        """Separates the state of ops made inside from that of other layouts."""
        return _container(self.graph, self.layout)

    @property
    def steps(self) -> tuple[Operation, ...]:
        """The operations that workers and chief run in each step."""
        return (self.train_op, *((self.sync.apply_step,) if self.sync else ()))


@dataclass(frozen=True, kw_only=True)
class GraphOptions:
    """The job's options for the graph of a task.

    Attributes:
        aggregate: Gradients per global step in sync mode; 0: one of each worker.
        defaults: The job's options, for arguments that the model omits.
        data_plane: How parameters are stored and cross between tasks.
    """

    aggregate: int = 0
    defaults: JobDefaults = field(default_factory=JobDefaults)
    data_plane: DataPlane = field(default_factory=DataPlane)


def build_train_graph(
    build: BuildFn,
    context: TaskContext,
    *,
    worker_device: str,
    options: GraphOptions | None = None,
    task: LoopContext | None = None,
    layout: int = 0,
) -> TrainGraph:
    """Builds the model and everything around it for one task.

    Args:
        build: The user's build function.
        context: The task's context, handed to `build`.
        worker_device: Device of all ops that are not on a parameter server: "/job:worker/task:0".
        options: The job's options; None: the usual ones.
        task: The context of the training loop; None: a chief that starts from the beginning.
        layout: Counts changes of the number of parameter servers in this job. State of different
            layouts may lie on the same server at one time, under the same names.

    Raises:
        UsageError: The build function raised, returned something else than a `TrainSpec`, or
            the model has nothing to train.
    """
    options, task = options or GraphOptions(), task or LoopContext()
    data_plane, defaults = options.data_plane, options.defaults
    is_chief = context.role == Role.CHIEF
    reset_names()
    graph = tf.Graph()
    with (
        graph.as_default(),
        _container(graph, layout),
        on_cluster(context.num_ps, worker_device, max_shard_bytes=data_plane.max_shard_bytes),
    ):
        global_step = v1.train.get_or_create_global_step()
        # Not by `get_variable`: a model may initialize all variables of that kind from a
        # checkpoint.
        examples = v1.Variable(tf.zeros([], tf.int64), trainable=False, name=EXAMPLES)
        spec = _call(build, context)
        known = {variable.ref() for variable in v1.global_variables()}
        with _explaining("the training operations could not be built"):
            counters = Counters(
                global_step, examples, find_counts(graph, spec.position, global_step.device)
            )
            train = _train_ops(spec, context, counters, options)
            refuse_sync_steps()
            with tf.control_dependencies([train["train_op"]]):
                train_op = tf.identity(spec.loss, name="train_op")
        with _explaining(f"the training loop {spec.loop!r} could not be made"):
            loop = make_loop(
                spec, train_op=train_op, global_step=global_step, task=task, defaults=defaults
            )
        with _explaining("the model's saver cannot save the whole model"):
            chief_saver = (
                make_saver(loop.scaffold, worker_device, defaults.keep_checkpoints)
                if is_chief
                else None
            )
        return TrainGraph(
            num_ps=context.num_ps,
            layout=layout,
            graph=graph,
            spec=spec,
            loop=loop,
            global_step=global_step,
            examples=examples,
            step_examples=_scalar_int64(spec.examples),
            input=counters.input,
            summary_op=_chosen(loop.scaffold.summary_op, merge_summaries),
            chief_saver=chief_saver,
            loads=server_loads(v1.global_variables()),
            **train,
            **_init_ops(
                loop, known - {variable.ref() for variable in counters.variables}, every=is_chief
            ),
        )


@contextmanager
def _explaining(what: str) -> Iterator[None]:
    """Converts errors of the user's code into a `UsageError` of one line with the place."""
    try:
        yield
    except (ParamserveError, JobStopping):
        raise
    except Exception as error:
        raise as_failure(what, error) from error


def _call(build: BuildFn, context: TaskContext) -> TrainSpec:
    with _explaining("the build function failed"), untuned(), refused_eager_calls():
        spec = build(context)
    if not isinstance(spec, TrainSpec):
        raise UsageError(
            f"the build function returned {type(spec).__name__}, expected a paramserve.TrainSpec"
        )
    if not tf.is_tensor(spec.loss):
        raise UsageError(
            f"TrainSpec.loss is a {type(spec.loss).__name__}, expected a scalar tensor"
        )
    if spec.optimizer is not None and not hasattr(spec.optimizer, "compute_gradients"):
        kind = type(spec.optimizer)
        raise UsageError(
            f"TrainSpec.optimizer is a {kind.__module__}.{kind.__name__}, expected one of "
            "tf.compat.v1.train, for example tf.compat.v1.train.AdamOptimizer()"
        )
    if spec.loss.shape.rank != 0:
        raise UsageError(f"TrainSpec.loss has shape {spec.loss.shape}, expected a scalar")
    refuse_sync_replicas(spec)
    return spec


def _train_ops(
    spec: TrainSpec,
    context: TaskContext,
    counters: Counters,
    options: GraphOptions,
) -> dict[str, Any]:
    forget_unrunnable(spec.loss.graph, v1.GraphKeys.UPDATE_OPS)
    updates = [*v1.get_collection(v1.GraphKeys.UPDATE_OPS), *_keras_updates(spec)]
    count = _scalar_int64(spec.examples)
    sync = None
    if spec.train_op is not None:
        if context.sync:
            raise UsageError("TrainSpec.train_op cannot be aggregated: give optimizer=, or --async")
        step = _counted(spec.train_op, counters, count)
    elif context.sync:
        sync = SyncOps(
            _gradients(spec),
            counters.global_step,
            TokenPlan.of_job(options.aggregate, context.num_workers),
            optimizer=spec.optimizer,
            examples=counters.examples,
            examples_in_step=count,
            worker=context.index,
            input_counts=counters.input,
            bucket_bytes=options.data_plane.transfer_bucket_bytes,
        )
        step = sync.train_op
    else:
        apply = spec.optimizer.apply_gradients(_gradients(spec), counters.global_step)
        step = _counted(apply, counters, count)
    with tf.control_dependencies([step]):
        after = sync.token_step if sync else tf.identity(counters.global_step.read_value())
    return {"train_op": tf.group(step, *updates), "step_after": after, "sync": sync}


def _counted(train_op: Any, counters: Counters, count: Tensor) -> Operation:
    """Counts a step's input once the step is done, and nothing if the input has ended."""
    examples, read = counters.examples, counters.input
    if read is None:
        with tf.control_dependencies([train_op]):
            return examples.assign_add(count, read_value=False)
    # Examples and batches cross as one tensor to the server that needs both.
    figures = tf.concat([[count], read.batches], 0)
    with tf.control_dependencies([train_op]), v1.device(examples.device):
        figures = tf.identity(figures)
        counted = examples.assign_add(figures[0], read_value=False)
        return tf.group(counted, read.add(figures[1:]))


def _keras_updates(spec: TrainSpec) -> list[Operation]:
    if spec.keras_model is None:
        return []
    if writes := constant_writes(spec.keras_model):
        raise UsageError(
            f"the build function sets weights of the Keras model ({writes[0].name}), which has no "
            "effect in a graph: use tf.compat.v1.train.init_from_checkpoint"
        )
    return collect_updates(spec.keras_model)


def _gradients(spec: TrainSpec) -> GradientsAndVariables:
    variables = spec.variables
    if variables is None and spec.keras_model is not None:
        variables = trainable_values(spec.keras_model)
    variables = variables if variables is not None else v1.trainable_variables()
    if not variables:
        raise UsageError("the model has no trainable variables: nothing to train")
    pairs = spec.optimizer.compute_gradients(spec.loss, var_list=list(variables))
    pairs = [(gradient, variable) for gradient, variable in pairs if gradient is not None]
    if not pairs:
        names = ", ".join(variable.name for variable in list(variables)[:5])
        raise UsageError(f"the loss does not depend on any trainable variable ({names})")
    return spec.transform_gradients(pairs) if spec.transform_gradients else pairs


def _scalar_int64(examples: Tensor | int) -> Tensor:
    count = tf.cast(tf.convert_to_tensor(examples), tf.int64)
    if count.shape.rank not in (0, None):
        raise UsageError(f"TrainSpec.examples has shape {count.shape}, expected a scalar count")
    return count


def container_name(layout: int) -> str:
    """Returns the container on the parameter servers in which a layout's state lies."""
    return f"paramserve-{layout}"


def _container(graph: Any, layout: int) -> AbstractContextManager[Any]:
    manager: AbstractContextManager[Any] = graph.container(container_name(layout))
    return manager


def _init_ops(loop: Loop, of_the_model: set[Any], *, every: bool) -> dict[str, Any]:
    scaffold, variables = loop.scaffold, v1.global_variables()
    if not every:
        variables = list({variable.device: variable for variable in variables}.values())
    uninitialized = v1.report_uninitialized_variables(variables)
    uninitialized.mark_used()  # Not in the graph, but by the code that opens a session.
    local = _chosen(scaffold.local_init_op, v1.local_variables_initializer)
    return {
        "init_op": _chosen(scaffold.init_op, v1.global_variables_initializer),
        "init_own": {
            each.op.name: each.initializer
            for each in v1.global_variables()
            if each.ref() not in of_the_model
        },
        "local_init_op": local,
        "local_init_with_tables": tf.group(local, v1.tables_initializer()),
        "uninitialized": uninitialized,
    }


def _chosen(given: Any, make_default: Callable[[], Any]) -> Any:
    return make_default() if given is None else given
