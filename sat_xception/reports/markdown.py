"""Markdown tables with texts from the data, escaped: names of classes and files may hold any character.

The Kubeflow UI cuts a Markdown artifact after 50 KB (kubeflow/pipelines#5585); these stay far below.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

__all__ = ["plain", "table"]


def plain(text: str) -> str:
    """Return a text escaped for Markdown, also inside a table."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int) -> list[str]:
    """Return the lines of a table.

    Args:
        head: Titles of the columns.
        rows: Cells; texts are escaped, whole numbers get thousands separators.
        numbers_from: Index of the first column with numbers; it and those after it are aligned to the right.
    """
    rule = ["---" if index < numbers_from else "---:" for index in range(len(head))]
    return [_line([plain(title) for title in head]), f"|{'|'.join(rule)}|", *(_line(map(_cell, row)) for row in rows)]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else plain(str(value))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
