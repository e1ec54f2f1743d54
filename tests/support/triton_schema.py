"""The fields of Triton's model configuration that an export writes, as a protobuf schema.

Names, numbers and types are those of `protobuf/model_config.proto` in github.com/triton-inference-server/common (package
`inference`), which is also in the package tritonclient as `tritonclient.grpc.model_config_pb2`.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
STRING, INT32, INT64, UINT64, ENUM, MESSAGE = (
    FIELD.TYPE_STRING, FIELD.TYPE_INT32, FIELD.TYPE_INT64, FIELD.TYPE_UINT64, FIELD.TYPE_ENUM, FIELD.TYPE_MESSAGE,
)  # fmt: skip
ENUMS = {
    "DataType": {
        "TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_UINT16": 3, "TYPE_UINT32": 4, "TYPE_UINT64": 5, "TYPE_INT8": 6,
        "TYPE_INT16": 7, "TYPE_INT32": 8, "TYPE_INT64": 9, "TYPE_FP16": 10, "TYPE_FP32": 11, "TYPE_FP64": 12, "TYPE_STRING": 13,
        "TYPE_BF16": 14,
    },
    "Format": {"FORMAT_NONE": 0, "FORMAT_NHWC": 1, "FORMAT_NCHW": 2},  # in the original, within ModelInput
    "Kind": {"KIND_AUTO": 0, "KIND_GPU": 1, "KIND_CPU": 2, "KIND_MODEL": 3},  # in the original, within ModelInstanceGroup
}  # fmt: skip
# of each message: the fields with number, type, name of its type, and whether it is repeated
MESSAGES = {
    "ModelInput": [
        ("name", 1, STRING, None, False), ("data_type", 2, ENUM, "DataType", False), ("format", 3, ENUM, "Format", False),
        ("dims", 4, INT64, None, True),
    ],
    "ModelOutput": [
        ("name", 1, STRING, None, False), ("data_type", 2, ENUM, "DataType", False), ("dims", 3, INT64, None, True),
        ("label_filename", 4, STRING, None, False),
    ],
    "ModelDynamicBatching": [
        ("preferred_batch_size", 1, INT32, None, True), ("max_queue_delay_microseconds", 2, UINT64, None, False),
    ],
    "ModelInstanceGroup": [("count", 2, INT32, None, False), ("kind", 4, ENUM, "Kind", False)],
    "ModelConfig": [
        ("name", 1, STRING, None, False), ("platform", 2, STRING, None, False), ("max_batch_size", 4, INT32, None, False),
        ("input", 5, MESSAGE, "ModelInput", True), ("output", 6, MESSAGE, "ModelOutput", True),
        ("instance_group", 7, MESSAGE, "ModelInstanceGroup", True),
        ("dynamic_batching", 11, MESSAGE, "ModelDynamicBatching", False),
    ],
}  # fmt: skip


def model_config():
    """A new, empty message of the type ModelConfig."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of, repeated in fields:
            label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label, type_name=of and f".inference.{of}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()
