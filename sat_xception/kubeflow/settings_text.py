"""Read the YAML text of a pipeline's `settings` parameter: a mapping of sections, each a mapping of settings."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["read_mapping"]

_BOOL = "tag:yaml.org,2002:bool"
_TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """Safe loader that takes `on`, `off`, `yes`, `no` and dates as text, as YAML 1.2 does, and no key twice.

    Settings such as `xla: off` are text; pydantic reads `yes` and `no` for settings that are true or false.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_BOOL, _TIMESTAMP)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name = key.value.replace("-", "_")
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_mapping(text: str, origin: str) -> dict[str, Any]:
    """Return the content of a YAML text; an empty text is an empty mapping.

    Args:
        text: YAML. Keys may use `-` or `_`.
        origin: Source of the text, for messages.

    Raises:
        ValueError: The text isn't YAML, or holds no mapping; the message names the line.
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{origin}{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{origin}: not valid YAML: {str(error).splitlines()[0]}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = "list" if isinstance(content, list) else type(content).__name__
        raise ValueError(
            f"{origin}: expected a YAML mapping of sections, such as {{gate: {{min_accuracy: 0.9}}}}; got a {kind}: "
            f"{content!r}"
        )
    return {str(key).replace("-", "_"): value for key, value in content.items()}
