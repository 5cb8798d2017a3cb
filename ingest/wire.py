"""A request on the wire, for Python to look at before the engine decodes it.

`Frame`: an ExportTraceServiceRequest whose spans stay bytes; what stands around them is OTLP's own, and as strict.
`Request`, `Span`: as the engine reads them, by the same schema/otlp.proto: what one can't read, the other can't. What is in the value of an attribute,
and whether texts are UTF-8, is looked at neither here nor there, but where something is made of them, in schema/sql/normalise.sql.

They are protobuf's classes: `FromString(data)` raises DecodeError.
"""

import re
from importlib.resources import files
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from opentelemetry.proto.trace.v1 import trace_pb2

_PACKAGE: Final = "tallystick"
_MESSAGE: Final = re.compile(r"message (\w+) \{(.*?)\}", re.DOTALL)
_FIELD: Final = re.compile(r"(repeated )?(\w+) (\w+) = (\d+);")
_SCALARS: Final = {
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "string": FieldDescriptorProto.TYPE_BYTES,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "fixed64": FieldDescriptorProto.TYPE_FIXED64,
}
"""Texts as bytes: to the engine they are the same."""


def _frame() -> FileDescriptorProto:
    official = FileDescriptorProto()
    trace_pb2.DESCRIPTOR.CopyToProto(official)
    file = FileDescriptorProto(
        name="tallystick/frame.proto", package=f"{_PACKAGE}.frame", syntax="proto3", dependency=official.dependency
    )
    # TracesData is what an ExportTraceServiceRequest is.
    around = {"TracesData", "ResourceSpans", "ScopeSpans"}
    file.message_type.extend(message for message in official.message_type if message.name in around)
    for message in file.message_type:
        for field in message.field:
            name = field.type_name.removeprefix(f".{official.package}.")
            if name == "Span":
                field.type = FieldDescriptorProto.TYPE_BYTES
                field.ClearField("type_name")
            elif name in around:
                field.type_name = f".{file.package}.{name}"
    return file


def _as_the_engine_reads() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tallystick/otlp.proto", package=f"{_PACKAGE}.otlp", syntax="proto3")
    text = files("tallystick.schema").joinpath("otlp.proto").read_text(encoding="utf-8")
    for message_name, body in _MESSAGE.findall(text):
        message = file.message_type.add(name=message_name)
        for repeated, kind, name, number in _FIELD.findall(body):
            field = message.field.add(name=name, number=int(number))
            field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{file.package}.{kind}"
    return file


def _messages(file: FileDescriptorProto, *names: str) -> list[Any]:
    pool: Any = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in names]


(Frame,) = _messages(_frame(), "TracesData")
Request, Span = _messages(_as_the_engine_reads(), "Request", "Span")
