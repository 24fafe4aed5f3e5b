"""Check prose for phrases that have a plainer form: `python -m tests.words`, part of `make lint`.

Reads Markdown files (without code blocks), docstrings and the `description=` of settings. The paths in `COVERED` have
been rewritten; `python -m tests.words PATH …` checks any other file.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["findings"]

# Globs of files and folders, from the root of the repository.
COVERED: tuple[str, ...] = (
    "README.md",
    "docs",
    "CONTRIBUTING.md",
    "sat_xception/**/settings.py",
    "sat_xception/kubeflow/run_settings.py",
    "sat_xception/settings",
    "sat_xception/examples",
    "sat_xception/geo",
    "sat_xception/imagery",
    "sat_xception/notify",
    "sat_xception/publish",
    "sat_xception/search",
    "sat_xception/storage",
    "components",
    "pipelines",
)

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
    rf"\b(?:{_COUNTED}) an? (?:{_PER})\b": "one X per Y, X per second",
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
    r"\bnobody\b": "no one, nothing",
    r"\bmust surely\b": "confidence bound",
    r"\bthat there is none\b": "means not given",
    r"\basks? for none\b": "0 disables the check",
    r"\bdoesn't compare\b": "disables the check",
    r"\btells? (?:it|of|which)\b": "says which noun: identifies, reports",
    r"\bexam\b": "test set, evaluation",
}
_PATTERNS = [(re.compile(pattern), plain) for pattern, plain in BANNED.items()]
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
    """Yield each docstring and each `description=`, with its line number."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text
        if isinstance(node, ast.keyword) and node.arg == "description" and isinstance(node.value, ast.Constant):
            yield node.value.lineno, str(node.value.value)


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
