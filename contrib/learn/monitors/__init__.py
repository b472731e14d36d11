"""Monitors: callbacks around each step of `paramserve.contrib.learn.train`."""

from .adapter import RunHookAdapterForMonitors, replace_monitors_with_hooks
from .base import BaseMonitor
from .capturing import CaptureVariable, GraphDump
from .checkpoints import CheckpointSaver
from .defaults import get_default_monitors
from .every_n import EveryN
from .printing import LoggingTrainable, PrintTensor
from .stopping import NanLoss, NanLossDuringTrainingError, StopAtStep
from .summaries import StepCounter, SummarySaver
from .validation import ValidationMonitor

__all__ = [
    "BaseMonitor",
    "CaptureVariable",
    "CheckpointSaver",
    "EveryN",
    "GraphDump",
    "LoggingTrainable",
    "NanLoss",
    "NanLossDuringTrainingError",
    "PrintTensor",
    "RunHookAdapterForMonitors",
    "StepCounter",
    "StopAtStep",
    "SummarySaver",
    "ValidationMonitor",
    "get_default_monitors",
    "replace_monitors_with_hooks",
]
