"""Monitors: callbacks around each step of `paramserve.contrib.learn.train`."""

from .adapter import RunHookAdapterForMonitors, replace_monitors_with_hooks
from .base import BaseMonitor, EveryN
from .capturing import CaptureVariable, GraphDump
from .reporting import (
    CheckpointSaver,
    LoggingTrainable,
    PrintTensor,
    StepCounter,
    SummarySaver,
    get_default_monitors,
)
from .stopping import NanLoss, NanLossDuringTrainingError, StopAtStep, ValidationMonitor

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
