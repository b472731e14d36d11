from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ("interval_secs",)
    INTERVAL_SECS_FIELD_NUMBER: _ClassVar[int]
    interval_secs: float
    def __init__(self, interval_secs: _Optional[float] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("offset", "limit")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    offset: int
    limit: int
    def __init__(self, offset: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class TaskList(_message.Message):
    __slots__ = ("tasks", "num_tasks")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NUM_TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskStatus]
    num_tasks: int
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskStatus, _Mapping]]] = ..., num_tasks: _Optional[int] = ...) -> None: ...

class TaskTotal(_message.Message):
    __slots__ = ("role", "state", "count")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    role: str
    state: str
    count: int
    def __init__(self, role: _Optional[str] = ..., state: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("role", "index", "state", "address", "metrics_address", "pid", "heartbeat_age_secs", "local_steps", "examples", "loss", "recoveries", "error", "parameter_bytes", "variables", "largest_variable", "largest_variable_bytes", "pulled_bytes", "pushed_bytes", "transfers", "leaves_in_secs", "incarnation")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_SECS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_BYTES_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_VARIABLE_FIELD_NUMBER: _ClassVar[int]
    LARGEST_VARIABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    PULLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PUSHED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    LEAVES_IN_SECS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    role: str
    index: int
    state: str
    address: str
    metrics_address: str
    pid: int
    heartbeat_age_secs: float
    local_steps: int
    examples: int
    loss: float
    recoveries: int
    error: str
    parameter_bytes: int
    variables: int
    largest_variable: str
    largest_variable_bytes: int
    pulled_bytes: int
    pushed_bytes: int
    transfers: int
    leaves_in_secs: float
    incarnation: str
    def __init__(self, role: _Optional[str] = ..., index: _Optional[int] = ..., state: _Optional[str] = ..., address: _Optional[str] = ..., metrics_address: _Optional[str] = ..., pid: _Optional[int] = ..., heartbeat_age_secs: _Optional[float] = ..., local_steps: _Optional[int] = ..., examples: _Optional[int] = ..., loss: _Optional[float] = ..., recoveries: _Optional[int] = ..., error: _Optional[str] = ..., parameter_bytes: _Optional[int] = ..., variables: _Optional[int] = ..., largest_variable: _Optional[str] = ..., largest_variable_bytes: _Optional[int] = ..., pulled_bytes: _Optional[int] = ..., pushed_bytes: _Optional[int] = ..., transfers: _Optional[int] = ..., leaves_in_secs: _Optional[float] = ..., incarnation: _Optional[str] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("phase", "detail", "generation", "global_step", "max_steps", "steps_per_second", "examples_per_second", "examples", "loss", "metrics", "sync", "logdir", "checkpoint", "checkpoint_step", "checkpoint_time", "tasks", "job_id", "uptime_secs", "gradients_applied", "gradients_dropped", "tokens_reissued", "recoveries", "recovery_secs", "recovered_step", "restore_step", "wanted_workers", "wanted_ps", "num_ps", "resizes", "resize_secs", "preemptions", "stalls", "secs_since_step", "bad_records", "control_lag_secs", "lease_extension_secs", "totals", "num_tasks", "set_aside")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class PreemptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PHASE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    STEPS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    LOGDIR_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_TIME_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECS_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_APPLIED_FIELD_NUMBER: _ClassVar[int]
    GRADIENTS_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_REISSUED_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_SECS_FIELD_NUMBER: _ClassVar[int]
    RECOVERED_STEP_FIELD_NUMBER: _ClassVar[int]
    RESTORE_STEP_FIELD_NUMBER: _ClassVar[int]
    WANTED_WORKERS_FIELD_NUMBER: _ClassVar[int]
    WANTED_PS_FIELD_NUMBER: _ClassVar[int]
    NUM_PS_FIELD_NUMBER: _ClassVar[int]
    RESIZES_FIELD_NUMBER: _ClassVar[int]
    RESIZE_SECS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    STALLS_FIELD_NUMBER: _ClassVar[int]
    SECS_SINCE_STEP_FIELD_NUMBER: _ClassVar[int]
    BAD_RECORDS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_LAG_SECS_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXTENSION_SECS_FIELD_NUMBER: _ClassVar[int]
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    NUM_TASKS_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    phase: str
    detail: str
    generation: int
    global_step: int
    max_steps: int
    steps_per_second: float
    examples_per_second: float
    examples: int
    loss: float
    metrics: _containers.ScalarMap[str, float]
    sync: bool
    logdir: str
    checkpoint: str
    checkpoint_step: int
    checkpoint_time: float
    tasks: _containers.RepeatedCompositeFieldContainer[TaskStatus]
    job_id: str
    uptime_secs: float
    gradients_applied: int
    gradients_dropped: int
    tokens_reissued: int
    recoveries: int
    recovery_secs: float
    recovered_step: int
    restore_step: int
    wanted_workers: int
    wanted_ps: int
    num_ps: int
    resizes: int
    resize_secs: float
    preemptions: _containers.ScalarMap[str, int]
    stalls: int
    secs_since_step: float
    bad_records: int
    control_lag_secs: float
    lease_extension_secs: float
    totals: _containers.RepeatedCompositeFieldContainer[TaskTotal]
    num_tasks: int
    set_aside: _containers.RepeatedCompositeFieldContainer[SetAside]
    def __init__(self, phase: _Optional[str] = ..., detail: _Optional[str] = ..., generation: _Optional[int] = ..., global_step: _Optional[int] = ..., max_steps: _Optional[int] = ..., steps_per_second: _Optional[float] = ..., examples_per_second: _Optional[float] = ..., examples: _Optional[int] = ..., loss: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., sync: bool = ..., logdir: _Optional[str] = ..., checkpoint: _Optional[str] = ..., checkpoint_step: _Optional[int] = ..., checkpoint_time: _Optional[float] = ..., tasks: _Optional[_Iterable[_Union[TaskStatus, _Mapping]]] = ..., job_id: _Optional[str] = ..., uptime_secs: _Optional[float] = ..., gradients_applied: _Optional[int] = ..., gradients_dropped: _Optional[int] = ..., tokens_reissued: _Optional[int] = ..., recoveries: _Optional[int] = ..., recovery_secs: _Optional[float] = ..., recovered_step: _Optional[int] = ..., restore_step: _Optional[int] = ..., wanted_workers: _Optional[int] = ..., wanted_ps: _Optional[int] = ..., num_ps: _Optional[int] = ..., resizes: _Optional[int] = ..., resize_secs: _Optional[float] = ..., preemptions: _Optional[_Mapping[str, int]] = ..., stalls: _Optional[int] = ..., secs_since_step: _Optional[float] = ..., bad_records: _Optional[int] = ..., control_lag_secs: _Optional[float] = ..., lease_extension_secs: _Optional[float] = ..., totals: _Optional[_Iterable[_Union[TaskTotal, _Mapping]]] = ..., num_tasks: _Optional[int] = ..., set_aside: _Optional[_Iterable[_Union[SetAside, _Mapping]]] = ...) -> None: ...

class SetAside(_message.Message):
    __slots__ = ("file", "first", "last", "records", "epoch", "for_good", "reason")
    FILE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FOR_GOOD_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    file: str
    first: int
    last: int
    records: int
    epoch: int
    for_good: bool
    reason: str
    def __init__(self, file: _Optional[str] = ..., first: _Optional[int] = ..., last: _Optional[int] = ..., records: _Optional[int] = ..., epoch: _Optional[int] = ..., for_good: bool = ..., reason: _Optional[str] = ...) -> None: ...

class SaveCheckpointRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SaveCheckpointResponse(_message.Message):
    __slots__ = ("path", "global_step")
    PATH_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    path: str
    global_step: int
    def __init__(self, path: _Optional[str] = ..., global_step: _Optional[int] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("error",)
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class StopResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ScaleRequest(_message.Message):
    __slots__ = ("workers", "ps")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PS_FIELD_NUMBER: _ClassVar[int]
    workers: int
    ps: int
    def __init__(self, workers: _Optional[int] = ..., ps: _Optional[int] = ...) -> None: ...

class ScaleResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportEndedRequest(_message.Message):
    __slots__ = ("incarnations",)
    INCARNATIONS_FIELD_NUMBER: _ClassVar[int]
    incarnations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, incarnations: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportEndedResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
