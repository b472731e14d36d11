from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskId(_message.Message):
    __slots__ = ("role", "index")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    role: str
    index: int
    def __init__(self, role: _Optional[str] = ..., index: _Optional[int] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("role", "index", "address", "incarnation", "metrics_address", "pid", "spare")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    SPARE_FIELD_NUMBER: _ClassVar[int]
    role: str
    index: int
    address: str
    incarnation: str
    metrics_address: str
    pid: int
    spare: bool
    def __init__(self, role: _Optional[str] = ..., index: _Optional[int] = ..., address: _Optional[str] = ..., incarnation: _Optional[str] = ..., metrics_address: _Optional[str] = ..., pid: _Optional[int] = ..., spare: bool = ...) -> None: ...

class JobConfig(_message.Message):
    __slots__ = ("job_id", "sync", "num_ps", "num_workers", "replicas_to_aggregate", "max_steps", "save_summaries_steps", "heartbeat_secs", "lease_secs", "params", "start_step", "logdir", "data_plane", "ps_on_workers", "layout")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    SYNC_FIELD_NUMBER: _ClassVar[int]
    NUM_PS_FIELD_NUMBER: _ClassVar[int]
    NUM_WORKERS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_TO_AGGREGATE_FIELD_NUMBER: _ClassVar[int]
    MAX_STEPS_FIELD_NUMBER: _ClassVar[int]
    SAVE_SUMMARIES_STEPS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    START_STEP_FIELD_NUMBER: _ClassVar[int]
    LOGDIR_FIELD_NUMBER: _ClassVar[int]
    DATA_PLANE_FIELD_NUMBER: _ClassVar[int]
    PS_ON_WORKERS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    sync: bool
    num_ps: int
    num_workers: int
    replicas_to_aggregate: int
    max_steps: int
    save_summaries_steps: int
    heartbeat_secs: float
    lease_secs: float
    params: _containers.ScalarMap[str, str]
    start_step: int
    logdir: str
    data_plane: DataPlane
    ps_on_workers: bool
    layout: int
    def __init__(self, job_id: _Optional[str] = ..., sync: bool = ..., num_ps: _Optional[int] = ..., num_workers: _Optional[int] = ..., replicas_to_aggregate: _Optional[int] = ..., max_steps: _Optional[int] = ..., save_summaries_steps: _Optional[int] = ..., heartbeat_secs: _Optional[float] = ..., lease_secs: _Optional[float] = ..., params: _Optional[_Mapping[str, str]] = ..., start_step: _Optional[int] = ..., logdir: _Optional[str] = ..., data_plane: _Optional[_Union[DataPlane, _Mapping]] = ..., ps_on_workers: bool = ..., layout: _Optional[int] = ...) -> None: ...

class DataPlane(_message.Message):
    __slots__ = ("transfer_bucket_bytes", "storage", "max_shard_bytes", "wire_dtype", "stale_pull", "local_steps", "max_staleness", "top_k")
    TRANSFER_BUCKET_BYTES_FIELD_NUMBER: _ClassVar[int]
    STORAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARD_BYTES_FIELD_NUMBER: _ClassVar[int]
    WIRE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    STALE_PULL_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    transfer_bucket_bytes: int
    storage: str
    max_shard_bytes: int
    wire_dtype: str
    stale_pull: bool
    local_steps: int
    max_staleness: int
    top_k: float
    def __init__(self, transfer_bucket_bytes: _Optional[int] = ..., storage: _Optional[str] = ..., max_shard_bytes: _Optional[int] = ..., wire_dtype: _Optional[str] = ..., stale_pull: bool = ..., local_steps: _Optional[int] = ..., max_staleness: _Optional[int] = ..., top_k: _Optional[float] = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("task", "job")
    TASK_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    job: JobConfig
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., job: _Optional[_Union[JobConfig, _Mapping]] = ...) -> None: ...

class WorkerReport(_message.Message):
    __slots__ = ("global_step", "local_steps", "examples", "loss", "metrics", "recoveries", "doing", "doing_secs", "sessions")
    class Doing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[WorkerReport.Doing]
        OPENING: _ClassVar[WorkerReport.Doing]
        TOKEN: _ClassVar[WorkerReport.Doing]
        SLOWER: _ClassVar[WorkerReport.Doing]
        STEP: _ClassVar[WorkerReport.Doing]
        BETWEEN: _ClassVar[WorkerReport.Doing]
    UNKNOWN: WorkerReport.Doing
    OPENING: WorkerReport.Doing
    TOKEN: WorkerReport.Doing
    SLOWER: WorkerReport.Doing
    STEP: WorkerReport.Doing
    BETWEEN: WorkerReport.Doing
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    LOCAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    RECOVERIES_FIELD_NUMBER: _ClassVar[int]
    DOING_FIELD_NUMBER: _ClassVar[int]
    DOING_SECS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    global_step: int
    local_steps: int
    examples: int
    loss: float
    metrics: _containers.ScalarMap[str, float]
    recoveries: int
    doing: WorkerReport.Doing
    doing_secs: float
    sessions: int
    def __init__(self, global_step: _Optional[int] = ..., local_steps: _Optional[int] = ..., examples: _Optional[int] = ..., loss: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., recoveries: _Optional[int] = ..., doing: _Optional[_Union[WorkerReport.Doing, str]] = ..., doing_secs: _Optional[float] = ..., sessions: _Optional[int] = ...) -> None: ...

class TaskReport(_message.Message):
    __slots__ = ("task", "incarnation", "report", "hears_holds", "answered_hold")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    HEARS_HOLDS_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_HOLD_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    incarnation: str
    report: WorkerReport
    hears_holds: bool
    answered_hold: int
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., report: _Optional[_Union[WorkerReport, _Mapping]] = ..., hears_holds: bool = ..., answered_hold: _Optional[int] = ...) -> None: ...

