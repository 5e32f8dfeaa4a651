from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import Any as _Any, ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metadata(_message.Message):
    __slots__ = ("name", "metric_type", "unit_value", "description_value")
    class MetricType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        COUNTER: _ClassVar[Metadata.MetricType]
        GAUGE: _ClassVar[Metadata.MetricType]
        HISTOGRAM: _ClassVar[Metadata.MetricType]
    COUNTER: Metadata.MetricType
    GAUGE: Metadata.MetricType
    HISTOGRAM: Metadata.MetricType
    NAME_FIELD_NUMBER: _ClassVar[int]
    METRIC_TYPE_FIELD_NUMBER: _ClassVar[int]
    UNIT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    metric_type: Metadata.MetricType
    unit_value: str
    description_value: str
    def __init__(self, name: _Optional[str] = ..., metric_type: _Optional[_Union[Metadata.MetricType, str]] = ..., unit_value: _Optional[str] = ..., description_value: _Optional[str] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "timestamp", "labels", "increment_counter", "set_counter", "increment_gauge", "decrement_gauge", "set_gauge", "record_histogram")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_COUNTER_FIELD_NUMBER: _ClassVar[int]
    SET_COUNTER_FIELD_NUMBER: _ClassVar[int]
    INCREMENT_GAUGE_FIELD_NUMBER: _ClassVar[int]
    DECREMENT_GAUGE_FIELD_NUMBER: _ClassVar[int]
    SET_GAUGE_FIELD_NUMBER: _ClassVar[int]
    RECORD_HISTOGRAM_FIELD_NUMBER: _ClassVar[int]
    name: str
    timestamp: _timestamp_pb2.Timestamp
    labels: _containers.ScalarMap[str, str]
    increment_counter: int
    set_counter: int
    increment_gauge: float
    decrement_gauge: float
    set_gauge: float
    record_histogram: float
    def __init__(self, name: _Optional[str] = ..., timestamp: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., increment_counter: _Optional[int] = ..., set_counter: _Optional[int] = ..., increment_gauge: _Optional[float] = ..., decrement_gauge: _Optional[float] = ..., set_gauge: _Optional[float] = ..., record_histogram: _Optional[float] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("started", "source", "dropped_incoming", "dropped_client", "protocol_version")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    DROPPED_INCOMING_FIELD_NUMBER: _ClassVar[int]
    DROPPED_CLIENT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    started: _timestamp_pb2.Timestamp
    source: str
    dropped_incoming: int
    dropped_client: int
    protocol_version: int
    def __init__(self, started: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., source: _Optional[str] = ..., dropped_incoming: _Optional[int] = ..., dropped_client: _Optional[int] = ..., protocol_version: _Optional[int] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("boundary", "complete")
    class Boundary(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BOUNDARY_UNSPECIFIED: _ClassVar[Snapshot.Boundary]
        BOUNDARY_BEGIN: _ClassVar[Snapshot.Boundary]
        BOUNDARY_END: _ClassVar[Snapshot.Boundary]
    BOUNDARY_UNSPECIFIED: Snapshot.Boundary
    BOUNDARY_BEGIN: Snapshot.Boundary
    BOUNDARY_END: Snapshot.Boundary
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    boundary: Snapshot.Boundary
    complete: bool
    def __init__(self, boundary: _Optional[_Union[Snapshot.Boundary, str]] = ..., complete: bool = ...) -> None: ...

class Gone(_message.Message):
    __slots__ = ("metric_type", "name", "labels", "timestamp")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METRIC_TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    metric_type: Metadata.MetricType
    name: str
    labels: _containers.ScalarMap[str, str]
    timestamp: _timestamp_pb2.Timestamp
    def __init__(self, metric_type: _Optional[_Union[Metadata.MetricType, str]] = ..., name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., timestamp: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ...) -> None: ...

class HistogramTotal(_message.Message):
    __slots__ = ("name", "timestamp", "labels", "scale", "sum", "min", "max", "zeros", "not_finite", "positive", "negative")
    class Buckets(_message.Message):
        __slots__ = ("indices", "counts")
        INDICES_FIELD_NUMBER: _ClassVar[int]
        COUNTS_FIELD_NUMBER: _ClassVar[int]
        indices: _containers.RepeatedScalarFieldContainer[int]
        counts: _containers.RepeatedScalarFieldContainer[int]
        def __init__(self, indices: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    ZEROS_FIELD_NUMBER: _ClassVar[int]
    NOT_FINITE_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    name: str
    timestamp: _timestamp_pb2.Timestamp
    labels: _containers.ScalarMap[str, str]
    scale: int
    sum: float
    min: float
    max: float
    zeros: int
    not_finite: int
    positive: HistogramTotal.Buckets
    negative: HistogramTotal.Buckets
    def __init__(self, name: _Optional[str] = ..., timestamp: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping[str, _Any]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., scale: _Optional[int] = ..., sum: _Optional[float] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., zeros: _Optional[int] = ..., not_finite: _Optional[int] = ..., positive: _Optional[_Union[HistogramTotal.Buckets, _Mapping[str, _Any]]] = ..., negative: _Optional[_Union[HistogramTotal.Buckets, _Mapping[str, _Any]]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("metadata", "metric", "status", "snapshot", "gone", "histogram_total")
    METADATA_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAM_TOTAL_FIELD_NUMBER: _ClassVar[int]
    metadata: Metadata
    metric: Metric
    status: Status
    snapshot: Snapshot
    gone: Gone
    histogram_total: HistogramTotal
    def __init__(self, metadata: _Optional[_Union[Metadata, _Mapping[str, _Any]]] = ..., metric: _Optional[_Union[Metric, _Mapping[str, _Any]]] = ..., status: _Optional[_Union[Status, _Mapping[str, _Any]]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping[str, _Any]]] = ..., gone: _Optional[_Union[Gone, _Mapping[str, _Any]]] = ..., histogram_total: _Optional[_Union[HistogramTotal, _Mapping[str, _Any]]] = ...) -> None: ...
