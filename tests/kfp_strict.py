"""Hold JSON against kfp-server-api's models as strictly as the API server does: no unknown field, no wrong type."""

from __future__ import annotations

import re
from datetime import datetime

import kfp_server_api

__all__ = ["InvalidInputError", "read", "snake"]

# 64-bit integers, which protobuf writes as strings and reads from both.
_INT64 = frozenset({"max_concurrency", "interval_second", "long_value"})


class InvalidInputError(Exception):
    """What the server answers with HTTP 400."""


def snake(name: str) -> str:
    """Return a field's name as in the protobuf file; its JSON name is taken as well."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def read(value: object, kind: str, where: str = "body") -> object:
    """Return a JSON value of a kind, with the names of the protobuf file.

    Raises:
        InvalidInputError: It isn't of that kind.
    """
    if kind == "object" or value is None:
        return value
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        return [read(item, match[1], f"{where}[]") for item in _of(value, list, kind, where)]
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        return {key: read(item, match[1], f"{where}.{key}") for key, item in _of(value, dict, kind, where).items()}
    if kind == "str" and where.rpartition(".")[2] in _INT64:
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", str(value)):
            raise InvalidInputError(f"{where}: invalid value for int64: {value!r}")
        return str(value)
    if kind == "datetime":
        try:
            if datetime.fromisoformat(_of(value, str, kind, where)).tzinfo:
                return value
        except ValueError:
            pass
        raise InvalidInputError(f"{where}: invalid timestamp {value!r}")
    if kind in ("str", "bool", "int"):
        return _of(value, {"str": str, "bool": bool, "int": int}[kind], kind, where)
    return _model(value, getattr(kfp_server_api.models, kind), where)


def _model(value: object, model: type, where: str) -> object:
    if hasattr(model, "allowable_values"):
        if value not in model.allowable_values:
            raise InvalidInputError(f"{where}: {value!r} is none of {model.allowable_values}")
        return value
    fields = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
    result = {}
    for key, item in _of(value, dict, model.__name__, where).items():
        name = key if key in fields else snake(key)
        if name not in fields:
            raise InvalidInputError(f"{where}: unknown field {key!r} of {model.__name__}")
        result[name] = read(item, fields[name], f"{where}.{name}")
    return result


def _of(value: object, python: type, kind: str, where: str):
    if not isinstance(value, python) or (python is int and isinstance(value, bool)):
        raise InvalidInputError(f"{where}: {value!r} is no {kind}")
    return value
