"""Values that settings take, for tests that walk all settings of a pipeline."""

import typing
from types import UnionType

__all__ = ["candidates", "settings_of"]


def candidates(annotation, default):
    """Values of a type that a setting may take, if it takes any other than its default."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return candidates(inner[0], default)
    if origin is typing.Literal:
        return list(inner)
    if origin in (typing.Union, UnionType):
        return [value for item in inner if item is not type(None) for value in candidates(item, default)]
    if origin is tuple and inner[-1] is not Ellipsis:
        return [[0.5, 0.25, 0.25]]
    if origin is tuple:
        return [[value] for value in candidates(inner[0], default)] + [[50, 100], [1.0, 2.0]]
    texts = [
        "text",
        "a.h5",
        "http://host:80",
        "gs://bucket/a/b",
        "precision-at-recall:0.5",
        "http://{service}",
        "--a=b",
    ]
    return {bool: [True, False], int: [1, 2, 17, 300], float: [0.25, 0.5, 3.0, 20_000.0], str: texts}.get(
        annotation, ["gs://bucket/a/b", "folder"]
    )


def settings_of(pipeline):
    return [(section, name) for section, names in pipeline.sections.items() for name in names]
