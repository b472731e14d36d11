"""What ends a generation before its time."""

from __future__ import annotations

import tensorflow as tf

from ..cluster.session import PREEMPTION_ERRORS
from .stalls.guard import Stalled


class ServerLost(Exception):
    """A parameter server is gone, and with it a part of the model."""


LOST_ERRORS = (ServerLost, Stalled, tf.errors.DeadlineExceededError, *PREEMPTION_ERRORS)
