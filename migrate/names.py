"""Where each name of TensorFlow 1 went: the mapping as data, and how to look a name up in it."""

from __future__ import annotations

from typing import NamedTuple

_TRAINING = """
    FeedingQueueRunner GreedyLoadBalancingStrategy HParams NextQueuedSequenceBatch RandomStrategy
    SequenceQueueingStateSaver StopAfterNEvalsHook SummaryAtEndHook Tuner add_gradients_summaries
    batch_sequences_with_states bucket bucket_by_sequence_length byte_size_load_fn
    checkpoints_iterator clip_gradient_norms clip_gradient_norms_fn create_train_op evaluate_once
    evaluate_repeatedly get_or_create_eval_step multiply_gradients parse_values rejection_sample
    resample_at_rate stratified_sample train wait_for_new_checkpoint weighted_resample
"""

_GRAPH_ACTIONS = """
    clear_summary_writers evaluate get_summary_writer infer run_feeds run_feeds_iter run_n train
"""

_MONITORS = """
    BaseMonitor CaptureVariable CheckpointSaver EveryN GraphDump LoggingTrainable NanLoss
    NanLossDuringTrainingError
    PrintTensor RunHookAdapterForMonitors StepCounter StopAtStep SummarySaver ValidationMonitor
    get_default_monitors replace_monitors_with_hooks
"""

_MODEL_PRUNING = """
    MaskedBasicLSTMCell MaskedLSTMCell Pruning apply_mask get_masked_weights get_masks
    get_pruning_hparams get_thresholds get_weight_sparsity get_weights graph_def_from_checkpoint
    masked_conv2d masked_convolution masked_fully_connected strip_pruning_vars_fn train
"""

_SLIM_LEARNING = """
    add_gradients_summaries clip_gradient_norms create_train_op multiply_gradients train train_step
"""

_GLOBAL_STEP = "assert_global_step create_global_step get_global_step get_or_create_global_step"

_QUEUE_RUNNER = "QueueRunner add_queue_runner start_queue_runners"

_ESTIMATOR_HOOKS = """
    CheckpointSaverHook CheckpointSaverListener FeedFnHook FinalOpsHook GlobalStepWaiterHook
    LoggingTensorHook NanLossDuringTrainingError NanTensorHook ProfilerHook SecondOrStepTimer
    SessionRunArgs SessionRunContext SessionRunHook SessionRunValues StepCounterHook StopAtStepHook
    SummarySaverHook VocabInfo
"""

_TRAIN = """
    AdadeltaOptimizer AdagradDAOptimizer AdagradOptimizer AdamOptimizer BytesList Checkpoint
    CheckpointSaverHook CheckpointSaverListener ChiefSessionCreator ClusterDef ClusterSpec
    Coordinator Example ExponentialMovingAverage Feature FeatureList FeatureLists Features
    FeedFnHook FinalOpsHook FloatList FtrlOptimizer GlobalStepWaiterHook GradientDescentOptimizer
    Int64List JobDef LoggingTensorHook LooperThread MomentumOptimizer MonitoredSession
    MonitoredTrainingSession NanLossDuringTrainingError NanTensorHook NewCheckpointReader Optimizer
    ProfilerHook ProximalAdagradOptimizer ProximalGradientDescentOptimizer QueueRunner
    RMSPropOptimizer Saver SaverDef Scaffold SecondOrStepTimer SequenceExample Server ServerDef
    SessionCreator SessionManager SessionRunArgs SessionRunContext SessionRunHook SessionRunValues
    SingularMonitoredSession StepCounterHook StopAtStepHook SummarySaverHook Supervisor
    SyncReplicasOptimizer VocabInfo WorkerSessionCreator add_queue_runner assert_global_step
    basic_train_loop batch batch_join checkpoint_exists cosine_decay cosine_decay_restarts
    create_global_step do_quantize_training_on_graphdef exponential_decay export_meta_graph
    generate_checkpoint_state_proto get_checkpoint_mtimes get_checkpoint_state get_global_step
    get_or_create_global_step global_step import_meta_graph init_from_checkpoint input_producer
    inverse_time_decay latest_checkpoint limit_epochs linear_cosine_decay list_variables
    load_checkpoint load_variable match_filenames_once maybe_batch maybe_batch_join
    maybe_shuffle_batch maybe_shuffle_batch_join natural_exp_decay noisy_linear_cosine_decay
    piecewise_constant polynomial_decay range_input_producer remove_checkpoint
    replica_device_setter sdca_fprint sdca_optimizer sdca_shrink_l1 shuffle_batch
    shuffle_batch_join slice_input_producer start_queue_runners string_input_producer
    summary_iterator update_checkpoint_state warm_start write_graph
"""


