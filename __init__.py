"""Parameter-server training for today's TensorFlow."""

from .chief.options import JobResult
from .cluster.data_plane import DataPlane
from .errors import JobFailed, ParamserveError, UsageError, WaitTimeout
from .jobs.job import Job
from .model.spec import TaskContext, TrainSpec

__version__ = "0.1.0"

__all__ = [
    "DataPlane",
    "Job",
    "JobFailed",
    "JobResult",
    "ParamserveError",
    "TaskContext",
    "TrainSpec",
    "UsageError",
    "WaitTimeout",
    "__version__",
]
