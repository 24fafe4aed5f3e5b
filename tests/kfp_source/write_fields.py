"""Write down which fields a version of KFP knows: `python tests/kfp_source/write_fields.py 2.16 FOLDER`.

FOLDER holds the unpacked wheels of kfp-pipeline-spec and of kfp-kubernetes of that version (`pip download --no-deps`,
`unzip -d FOLDER`). Two versions of one proto file don't fit in one Python process, and the API server of a cluster is
older than the SDK more often than not, so the tests read the fields from these files.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

ROOTS = {
    "kfp/pipeline_spec/pipeline_spec_pb2.py": ("PipelineSpec", "PipelineDeploymentConfig", "PlatformSpec"),
    "kfp/kubernetes/kubernetes_executor_config_pb2.py": ("KubernetesExecutorConfig",),
}
_SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: "int",
    FieldDescriptor.CPPTYPE_INT64: "int",
    FieldDescriptor.CPPTYPE_UINT32: "int",
    FieldDescriptor.CPPTYPE_UINT64: "int",
    FieldDescriptor.CPPTYPE_DOUBLE: "number",
    FieldDescriptor.CPPTYPE_FLOAT: "number",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_STRING: "str",
}
# Messages that are any JSON value or a text in JSON.
_WELL_KNOWN = {
    "google.protobuf.Value": "any",
    "google.protobuf.Struct": "object",
    "google.protobuf.ListValue": "list",
    "google.protobuf.Duration": "str",
    "google.protobuf.Timestamp": "str",
}


def main(version: str, folder: Path) -> None:
    messages: dict[str, dict[str, str]] = {}
    for number, (path, names) in enumerate(ROOTS.items()):
        spec = importlib.util.spec_from_file_location(f"fields_{number}", folder / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["kfp.pipeline_spec.pipeline_spec_pb2"] = module if not number else sys.modules["fields_0"]
        spec.loader.exec_module(module)
        sys.modules[spec.name] = module
        for name in names:
            _add(module.DESCRIPTOR.message_types_by_name[name], messages)
    target = Path(__file__).with_name("fields") / f"{version}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(messages, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"wrote     {target}: {len(messages)} messages")


def _add(message: Descriptor, messages: dict[str, dict[str, str]]) -> None:
    if message.full_name in messages or message.full_name in _WELL_KNOWN:
        return
    messages[message.full_name] = fields = {}
    for field in message.fields:
        entry = field.message_type if field.message_type and field.message_type.GetOptions().map_entry else None
        value = entry.fields_by_name["value"] if entry else field
        repeated = "{}" if entry else "[]" if field.is_repeated else ""
        fields[field.json_name] = repeated + _kind(value)
        if value.message_type:
            _add(value.message_type, messages)


def _kind(field: FieldDescriptor) -> str:
    if field.message_type:
        return _WELL_KNOWN.get(field.message_type.full_name, field.message_type.full_name)
    if field.enum_type:
        return "enum:" + "|".join(value.name for value in field.enum_type.values)
    return _SCALARS[field.cpp_type]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
