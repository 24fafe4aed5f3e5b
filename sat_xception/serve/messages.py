"""Responses for model status and metadata as protos, and as JSON in TensorFlow Serving's format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

from sat_xception.serve.protocol import Code, VersionStatus
from sat_xception.serve.versions import ServedVersion

__all__ = ["metadata_response", "metadata_to_json", "status_response", "to_json"]

_SIGNATURE_DEF = "signature_def"


def status_response(statuses: Iterable[VersionStatus]) -> GetModelStatusResponse:
    """Return the states of versions as a GetModelStatus response."""
    response = GetModelStatusResponse()
    for status in statuses:
        item = response.model_version_status.add(version=status.version, state=status.state)
        item.status.error_code = Code[status.error_code]
        item.status.error_message = status.error_message
    return response


def metadata_response(name: str, served: ServedVersion) -> GetModelMetadataResponse:
    """Return the signatures of a loaded version as a GetModelMetadata response."""
    signatures = SignatureDefMap()
    for signature, definition in served.model.signatures.items():
        signatures.signature_def[signature].CopyFrom(definition)
    response = GetModelMetadataResponse()
    response.model_spec.name = name
    response.model_spec.version.value = served.number
    response.metadata[_SIGNATURE_DEF].Pack(signatures)
    return response


def metadata_to_json(response: GetModelMetadataResponse) -> dict[str, Any]:
    """Return a metadata response as REST returns it, with the Any unpacked and without its type URL."""
    signatures = SignatureDefMap()
    response.metadata[_SIGNATURE_DEF].Unpack(signatures)
    return {"model_spec": to_json(response.model_spec), "metadata": {_SIGNATURE_DEF: to_json(signatures)}}


def to_json(message: Message) -> dict[str, Any]:
    """Return a proto as JSON types, with the proto's field names and with default values."""
    content: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return content
