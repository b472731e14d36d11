from . import membership_pb2 as _membership_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dataset(_message.Message):
    __slots__ = ("name", "num_records", "num_shards", "batch_size", "epochs", "seed", "shuffle", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUM_RECORDS_FIELD_NUMBER: _ClassVar[int]
    NUM_SHARDS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    num_records: int
    num_shards: int
    batch_size: int
    epochs: int
    seed: int
    shuffle: bool
    digest: str
    def __init__(self, name: _Optional[str] = ..., num_records: _Optional[int] = ..., num_shards: _Optional[int] = ..., batch_size: _Optional[int] = ..., epochs: _Optional[int] = ..., seed: _Optional[int] = ..., shuffle: bool = ..., digest: _Optional[str] = ...) -> None: ...

class HeldShard(_message.Message):
    __slots__ = ("lease", "shard", "epoch")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SHARD_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    lease: int
    shard: int
    epoch: int
    def __init__(self, lease: _Optional[int] = ..., shard: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class FinishedShard(_message.Message):
    __slots__ = ("held", "missed", "error", "broken_off")
    HELD_FIELD_NUMBER: _ClassVar[int]
    MISSED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    BROKEN_OFF_FIELD_NUMBER: _ClassVar[int]
    held: HeldShard
    missed: int
    error: str
    broken_off: bool
    def __init__(self, held: _Optional[_Union[HeldShard, _Mapping]] = ..., missed: _Optional[int] = ..., error: _Optional[str] = ..., broken_off: bool = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("task", "incarnation", "dataset", "held", "finished", "wait_secs")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECS_FIELD_NUMBER: _ClassVar[int]
    task: _membership_pb2.TaskId
    incarnation: str
    dataset: Dataset
    held: _containers.RepeatedCompositeFieldContainer[HeldShard]
    finished: _containers.RepeatedCompositeFieldContainer[FinishedShard]
    wait_secs: float
    def __init__(self, task: _Optional[_Union[_membership_pb2.TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ..., held: _Optional[_Iterable[_Union[HeldShard, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[FinishedShard, _Mapping]]] = ..., wait_secs: _Optional[float] = ...) -> None: ...

class LeaseResponse(_message.Message):
    __slots__ = ("lease", "wait", "end")
    LEASE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    lease: ShardLease
    wait: bool
    end: bool
    def __init__(self, lease: _Optional[_Union[ShardLease, _Mapping]] = ..., wait: bool = ..., end: bool = ...) -> None: ...

class ShardLease(_message.Message):
    __slots__ = ("held", "batches", "fills")
    HELD_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    FILLS_FIELD_NUMBER: _ClassVar[int]
    held: HeldShard
    batches: _containers.RepeatedScalarFieldContainer[int]
    fills: bool
    def __init__(self, held: _Optional[_Union[HeldShard, _Mapping]] = ..., batches: _Optional[_Iterable[int]] = ..., fills: bool = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("task", "incarnation", "dataset", "held", "finished")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    task: _membership_pb2.TaskId
    incarnation: str
    dataset: Dataset
    held: _containers.RepeatedCompositeFieldContainer[HeldShard]
    finished: _containers.RepeatedCompositeFieldContainer[FinishedShard]
    def __init__(self, task: _Optional[_Union[_membership_pb2.TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., dataset: _Optional[_Union[Dataset, _Mapping]] = ..., held: _Optional[_Iterable[_Union[HeldShard, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[FinishedShard, _Mapping]]] = ...) -> None: ...

class FindFilesRequest(_message.Message):
    __slots__ = ("task", "incarnation", "query", "index", "wait_secs")
    TASK_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECS_FIELD_NUMBER: _ClassVar[int]
    task: _membership_pb2.TaskId
    incarnation: str
    query: str
    index: bytes
    wait_secs: float
    def __init__(self, task: _Optional[_Union[_membership_pb2.TaskId, _Mapping]] = ..., incarnation: _Optional[str] = ..., query: _Optional[str] = ..., index: _Optional[bytes] = ..., wait_secs: _Optional[float] = ...) -> None: ...

class FindFilesResponse(_message.Message):
    __slots__ = ("index", "wait", "count")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    index: bytes
    wait: bool
    count: bool
    def __init__(self, index: _Optional[bytes] = ..., wait: bool = ..., count: bool = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("void_leases",)
    VOID_LEASES_FIELD_NUMBER: _ClassVar[int]
    void_leases: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, void_leases: _Optional[_Iterable[int]] = ...) -> None: ...
