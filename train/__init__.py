"""The whole of `tf.train` of TensorFlow 1, on today's TensorFlow.

Most names are TensorFlow's own, from `tf.compat.v1.train`. Names that fail, mislead or stall there
have replacements with the same arguments; each has a module of its own here.
"""

from tensorflow.compat.v1 import train as _original
from tensorflow.compat.v1.train import (
    AdadeltaOptimizer as AdadeltaOptimizer,
    AdagradDAOptimizer as AdagradDAOptimizer,
    AdagradOptimizer as AdagradOptimizer,
    BytesList as BytesList,
    Checkpoint as Checkpoint,
    CheckpointSaverListener as CheckpointSaverListener,
    ClusterDef as ClusterDef,
    ClusterSpec as ClusterSpec,
    Coordinator as Coordinator,
    Example as Example,
    Feature as Feature,
    FeatureList as FeatureList,
    FeatureLists as FeatureLists,
    Features as Features,
    FeedFnHook as FeedFnHook,
    FinalOpsHook as FinalOpsHook,
    FloatList as FloatList,
    FtrlOptimizer as FtrlOptimizer,
    GlobalStepWaiterHook as GlobalStepWaiterHook,
    GradientDescentOptimizer as GradientDescentOptimizer,
    Int64List as Int64List,
    JobDef as JobDef,
    LooperThread as LooperThread,
    MomentumOptimizer as MomentumOptimizer,
    NanLossDuringTrainingError as NanLossDuringTrainingError,
    NanTensorHook as NanTensorHook,
    NewCheckpointReader as NewCheckpointReader,
    Optimizer as Optimizer,
    ProfilerHook as ProfilerHook,
    ProximalAdagradOptimizer as ProximalAdagradOptimizer,
    ProximalGradientDescentOptimizer as ProximalGradientDescentOptimizer,
    QueueRunner as QueueRunner,
    RMSPropOptimizer as RMSPropOptimizer,
    Saver as Saver,
    SaverDef as SaverDef,
    Scaffold as Scaffold,
    SecondOrStepTimer as SecondOrStepTimer,
    SequenceExample as SequenceExample,
    ServerDef as ServerDef,
    SessionCreator as SessionCreator,
    SessionRunArgs as SessionRunArgs,
    SessionRunContext as SessionRunContext,
    SessionRunHook as SessionRunHook,
    SessionRunValues as SessionRunValues,
    StepCounterHook as StepCounterHook,
    StopAtStepHook as StopAtStepHook,
    SummarySaverHook as SummarySaverHook,
    VocabInfo as VocabInfo,
    add_queue_runner as add_queue_runner,
    basic_train_loop as basic_train_loop,
    batch as batch,
    batch_join as batch_join,
    checkpoint_exists as checkpoint_exists,
    cosine_decay as cosine_decay,
    cosine_decay_restarts as cosine_decay_restarts,
    do_quantize_training_on_graphdef as do_quantize_training_on_graphdef,
    exponential_decay as exponential_decay,
    export_meta_graph as export_meta_graph,
    generate_checkpoint_state_proto as generate_checkpoint_state_proto,
    get_checkpoint_mtimes as get_checkpoint_mtimes,
    get_checkpoint_state as get_checkpoint_state,
    import_meta_graph as import_meta_graph,
    init_from_checkpoint as init_from_checkpoint,
    input_producer as input_producer,
    inverse_time_decay as inverse_time_decay,
    latest_checkpoint as latest_checkpoint,
    limit_epochs as limit_epochs,
    linear_cosine_decay as linear_cosine_decay,
    list_variables as list_variables,
    load_checkpoint as load_checkpoint,
    load_variable as load_variable,
    match_filenames_once as match_filenames_once,
    maybe_batch as maybe_batch,
    maybe_batch_join as maybe_batch_join,
    maybe_shuffle_batch as maybe_shuffle_batch,
    maybe_shuffle_batch_join as maybe_shuffle_batch_join,
    natural_exp_decay as natural_exp_decay,
    noisy_linear_cosine_decay as noisy_linear_cosine_decay,
    piecewise_constant as piecewise_constant,
    polynomial_decay as polynomial_decay,
    range_input_producer as range_input_producer,
    remove_checkpoint as remove_checkpoint,
    replica_device_setter as replica_device_setter,
    sdca_fprint as sdca_fprint,
    sdca_optimizer as sdca_optimizer,
    shuffle_batch as shuffle_batch,
    shuffle_batch_join as shuffle_batch_join,
    slice_input_producer as slice_input_producer,
    start_queue_runners as start_queue_runners,
    summary_iterator as summary_iterator,
    update_checkpoint_state as update_checkpoint_state,
    write_graph as write_graph,
)

from ..loops.static_sessions import (
    ChiefSessionCreator as ChiefSessionCreator,
    WorkerSessionCreator as WorkerSessionCreator,
)
from . import queue_runner as queue_runner
from .adam import AdamOptimizer as AdamOptimizer, RowSparseAdamOptimizer as RowSparseAdamOptimizer
from .functions import (
    assert_global_step as assert_global_step,
    create_global_step as create_global_step,
    get_global_step as get_global_step,
    get_or_create_global_step as get_or_create_global_step,
    global_step as global_step,
    sdca_shrink_l1 as sdca_shrink_l1,
    string_input_producer as string_input_producer,
    warm_start as warm_start,
)
from .hooks import (
    CheckpointSaverHook as CheckpointSaverHook,
    LoggingTensorHook as LoggingTensorHook,
)
from .monitored_session import (
    MonitoredSession as MonitoredSession,
    SingularMonitoredSession as SingularMonitoredSession,
)
from .monitored_training_session import MonitoredTrainingSession as MonitoredTrainingSession
from .moving_average import ExponentialMovingAverage as ExponentialMovingAverage
from .servers import Server as Server
from .session_manager import SessionManager as SessionManager
from .supervisor import Supervisor as Supervisor
from .sync_replicas import SyncReplicasOptimizer as SyncReplicasOptimizer

# Without `RowSparseAdamOptimizer`, which TensorFlow does not have.
__all__ = [name for name in dir(_original) if name[0] != "_" and name in globals()]
