"""Sparkplug B 3.0 payloads (protobuf) and the STATE of a host application (JSON).

The schema is made here from the field numbers of the specification's ``sparkplug_b.proto`` (chapter 6, "Google Protocol
Buffer Schema"). Data sets, templates, arrays, bytes and files are passed over: such a metric has no value here.
"""

from collections.abc import Iterable
from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from wire.batch import Malformed

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
MAX_BYTES = 1024 * 1024
MAX_METRICS = 10_000
_MILLISECOND = 1_000_000
_END = 2**62  # ns, in the year 2116: what claims to be later is no more wrong for standing there


class Datatype(IntEnum):
    """How a value is to be understood (``DataType`` of the schema); those without number or text are left out."""

    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13
    TEXT = 14


_SIGNED: dict[int, int] = {Datatype.INT8: 8, Datatype.INT16: 16, Datatype.INT32: 32, Datatype.INT64: 64}
_MEMBERS: dict[int, str] = {  # of the value's oneof, by datatype; a type that is not here has "int_value"
    Datatype.UINT32: "long_value",
    Datatype.INT64: "long_value",
    Datatype.UINT64: "long_value",
    Datatype.FLOAT: "float_value",
    Datatype.DOUBLE: "double_value",
    Datatype.BOOLEAN: "boolean_value",
    Datatype.STRING: "string_value",
    Datatype.DATE_TIME: "long_value",
    Datatype.TEXT: "string_value",
}
# As what a value crosses whose datatype is not told.
_UNTOLD: dict[type, int] = {float: Datatype.DOUBLE, bool: Datatype.BOOLEAN, str: Datatype.STRING}
Value = int | float | bool | str


class Metric(NamedTuple):
    """One value: ``at`` is UTC ns, ``alias`` stands for the name once a birth has told both.

    ``datatype`` is 0 where it was not told: births tell it, data may leave it out, and then ``value`` is as it crossed,
    negative integers as two's complement (``signed`` mends them). Without a value and not ``is_null``: of a kind that
    is passed over.
    """

    name: str = ""
    alias: int | None = None
    at: int | None = None
    datatype: int = 0
    is_historical: bool = False
    is_transient: bool = False
    is_null: bool = False
    value: Value | None = None


class Payload(NamedTuple):
    """One message: ``at`` is when it was sent, UTC ns; ``seq`` is 0 to 255, which a death of a node does not have."""

    at: int | None = None
    seq: int | None = None
    metrics: tuple[Metric, ...] = ()

    @property
    def bd_seq(self) -> int | None:
        """Which birth this is, or which it ends."""
        for metric in self.metrics:
            if metric.name == BD_SEQ and isinstance(metric.value, int):
                return metric.value
        return None


def decode(payload: bytes) -> Payload:
    """Read a payload; ``Malformed`` when it is none, or too large to be looked at."""
    if len(payload) > MAX_BYTES:
        raise Malformed(f"not a Sparkplug payload: {len(payload)} bytes, and it may have {MAX_BYTES}")
    try:
        message = _schema().FromString(payload)
    except DecodeError as error:
        raise Malformed(f"not a Sparkplug payload: {error}") from error
    if len(message.metrics) > MAX_METRICS:
        raise Malformed(f"not a Sparkplug payload: {len(message.metrics)} metrics, and it may have {MAX_METRICS}")
    seq = message.seq if message.HasField("seq") else None
    if seq is not None and seq > 255:
        raise Malformed(f"`seq` is {seq}; it lies between 0 and 255")
    metrics = tuple(_metric(metric, number) for number, metric in enumerate(message.metrics, 1))
    return Payload(_instant(message), seq, metrics)


def encode(payload: Payload) -> bytes:
    """Write a payload; a metric with a value tells its datatype."""
    message = _schema()()
    if payload.at is not None:
        message.timestamp = payload.at // _MILLISECOND
    if payload.seq is not None:
        message.seq = payload.seq
    for metric in payload.metrics:
        written = message.metrics.add()
        if metric.name:
            written.name = metric.name
        if metric.alias is not None:
            written.alias = metric.alias
        if metric.at is not None:
            written.timestamp = metric.at // _MILLISECOND
        for flag in ("is_historical", "is_transient", "is_null"):
            if getattr(metric, flag):
                setattr(written, flag, True)
        if metric.datatype:
            written.datatype = metric.datatype
        if metric.value is not None:
            _write(written, metric.value, metric.datatype)
    encoded: bytes = message.SerializeToString()
    return encoded


