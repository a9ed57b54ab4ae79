"""Lists every message, field, enum value and method of P4Runtime, one a line.

Without an argument from the official bindings (PyPI package `p4runtime`), else
from the serialised FileDescriptorSet in the file that is named.
"""

import sys

from google.protobuf import descriptor_pb2

FILES = (
    "google/rpc/status.proto",
    "p4/config/v1/p4info.proto",
    "p4/config/v1/p4types.proto",
    "p4/v1/p4data.proto",
    "p4/v1/p4runtime.proto",
)


def official():
    from google.protobuf import descriptor_pool
    from google.rpc import status_pb2  # noqa: F401
    from p4.v1 import p4runtime_pb2  # noqa: F401

    for name in FILES:
        proto = descriptor_pb2.FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(name).CopyToProto(proto)
        yield proto


def own(path):
    files = descriptor_pb2.FileDescriptorSet()
    with open(path, "rb") as encoded:
        files.ParseFromString(encoded.read())
    return (proto for proto in files.file if proto.name in FILES)


def enum_lines(prefix, enum):
    for value in enum.value:
        yield f"enum {prefix}.{enum.name} {value.name} = {value.number}"


def message_lines(prefix, message):
    name = f"{prefix}.{message.name}"
    yield f"message {name}"
    for field in message.field:
        oneof = ""
        if field.HasField("oneof_index"):
            oneof = " oneof " + message.oneof_decl[field.oneof_index].name
        deprecated = " deprecated" if field.options.deprecated else ""
        kind = field.type_name or descriptor_pb2.FieldDescriptorProto.Type.Name(field.type)
        label = descriptor_pb2.FieldDescriptorProto.Label.Name(field.label)
        yield f"field {name}.{field.name} = {field.number} {label} {kind}{oneof}{deprecated}"
    for enum in message.enum_type:
        yield from enum_lines(name, enum)
    for nested in message.nested_type:
        yield from message_lines(name, nested)


def lines(files):
    for proto in files:
        prefix = "." + proto.package
        yield f"file {proto.name} package {proto.package} syntax {proto.syntax}"
        for enum in proto.enum_type:
            yield from enum_lines(prefix, enum)
        for message in proto.message_type:
            yield from message_lines(prefix, message)
        for service in proto.service:
            for method in service.method:
                yield (
                    f"rpc {prefix}.{service.name}/{method.name} "
                    f"{method.input_type} {method.client_streaming} "
                    f"{method.output_type} {method.server_streaming}"
                )


if __name__ == "__main__":
    chosen = own(sys.argv[1]) if len(sys.argv) > 1 else official()
    print("\n".join(sorted(lines(chosen))))
