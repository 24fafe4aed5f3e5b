"""Write generated tables into the documentation: docs/kubeflow.md, docs/bulk-pipeline.md, docs/settings.md."""

from __future__ import annotations

import html
from pathlib import Path

from sat_xception.errors import ConfigError

__all__ = ["replace_between", "table_cell"]


def table_cell(text: str) -> str:
    r"""Return a text as it is written in a cell of a table.

    Examples:
        >>> print(table_cell("DIR/<class>/* or none|all"))
        DIR/&lt;class&gt;/\* or none\|all
    """
    return html.escape(text, quote=False).replace("|", "\\|").replace("*", "\\*")


def replace_between(path: Path, name: str, text: str) -> None:
    """Replace what is between the comments `<!-- name -->` and `<!-- end of name -->` of a Markdown file.

    Raises:
        ConfigError: The file has no such comments.
    """
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(start)
    _, mark, after = rest.partition(end)
    if not mark:
        raise ConfigError(f"{path} has no {start} … {end} to put the {name} between")
    path.write_text(f"{before}{start}\n\n{text}\n{end}{after}", encoding="utf-8")