def signed(value: Value | None, datatype: int) -> Value | None:
    """Read an integer that crossed as two's complement; anything else is as it is.

    Writers fill the field that carries it, or only the bits of the type: both are read.
    """
    bits = _SIGNED.get(datatype)
    if bits is None or not isinstance(value, int) or isinstance(value, bool):
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def rebirth(at: int) -> bytes:
    """Write the command that asks an edge node for its births (NCMD); ``at`` is UTC ns."""
    return encode(Payload(at, metrics=(Metric(REBIRTH, at=at, datatype=Datatype.BOOLEAN, value=True),)))


class _State(msgspec.Struct):
    online: bool
    timestamp: int


def state(online: bool, at: int) -> bytes:
    """Write a host application's STATE; ``at`` (UTC ns) is the same in its birth and in the will before it."""
    return msgspec.json.encode(_State(online, at // _MILLISECOND))


def is_online(payload: bytes) -> bool:
    """Read a host application's STATE."""
    try:
        return msgspec.json.decode(payload, type=_State).online
    except (ValueError, RecursionError) as error:  # of msgspec, or of a text that is not UTF-8
        raise Malformed(f"not a STATE: {error}") from error


def _metric(metric: Any, number: int) -> Metric:
    name, alias = metric.name, metric.alias if metric.HasField("alias") else None
    member = metric.WhichOneof("value")
    value = None if member is None or metric.is_null else getattr(metric, member)
    if isinstance(name, bytes) or isinstance(value, bytes):  # what protobuf gives for a text that is not UTF-8
        raise Malformed(f"metric {number}: a text is not UTF-8")
    if not name and alias is None:
        raise Malformed(f"metric {number} has neither a name nor an alias")
    return Metric(
        name,
        alias,
        _instant(metric),
        metric.datatype,
        metric.is_historical,
        metric.is_transient,
        metric.is_null,
        signed(value, metric.datatype),
    )


def _instant(of: Any) -> int | None:
    return min(of.timestamp * _MILLISECOND, _END) if of.HasField("timestamp") else None


def _write(metric: Any, value: Value, datatype: int) -> None:
    member = _MEMBERS.get(datatype or _UNTOLD.get(type(value), 0), "int_value")
    if datatype in _SIGNED:
        value = int(value) & (2**64 - 1 if member == "long_value" else 2**32 - 1)
    setattr(metric, member, value)


def _fields(message: descriptor_pb2.DescriptorProto, fields: Iterable[tuple[str, int, Any]], oneof: bool) -> None:
    for name, number, kind in fields:
        field = message.field.add(
            name=name, number=number, type=kind, label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
        )
        if oneof:
            field.oneof_index = 0


@cache
def _schema() -> Any:
    """Make the class of payloads, when the first is read; fields that are not here are skipped by protobuf."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="sparkplug", syntax="proto2")
    metric = file.message_type.add(name="Metric")
    metric.oneof_decl.add(name="value")
    _fields(
        metric,
        (
            ("name", 1, kinds.TYPE_STRING),
            ("alias", 2, kinds.TYPE_UINT64),
            ("timestamp", 3, kinds.TYPE_UINT64),
            ("datatype", 4, kinds.TYPE_UINT32),
            ("is_historical", 5, kinds.TYPE_BOOL),
            ("is_transient", 6, kinds.TYPE_BOOL),
            ("is_null", 7, kinds.TYPE_BOOL),
        ),
        oneof=False,
    )
    _fields(
        metric,
        (
            ("int_value", 10, kinds.TYPE_UINT32),
            ("long_value", 11, kinds.TYPE_UINT64),
            ("float_value", 12, kinds.TYPE_FLOAT),
            ("double_value", 13, kinds.TYPE_DOUBLE),
            ("boolean_value", 14, kinds.TYPE_BOOL),
            ("string_value", 15, kinds.TYPE_STRING),
        ),
        oneof=True,
    )
    payload = file.message_type.add(name="Payload")
    _fields(payload, (("timestamp", 1, kinds.TYPE_UINT64), ("seq", 3, kinds.TYPE_UINT64)), oneof=False)
    payload.field.add(
        name="metrics", number=2, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED, type_name=".sparkplug.Metric"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))
