"""Reports on a publication: a summary in Markdown and a self-contained page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa

from sat_xception.publish.publication import KnownCounts, Publication
from sat_xception.reports.markdown import plain, table
from sat_xception.reports.page import render_page

__all__ = ["write_reports"]

_BEST = 20
_MAX_REASONS = 20
# Keeps Markdown below the 50 KB that the Kubeflow UI shows.
_MAX_AREAS = 200


def write_reports(folder: Path, publication: Publication, candidates: pa.Table) -> None:
    """Write `summary.md`, and `report.html` with the heat map that is in the folder.

    Args:
        folder: Where to.
        publication: The counts.
        candidates: One row per site, highest probability first.
    """
    best = candidates.slice(0, _BEST).to_pylist()
    reasons = list(publication.reasons.items())
    areas = [row.content() for row in publication.areas]
    (folder / "summary.md").write_text(_markdown(publication, best, reasons, areas), encoding="utf-8")
    picture = base64.b64encode((folder / "heat-map.png").read_bytes()).decode()
    page = render_page(
        "publication",
        synthetic=False,
        **(dict(publication) | {"areas": areas}),
        outcomes=_outcomes(publication.known),
        best=best,
        reason_rows=reasons[:_MAX_REASONS],
        more_reasons=sum(number for _, number in reasons[_MAX_REASONS:]),
        heat_map=f"data:image/png;base64,{picture}",
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def _outcomes(known: KnownCounts | None) -> list[tuple[str, int]]:
    if known is None:
        return []
    return [
        ("found: a candidate is near", known.found),
        ("missed: its tile is below the threshold", known.below_threshold),
        ("not looked at: its tile failed", known.tile_failed),
        ("not looked at: its tile wasn't planned", known.not_planned),
    ]


def _markdown(
    publication: Publication,
    best: list[dict[str, Any]],
    reasons: list[tuple[str, int]],
    areas: list[dict[str, Any]],
) -> str:
    tiles, sites, model = publication.tiles, publication.candidates, publication.model
    lines = [
        f"# Candidates for {plain(publication.positive_label)}",
        "",
        f"{plain(model.name)} version {model.version}, threshold {publication.threshold:g}.",
        "",
        f"{tiles.planned:,} tiles planned = {tiles.scored:,} scored + {tiles.failed:,} failed; "
        f"{tiles.scored:,} scored = {tiles.candidates:,} candidates + {tiles.below:,} below the threshold.",
        "",
        f"The candidate tiles make **{sites.sites:,} sites**"
        + (f": {sites.known:,} known, {sites.new:,} new." if publication.known else "."),
        "",
    ]
    if publication.known:
        lines += [*table(["known places", "number"], _outcomes(publication.known), 1), ""]
    if areas:
        rows = areas[:_MAX_AREAS]
        lines += [*table(list(rows[0]), [list(row.values()) for row in rows], 1), ""]
        if more := len(areas) - len(rows):
            lines += [f"And {more:,} more areas, in publication.json.", ""]
    if reasons:
        lines += [*table(["why tiles failed", "tiles"], reasons[:_MAX_REASONS], 1), ""]
    if best:
        lines += [*table(["best candidates", "score", "tiles", "", "area"], [_cells(row) for row in best], 5), ""]
    if publication.attribution:
        lines += [f"Imagery: {plain(publication.attribution)}", ""]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[Any]:
    return [row["site"], f"{row['score']:.3f}", row["tiles"], row["comparison"] or "", row["area"] or ""]
