"""Check prose for phrases that have a plainer form: `python -m tests.words`, part of `make lint`.

Reads Markdown files (without code blocks); and of Python files docstrings, comments, the `description=` of settings,
and the texts of errors and log lines. `python -m tests.words PATH …` checks other files than those in `COVERED`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

__all__ = ["findings"]

# Globs of files and folders, from the root of the repository.
COVERED: tuple[str, ...] = ("README.md", "docs", "CONTRIBUTING.md", "sat_xception", "components", "pipelines")

_PER = (
    "second|minute|hour|day|step|tile|image|shard|class|process|core|task|call|request|candidate|positive|split|batch|pod|"
    "machine|worker|run|file|trial|epoch|setting|verb|component|commit|zoom|version|model|backbone|block|slice|site|GPU"
)
_COUNTED = (
    "rows?|lines?|tiles|images|requests|calls|bytes|MB|GB|figures?|steps|runs|shards|threads|processes|epochs|seconds|ms|"
    "times|folders?|files?|objects?|values?|records?|one|once|dollars|pictures|candidates|connections|sessions?|class"
)

# Each pattern with the plain form. A word that also has a good use gets a narrow pattern.
BANNED: dict[str, str] = {
    rf"\b(?:{_COUNTED}) an? (?:{_PER})\b(?! time\b)": "one X per Y, X per second",
    r"(?:^|[:.] )(?:Most|Least) (?!of\b)[a-z]": "Maximum, Minimum",
    r"\b(?:is|are|was|were|be|been|being) (?:told|said)\b": "is logged, is reported, is in the message",
    r"\b(?:it|he|log|report|message|error|page|file|file's name|run|summary|line) (?:tells|says|said|told)\b": (
        "reports, contains, states"
    ),
    r"(?:^|[:.] )(?:Say|Tell) (?:what|how|that|which|where|why|of)\b": "Report, Print, List",
    r"\bwhom\b": "name the person or the thing",
    r"\bwho(?:ever)? wants?\b": "if you want, users who need",
    r"\bwants? (?:named|it so)\b": "requires",
    r"\bof what\b": "name the thing",
    r"\bcom(?:es|e|ing) to (?:the|a|an|about|\d|nothing|some)\b": "is, amounts to",
    r"\bg(?:ives?|ave) way\b": "is ignored, is overridden",
    r"\bin so many\b|\bafter so many\b|\bso many of\b": "by N or fewer, after this many",
    r"\breckon(?:s|ed|ing)?\b": "estimate",
    r"\bthat is looked for\b": "positive class",
    r"\blooks? the same\b": "is a near-duplicate",
    r"\bheld (?:against|to)\b": "compared with, required of",
    r"\b(?:begins?|done|read|made|written) anew\b": "again, from the start",
    r"\bdear(?:er|est)?\b": "expensive",
    r"\b[Nn]obody\b": "no one, nothing",
    r"\bmust surely\b": "confidence bound",
    r"\bthat there is none\b": "means not given",
    r"\basks? for none\b": "0 disables the check",
    r"\bdoesn't compare\b": "disables the check",
    r"\btells? (?:it|of|which)\b": "says which noun: identifies, reports",
    r"\bexam\b": "test set, evaluation",
    # A place on the map is one; a path, an address, an index or coordinates have their own words.
    r"\b(?:[Ii]ts|[Tt]heir) places?\b": "path, address, index, coordinates, location",
    r"\bplaces? (?:is|are|isn't|aren't) known\b": "coordinates are known",
    r"\b(?:has|have|had|hasn't|with|without|says?|say no) (?:a|no) places?\b(?! on the map)": "location, coordinates",
    r"\bthe places? (?:of|in|where|with)\b": "index, position, path, replaces",
    r"\b(?:a|of|any) place (?:of its own|in a bucket|that)\b": "folder, address, path",
    r"\b(?:[Nn]ame|at) (?:any of )?(?:another|these) places?\b": "folder, address, path",
    r"\b[Ww]ho(?:ever)? (?:is|has|holds|runs|reads|writes|started|comes|knows)\b": "name the person or the process",
    r"\b[Ww]hat it (?:says|said|was told|is told|gave|found)\b": "the message, the content, the result",
    r"\bha(?:s|ve|d) (?:a|its|their) say\b": "affects",
    r"\bwhat (?:became|came) of\b|\bwhat they come to\b": "result",
    r"\bwhere there (?:is|are) none\b": "if there is none",
    r"\b(?:can't|to) be had\b": "isn't available",
    r"\bto the eye\b": "near-duplicate",
    r"\bas people (?:read|write|meet|call) (?:it|them)\b": "format, as text",
    r"\bmakes? sure\b": "checks, ensures",
    r"\bwhole or not at all\b": "atomically",
}
_PATTERNS = [(re.compile(pattern), plain) for pattern, plain in BANNED.items()]
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "exception"})
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def findings(path: Path) -> Iterator[str]:
    """Yield one line per banned phrase in a file, with its position and the plain form."""
    content = path.read_text(encoding="utf-8")
    texts = _of_markdown(content) if path.suffix == ".md" else _of_python(content)
    for number, text in texts:
        # A phrase may be broken over two lines.
        flat = re.sub(r"\s*\n\s*", " ", text)
        lines = [line.strip() for line in text.splitlines()]
        seen = set()
        for piece in (flat, *lines):
            for pattern, plain in _PATTERNS:
                for match in pattern.finditer(piece):
                    if (found := match.group().strip(":. ")) not in seen:
                        seen.add(found)
                        yield f"{path}:{number}: {found!r}; better: {plain}"


def _of_markdown(content: str) -> Iterator[tuple[int, str]]:
    """Yield each paragraph outside code blocks, with the number of its first line."""
    start, lines, in_code = 1, list[str](), False
    for number, line in enumerate([*content.splitlines(), ""], start=1):
        fence = line.lstrip().startswith("```")
        if fence or in_code or not line.strip():
            if lines:
                yield start, "\n".join(lines)
            lines = []
            in_code = in_code != fence
            continue
        if not lines:
            start = number
        lines.append(re.sub(r"`[^`]*`", "`code`", line))


def _of_python(content: str) -> Iterator[tuple[int, str]]:
    """Yield docstrings, `description=`, texts of errors and log lines, and comments, each with its line number."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
        if isinstance(node, ast.keyword) and node.arg == "description" and isinstance(node.value, ast.Constant):
            yield node.value.lineno, str(node.value.value)
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and _is_log_call(node.value)):
            yield from _texts_in(node)
    yield from _comments(content)


