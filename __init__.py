"""Parameter-server training for today's TensorFlow."""

from .cluster.security import SecurityOptions
from .data_plane.options import DataPlane
from .errors import JobFailed, ParamserveError, UsageError, WaitTimeout
from .jobs.job import Job
from .jobs.launch_options import LaunchOptions
from .jobs.options import JobOptions, JobResult
from .model.spec import TaskContext, TrainSpec

__version__ = "0.1.0"

__all__ = [
    "DataPlane",
    "Job",
    "JobFailed",
    "JobOptions",
    "JobResult",
    "LaunchOptions",
    "ParamserveError",
    "SecurityOptions",
    "TaskContext",
    "TrainSpec",
    "UsageError",
    "WaitTimeout",
    "__version__",
]
