"""Reports on a publication: a summary in Markdown and a self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from sat_xception.publish.known_places import BELOW, FAILED, FOUND, NOT_PLANNED
from sat_xception.reports.markdown import plain, table
from sat_xception.reports.page import render_page

__all__ = ["write_reports"]

_BEST = 20
_MAX_REASONS = 20
# Keeps Markdown below the 50 KB that the Kubeflow UI shows.
_MAX_AREAS = 200


def write_reports(folder: Path, description: Mapping[str, Any], candidates: pa.Table) -> None:
    """Write `summary.md`, and `report.html` with the heat map that is in the folder.

    Args:
        folder: Where to.
        description: Content of `publication.json`.
        candidates: One row per site, highest probability first.
    """
    best = candidates.slice(0, _BEST).to_pylist()
    reasons = list(description["reasons"].items())
    (folder / "summary.md").write_text(_markdown(description, best, reasons), encoding="utf-8")
    picture = base64.b64encode((folder / "heat-map.png").read_bytes()).decode()
    page = render_page(
        "publication",
        synthetic=False,
        **description,
        outcomes=_outcomes(description["known"]),
        best=best,
        reason_rows=reasons[:_MAX_REASONS],
        more_reasons=sum(number for _, number in reasons[_MAX_REASONS:]),
        heat_map=f"data:image/png;base64,{picture}",
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _outcomes(known: Mapping[str, int]) -> list[tuple[str, int]]:
    words = {
        FOUND: "found: a candidate is near",
        BELOW: "missed: its tile is below the threshold",
        FAILED: "not looked at: its tile failed",
        NOT_PLANNED: "not looked at: its tile wasn't planned",
    }
    return [(text, known[outcome]) for outcome, text in words.items()] if known else []


def _markdown(description: Mapping[str, Any], best: list[dict[str, Any]], reasons: list[tuple[str, int]]) -> str:
    tiles, sites, model = description["tiles"], description["candidates"], description["model"]
    lines = [
        f"# Candidates for {plain(description['positive_label'])}",
        "",
        f"{plain(str(model['name']))} version {plain(str(model['version']))}, threshold {description['threshold']:g}.",
        "",
        f"{tiles['planned']:,} tiles planned = {tiles['scored']:,} scored + {tiles['failed']:,} failed; "
        f"{tiles['scored']:,} scored = {tiles['candidates']:,} candidates + {tiles['below']:,} below the threshold.",
        "",
        f"The candidate tiles make **{sites['sites']:,} sites**"
        + (f": {sites['known']:,} known, {sites['new']:,} new." if description["known"] else "."),
        "",
    ]
    if description["known"]:
        lines += [*table(["known places", "number"], _outcomes(description["known"]), 1), ""]
    if description["areas"]:
        rows = description["areas"][:_MAX_AREAS]
        lines += [*table(list(rows[0]), [list(row.values()) for row in rows], 1), ""]
        if more := len(description["areas"]) - len(rows):
            lines += [f"And {more:,} more areas, in publication.json.", ""]
    if reasons:
        lines += [*table(["why tiles failed", "tiles"], reasons[:_MAX_REASONS], 1), ""]
    if best:
        rows = [[row["site"], f"{row['score']:.3f}", row["tiles"], row["comparison"] or "", row["area"] or ""]
                for row in best]  # fmt: skip
        lines += [*table(["best candidates", "score", "tiles", "", "area"], rows, 5), ""]
    if description["attribution"]:
        lines += [f"Imagery: {plain(description['attribution'])}", ""]
    return "\n".join(lines)