def _is_log_call(node: ast.expr) -> bool:
    """Return whether an expression is `_log.info(…)` or the like."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in _LOG_METHODS
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "_log"
    )


def _texts_in(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings in a statement; the values in an f-string become "…"."""
    if isinstance(node, ast.JoinedStr):
        parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        yield node.lineno, "".join(parts)
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                yield from _texts_in(part.value)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.lineno, node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from _texts_in(child)


def _comments(content: str) -> Iterator[tuple[int, str]]:
    """Yield each comment; those on consecutive lines are one."""
    start, last, texts = 0, -1, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1 and texts:
            yield start, "\n".join(texts)
            texts = []
        if not texts:
            start = token.start[0]
        texts.append(token.string.lstrip("# "))
        last = token.start[0]
    if texts:
        yield start, "\n".join(texts)


def _files(paths: list[str]) -> Iterator[Path]:
    for path in (match for glob in paths for match in sorted(Path().glob(glob))):
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix in (".md", ".py"))
        else:
            yield path


def main(paths: list[str]) -> int:
    """Print what is found and return 1, or 0 if there is nothing."""
    files = list(_files(paths or list(COVERED)))
    found = [finding for file in files for finding in findings(file)]
    print("\n".join(found) if found else f"words     {len(files)} files | no banned phrase")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
