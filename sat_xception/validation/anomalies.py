"""Which anomalies are accepted, the advice for each, and the error message that lists the others."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sat_xception.errors import ConfigError
from sat_xception.validation.findings import Anomaly, Distance, count_anomalies

__all__ = ["accept_anomalies", "advice_on", "explain", "how_many", "parse_pattern", "pattern_of", "place_of"]

_LISTED = 10
# Advice by feature and kind (patterns of `fnmatch`); the first match counts. TFDV's kinds are in anomalies.proto.
_ADVICE = (
    ("examples", "EMPTY_SPLIT", "assemble with other fractions or more tiles, so that every split gets some"),
    (
        "image/class/text",
        "COMPARATOR_*",
        "compare with `sat_xception dataset diff`; were labels swapped?",
    ),
    (
        "image/mean_luma",
        "COMPARATOR_*",
        "look at the mosaics of the dataset page: other imagery or season?",
    ),
    ("image/std_luma", "COMPARATOR_*", "look at the mosaics of the dataset page: haze, or other processing?"),
    ("image/*", "COMPARATOR_*", "see whether imagery, format or quality changed"),
    ("slice/*", "COMPARATOR_*", "see which regions came or went with `sat_xception dataset diff`"),
    ("image/class/*", "ENUM_TYPE_*", "correct the labels; for a new class, add it to the schema and train again"),
    ("image/class/label", "*", "a label has no class in the schema: correct it, or raise the schema's largest label"),
    ("image/format", "ENUM_TYPE_*", "convert the images; if the format is intended, add it to the schema"),
    ("image/height", "*_TYPE_*", "fetch tiles of the usual size, or widen the schema's range"),
    ("image/width", "*_TYPE_*", "fetch tiles of the usual size, or widen the schema's range"),
    ("*", "SCHEMA_NEW_COLUMN", "if the feature is intended, add it to the schema"),
    ("slice/*", "FEATURE_TYPE_LOW*", "fill in the column, or lower min_fraction in the schema"),
    ("*", "SCHEMA_MISSING_COLUMN", "run convert again; if removed on purpose, remove it from the schema too"),
    ("*", "FEATURE_TYPE_LOW*", "run convert again: every example should have it"),
)
_OTHERWISE = "correct the data, or the schema if this is intended"


def parse_pattern(text: str) -> tuple[str, str, str]:
    """Return the three parts of an `accept` pattern.

    Raises:
        ConfigError: The pattern hasn't three parts.
    """
    found = text.split(":")
    # A feature's name may hold a colon; splits, slices and kinds can't.
    if len(found) < 3 or not all(found):
        raise ConfigError(f"--accept {text!r} must have the form <split>:<feature>:<kind>, as '*:image/bytes:*'")
    return found[0], ":".join(found[1:-1]), found[-1]


def place_of(found: Anomaly | Distance) -> str:
    """Return the split, with the slice if there is one: "valid", or "valid/region=north"."""
    return f"{found.split}/{found.slice}" if found.slice else found.split


def pattern_of(anomaly: Anomaly) -> str:
    """Return the pattern that accepts this anomaly, and no other kind, split or slice."""
    place = re.sub(r"[:*?\[]", "?", place_of(anomaly))
    return f"{place}:{re.sub(r'[*?[]', '?', anomaly.feature)}:{anomaly.kind}"


def accept_anomalies(anomalies: Iterable[Anomaly], patterns: Iterable[tuple[str, str, str]]) -> tuple[Anomaly, ...]:
    """Return the anomalies with their advice; `accepted` is set where a pattern matches in all three parts.

    Args:
        anomalies: Anomalies that TFDV found.
        patterns: Split (with slice, as `place_of` writes it), feature and kind, each with the wildcards of `fnmatch`.
    """
    known = list(patterns)

    def accepted(anomaly: Anomaly) -> bool:
        values = (place_of(anomaly), anomaly.feature, anomaly.kind)
        return any(all(map(fnmatch.fnmatchcase, values, pattern)) for pattern in known)

    return tuple(
        anomaly.model_copy(update={"accepted": accepted(anomaly), "advice": advice_on(anomaly)})
        for anomaly in anomalies
    )


def advice_on(anomaly: Anomaly) -> str:
    """Return what to do about an anomaly that isn't intended."""
    for feature, kind, advice in _ADVICE:
        if fnmatch.fnmatchcase(anomaly.feature, feature) and fnmatch.fnmatchcase(anomaly.kind, kind):
            return advice
    return _OTHERWISE


def how_many(anomaly: Anomaly) -> str:
    """Return the number and share of examples, "" if unknown."""
    if anomaly.count is None:
        return ""
    return f"{anomaly.count:,}" + (f" ({anomaly.share:.1%})" if anomaly.share is not None else "")


def explain(stopping: Sequence[Anomaly], out: Path) -> str:
    """Return the error message: each anomaly with its split, count and advice, and how to accept intended ones."""
    lines = [f"{count_anomalies(len(stopping))} in the examples:"]
    for anomaly in stopping[:_LISTED]:
        number = f"{how_many(anomaly)} examples: " if anomaly.count else ""
        lines.append(
            f"  {place_of(anomaly)}: {anomaly.feature}: {number}{anomaly.description} [{anomaly.kind}]\n"
            f"      -> {anomaly.advice}"
        )
    if len(stopping) > _LISTED:
        lines.append(f"  and {len(stopping) - _LISTED} more")
    lines.append(
        f"See {out / 'report.html'}. Correct the data; or accept anomalies that are intended, as with "
        f"--accept '{pattern_of(stopping[0])}'"
    )
    return "\n".join(lines)