class Namespace(NamedTuple):
    """A module of TensorFlow 1 whose names, or some of them, live on in one of `paramserve`."""

    old: str
    """The module as scripts wrote it, with `tf` for TensorFlow: "tf.contrib.training"."""
    new: str
    """The module to import now: "paramserve.contrib.training"."""
    names: tuple[str, ...]
    """What moved; each name is the same in both."""
    whole: bool = True
    """Everything public of the old module moved, so the module itself may be passed around."""


class Place(NamedTuple):
    """Where a name is now."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """Module and name: "paramserve.train.Saver"."""
        return f"{self.module}.{self.name}"


def _namespace(old: str, new: str, names: str, *, whole: bool = True) -> Namespace:
    return Namespace(old, new, tuple(sorted(names.split(), key=str.lower)), whole)


NAMESPACES = (
    _namespace("tf.contrib.training", "paramserve.contrib.training", _TRAINING),
    _namespace(
        "tf.contrib.learn",
        "paramserve.contrib.learn",
        "NanLossDuringTrainingError clear_summary_writers evaluate get_summary_writer infer"
        " run_feeds run_feeds_iter run_n train",
        whole=False,
    ),
    _namespace(
        "tf.contrib.learn.graph_actions", "paramserve.contrib.learn.graph_actions", _GRAPH_ACTIONS
    ),
    _namespace(
        "tf.contrib.learn.monitors", "paramserve.contrib.learn.monitors", _MONITORS, whole=False
    ),
    _namespace("tf.contrib.model_pruning", "paramserve.contrib.model_pruning", _MODEL_PRUNING),
    _namespace("tf.contrib.slim.learning", "paramserve.contrib.slim.learning", _SLIM_LEARNING),
    _namespace("tf.train", "paramserve.train", _TRAIN, whole=False),
    _namespace("tf.train.queue_runner", "paramserve.train.queue_runner", _QUEUE_RUNNER),
    _namespace("tf.contrib.framework", "paramserve.train", _GLOBAL_STEP, whole=False),
    _namespace("tf.contrib.slim", "paramserve.train", _GLOBAL_STEP, whole=False),
    _namespace("tf.estimator", "paramserve.train", _ESTIMATOR_HOOKS, whole=False),
)
"""Every module whose names have a place in paramserve."""

# Old scripts also imported from the files behind the public modules.
_FILES = (
    (
        "tf.contrib.training.python.training",
        "bucket_ops device_setter evaluation feeding_queue_runner hparam resample sampling_ops "
        "sequence_queueing_state_saver training tuner",
        "tf.contrib.training",
    ),
    (
        "tf.contrib.model_pruning.python",
        "layers.layers layers.rnn_cells learning pruning strip_pruning_vars_lib",
        "tf.contrib.model_pruning",
    ),
    ("tf.contrib.framework.python.ops", "variables", "tf.contrib.framework"),
    ("tf.contrib.slim", "variables ops.variables", "tf.contrib.framework"),
    ("tf_slim.training", "evaluation training", "tf.contrib.training"),
)

_RESPELLED = {
    "tensorflow.compat.v1": "tf",
    "tensorflow": "tf",
    "tf_slim": "tf.contrib.slim",
    "tf_slim.training": "tf.contrib.training",
    "tf.compat.v1": "tf",
    "tf.contrib.learn.python.learn": "tf.contrib.learn",
    "tf.contrib.slim.python.slim": "tf.contrib.slim",
    **{f"{folder}.{file}": public for folder, files, public in _FILES for file in files.split()},
}

_PLACES = {
    f"{namespace.old}.{name}": Place(namespace.new, name)
    for namespace in NAMESPACES
    for name in namespace.names
}

_MODULES = {namespace.old: namespace.new for namespace in NAMESPACES if namespace.whole}


def canonical(path: str) -> str:
    """The public name, beginning with `tf`, of what may have been written in several ways.

    "tensorflow.compat.v1.train.Saver" is "tf.train.Saver";
    "tensorflow.contrib.model_pruning.python.pruning.Pruning" is "tf.contrib.model_pruning.Pruning".
    """
    for prefix in _prefixes(path):
        if prefix in _RESPELLED:
            return canonical(_RESPELLED[prefix] + path[len(prefix) :])
    return path


def place(path: str) -> tuple[Place, str] | None:
    """Finds where a canonical path leads now.

    Args:
        path: What was written, made `canonical`; it may go on beyond a public name, as
            "tf.train.Saver.restore" does.

    Returns:
        The place of the name in it, and the rest (".restore"); None if it has none.
    """
    for prefix in _prefixes(path):
        if prefix in _PLACES:
            return _PLACES[prefix], path[len(prefix) :]
    return None


def module_place(path: str) -> str | None:
    """Where a whole module is now; None if it, or a part of its names, has no place."""
    return _MODULES.get(path)


def _prefixes(path: str) -> list[str]:
    """The path and what it is in, longest first."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
