"""`tf.contrib.training`, which TensorFlow 2 removed, on today's TensorFlow."""

from .bucketing import bucket, bucket_by_sequence_length
from .device_setter import GreedyLoadBalancingStrategy, RandomStrategy, byte_size_load_fn
from .evaluation import (
    StopAfterNEvalsHook,
    SummaryAtEndHook,
    evaluate_once,
    evaluate_repeatedly,
    get_or_create_eval_step,
)
from .feeding_queue_runner import FeedingQueueRunner
from .hparam import HParams, Tuner
from .hparam_values import parse_values
from .loop import train
from .new_checkpoints import checkpoints_iterator, wait_for_new_checkpoint
from .resampling import resample_at_rate, weighted_resample
from .sampling import rejection_sample, stratified_sample
from .sequence_queueing import (
    NextQueuedSequenceBatch,
    SequenceQueueingStateSaver,
    batch_sequences_with_states,
)
from .train_ops import (
    add_gradients_summaries,
    clip_gradient_norms,
    clip_gradient_norms_fn,
    create_train_op,
    multiply_gradients,
)

__all__ = [
    "FeedingQueueRunner",
    "GreedyLoadBalancingStrategy",
    "HParams",
    "NextQueuedSequenceBatch",
    "RandomStrategy",
    "SequenceQueueingStateSaver",
    "StopAfterNEvalsHook",
    "SummaryAtEndHook",
    "Tuner",
    "add_gradients_summaries",
    "batch_sequences_with_states",
    "bucket",
    "bucket_by_sequence_length",
    "byte_size_load_fn",
    "checkpoints_iterator",
    "clip_gradient_norms",
    "clip_gradient_norms_fn",
    "create_train_op",
    "evaluate_once",
    "evaluate_repeatedly",
    "get_or_create_eval_step",
    "multiply_gradients",
    "parse_values",
    "rejection_sample",
    "resample_at_rate",
    "stratified_sample",
    "train",
    "wait_for_new_checkpoint",
    "weighted_resample",
]