class TaskNews(_message.Message):
    __slots__ = ("generation", "over", "stop", "write_summaries", "task", "next_layout", "next_num_ps", "leave_session", "hold", "may_go")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    OVER_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    WRITE_SUMMARIES_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    NEXT_LAYOUT_FIELD_NUMBER: _ClassVar[int]
    NEXT_NUM_PS_FIELD_NUMBER: _ClassVar[int]
    LEAVE_SESSION_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    MAY_GO_FIELD_NUMBER: _ClassVar[int]
    generation: int
    over: int
    stop: bool
    write_summaries: bool
    task: TaskId
    next_layout: int
    next_num_ps: int
    leave_session: int
    hold: Hold
    may_go: bool
    def __init__(self, generation: _Optional[int] = ..., over: _Optional[int] = ..., stop: bool = ..., write_summaries: bool = ..., task: _Optional[_Union[TaskId, _Mapping]] = ..., next_layout: _Optional[int] = ..., next_num_ps: _Optional[int] = ..., leave_session: _Optional[int] = ..., hold: _Optional[_Union[Hold, _Mapping]] = ..., may_go: bool = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("number", "held")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    number: int
    held: bool
    def __init__(self, number: _Optional[int] = ..., held: bool = ...) -> None: ...

class AwaitReadyRequest(_message.Message):
    __slots__ = ("task", "min_generation", "timeout_secs", "lost_generation", "before_ready")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MIN_GENERATION_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECS_FIELD_NUMBER: _ClassVar[int]
    LOST_GENERATION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_READY_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    min_generation: int
    timeout_secs: float
    lost_generation: int
    before_ready: bool
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., min_generation: _Optional[int] = ..., timeout_secs: _Optional[float] = ..., lost_generation: _Optional[int] = ..., before_ready: bool = ...) -> None: ...

class ParameterServer(_message.Message):
    __slots__ = ("address", "incarnation")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    address: str
    incarnation: str
    def __init__(self, address: _Optional[str] = ..., incarnation: _Optional[str] = ...) -> None: ...

class View(_message.Message):
    __slots__ = ("generation", "ps", "layout")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PS_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    ps: _containers.RepeatedCompositeFieldContainer[ParameterServer]
    layout: int
    def __init__(self, generation: _Optional[int] = ..., ps: _Optional[_Iterable[_Union[ParameterServer, _Mapping]]] = ..., layout: _Optional[int] = ...) -> None: ...

class AwaitReadyResponse(_message.Message):
    __slots__ = ("ready", "view", "missing", "stop")
    READY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    view: View
    missing: str
    stop: bool
    def __init__(self, ready: bool = ..., view: _Optional[_Union[View, _Mapping]] = ..., missing: _Optional[str] = ..., stop: bool = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("task", "incarnation", "reason", "error", "report")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DONE: _ClassVar[LeaveRequest.Reason]
        END_OF_INPUT: _ClassVar[LeaveRequest.Reason]
        FAILED: _ClassVar[LeaveRequest.Reason]
        PREEMPTED: _ClassVar[LeaveRequest.Reason]
    DONE: LeaveRequest.Reason
    END_OF_INPUT: LeaveRequest.Reason
    FAILED: LeaveRequest.Reason
    PREEMPTED: LeaveRequest.Reason
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    incarnation: str
    reason: LeaveRequest.Reason
    error: str
    report: WorkerReport
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., reason: _Optional[_Union[LeaveRequest.Reason, str]] = ..., error: _Optional[str] = ..., report: _Optional[_Union[WorkerReport, _Mapping]] = ...) -> None: ...

class LeaveResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class NoticeRequest(_message.Message):
    __slots__ = ("task", "incarnation", "grace_secs")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    GRACE_SECS_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    incarnation: str
    grace_secs: float
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., grace_secs: _Optional[float] = ...) -> None: ...

class NoticeResponse(_message.Message):
    __slots__ = ("may_go",)
    MAY_GO_FIELD_NUMBER: _ClassVar[int]
    may_go: bool
    def __init__(self, may_go: bool = ...) -> None: ...

class WriteSummaryRequest(_message.Message):
    __slots__ = ("task", "global_step", "summary")
    TASK_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_STEP_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    task: TaskId
    global_step: int
    summary: bytes
    def __init__(self, task: _Optional[_Union[TaskId, _Mapping]] = ..., global_step: _Optional[int] = ..., summary: _Optional[bytes] = ...) -> None: ...

class WriteSummaryResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
