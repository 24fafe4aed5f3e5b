"""Publish the scores of many tiles: maps, tables, a page and the review page, all from one folder of scores."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sat_xception.bulk.run_document import BulkScores, ScoredImagery
from sat_xception.bulk.score_files import count_values, probability_column
from sat_xception.bulk.score_folder import ScoreFolder, check_scores, open_score_folder
from sat_xception.errors import ConfigError, DataError
from sat_xception.geo.sites import Sites, merge_tiles
from sat_xception.geo.vectors import read_layer
from sat_xception.imagery.settings import PixelSettings
from sat_xception.log import get_logger
from sat_xception.publish.area_counts import AreaCounts
from sat_xception.publish.candidate_files import candidate_table, write_candidates
from sat_xception.publish.heat_map import HeatMap
from sat_xception.publish.known_places import KnownPlaceMatches, KnownPlaces
from sat_xception.publish.publication import AreaRow, KnownCounts, Publication, ReviewCounts, SiteCounts, TileCounts
from sat_xception.publish.report import write_reports
from sat_xception.publish.settings import PublishConfig
from sat_xception.reports.spreadsheet import write_csv
from sat_xception.review.imagery import PageImagery, copy_tiles, page_imagery
from sat_xception.review.lock import review_lock
from sat_xception.review.page import PageHead, review_data, write_page
from sat_xception.review.record import RECORD, ReviewRecord
from sat_xception.settings.config import shown
from sat_xception.storage import atomic_folder, fetch_folder, is_remote, read_stored_bytes

__all__ = ["PublishResult", "publish"]

_log = get_logger(__name__)
_MAX_REASONS_COUNTED = 1000
# Settings of the scored imagery that may differ without other pictures.
_NO_OTHER_PICTURES = ("attribution", "max_pixels", "retried_with_file")
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PublishResult:
    """Result of publishing.

    Attributes:
        out: Folder of the result.
        publication: Content of `publication.json`.
    """

    out: Path
    publication: Publication

    def summary(self) -> str:
        """Return the counts, the paths and the next command."""
        tiles, sites = self.publication.tiles, self.publication.candidates
        parts = [f"{sites.sites:,} candidates of {tiles.candidates:,} tiles"]
        if self.publication.known:
            parts.append(f"{sites.known:,} known  {sites.new:,} new")
        # `review` writes a file with every verdict, so it takes folders on this machine only.
        after = (
            "publish to a folder on this machine, for the review"
            if is_remote(self.out)
            else f"sat_xception review {self.out}"
        )
        return (
            f"publish   {tiles.planned:,} tiles | {tiles.scored:,} scored  {tiles.failed:,} failed | "
            f"{' | '.join(parts)}\nwrote     {self.out}   page: {self.out}/report.html\nnext      {after}"
        )


class _Findings:
    """Results of one pass over all rows; tiles below the threshold are only counted."""

    def __init__(self, scores: ScoreFolder, threshold: float, heat: HeatMap) -> None:
        self._scores, self._threshold, self._heat = scores, threshold, heat
        self._parts: list[tuple[Integers, Integers, npt.NDArray[np.float32]]] = []
        self.reasons: Counter[str] = Counter()
        self.by_label: Counter[str] = Counter()

    def read(self, known: KnownPlaces | None, areas: AreaCounts | None) -> Sites:
        """Read every row, and return the sites of the candidates."""
        column = probability_column(self._scores.positive)
        for batch in self._scores.batches(["x", "y", "status", "reason", "label", column], "read"):
            x, y = (batch.column(axis).to_numpy(zero_copy_only=False).astype(np.int64) for axis in "xy")
            score = self._probabilities(batch, column)
            scored = ~np.isnan(score)
            self._heat.look_at(x, y, score)
            if known is not None:
                known.look_at(x, y, score)
            if areas is not None:
                areas.look_at(x, y, scored, self._scores.zoom)
            # Compared as they are stored: 0.9 in a column of float32 is a little less than 0.9.
            over = score.astype(np.float32) >= np.float32(self._threshold)
            self._parts.append((x[over], y[over], score[over].astype(np.float32)))
            self._count(batch, scored)
        x, y, score = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        return merge_tiles(x, y, score, self._scores.zoom)

    def _probabilities(self, batch: pa.RecordBatch, column: str) -> Floats:
        """Return the probabilities; NaN for failed tiles."""
        failed = pc.equal(batch.column("status"), "failed").to_numpy(zero_copy_only=False)
        score = batch.column(column).to_numpy(zero_copy_only=False).astype(np.float64)
        wrong = ~failed & ~((score >= 0) & (score <= 1))
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            place = f"{self._scores.zoom}/{batch.column('x')[first]}/{batch.column('y')[first]}"
            raise DataError(
                f"tile {place} of {self._scores.folder} is scored and has the {column} {score[first]:g}, expected 0 to "
                "1; run `sat_xception bulk retry-failed`: it scores such tiles again"
            )
        return np.where(failed, np.nan, score)

    def _count(self, batch: pa.RecordBatch, scored: npt.NDArray[np.bool_]) -> None:
        mask = pa.array(scored)
        self.by_label.update(count_values(batch.column("label").filter(mask)))
        for value, count in count_values(batch.column("reason").filter(pc.invert(mask))).items():
            reason = value or "no reason given"
            known = reason in self.reasons or len(self.reasons) < _MAX_REASONS_COUNTED
            self.reasons[reason if known else "other reasons"] += count


def publish(config: PublishConfig) -> PublishResult:
    """Publish the candidates in scores: maps, tables and the review page.

    Raises:
        ConfigError: There is no threshold, or a setting doesn't fit the layers or the imagery.
        DataError: The scores or a layer can't be used; nothing was written.

    Example:
        result = publish(PublishConfig(scores="scores", out="candidates", known="schools.geojson"))
        print(result.summary())
    """
    scores = open_score_folder(config.scores)
    threshold = _threshold(config, scores)
    known = areas = None
    if config.known:
        known = KnownPlaces(read_layer(config.known, config.known_layer, "--known"), scores.zoom)
    if config.areas:
        areas = AreaCounts(read_layer(config.areas, config.areas_layer, "--areas"), config.area_name)
    config = _with_scored_imagery(config, scores.document.imagery)
    imagery = page_imagery(config)
    with review_lock(config.out), atomic_folder(config.out, record=Publication.file_name) as work:
        reviewed = read_stored_bytes(config.out / RECORD)
        if reviewed is not None:
            _check_review(config.out, scores)
            (work / RECORD).write_bytes(reviewed)
        bounds = check_scores(scores)
        if bounds is None:
            raise DataError(f"{config.scores} holds no tiles; there is nothing to publish")
        heat = HeatMap(bounds, scores.zoom)
        findings = _Findings(scores, threshold, heat)
        sites = findings.read(known, areas)
        comparison = known.compare(sites, config.known_distance_m) if known else None
        site_areas = areas.areas_of(sites.lon, sites.lat) if areas else None
        _link_shards(scores, work)
        names = [*areas.names, ""] if areas else []
        area_names = [names[area] for area in site_areas.tolist()] if site_areas is not None else None
        table = candidate_table(sites, scores, comparison, area_names)
        write_candidates(table, work)
        if known and comparison:
            _log_unseen(comparison.place_counts(), config)
            _write_comparison(table, known.missed(comparison), work)
        by_area = areas.table(sites, site_areas, comparison) if areas and site_areas is not None else []
        title = f"{scores.positive}: {scores.document.model}"
        (work / "heat-map.png").write_bytes(heat.draw(title, _marks(sites), imagery.attribution))
        head = PageHead(scores.positive, scores.zoom, threshold, str(scores.document.model), comparison is not None)
        review = _write_review(config, head, table, sites, imagery, work)
        publication = _publication(config, scores, threshold, findings, sites, comparison, by_area, imagery, review)
        publication.write(work)
        write_reports(work, publication, table)
    return PublishResult(config.out, publication)


def _with_scored_imagery(config: PublishConfig, scored: ScoredImagery) -> PublishConfig:
    """Return the settings with the imagery that was scored, read as it was scored, unless they name other imagery."""
    if config.imagery and shown(config.imagery) != scored.url:
        return config
    update: dict[str, object] = {"imagery": config.imagery or scored.url}
    for name in ("attribution", *PixelSettings.model_fields):
        setting = config.setting_for(name)
        default = PublishConfig.model_fields[setting].default
        update[setting] = getattr(config, setting) or getattr(scored, name) or default
    return config.model_copy(update=update)


def _check_review(out: Path, scores: ScoreFolder) -> None:
    """Refuse to carry decisions over to other imagery, since reviewers may have seen something else there."""
    there = fetch_folder(out, may_be_absent=True, only=(Publication.file_name,)) if is_remote(out) else out
    earlier, now = Publication.find(there), scores.document.imagery
    before = earlier.imagery if earlier else None
    if before is None:
        _log.warning("review    it isn't recorded which imagery %s is of: look whether it is %s", out / RECORD, now.url)
        return
    different = sorted(name for name in ScoredImagery.model_fields if getattr(before, name) != getattr(now, name))
    if any(name not in _NO_OTHER_PICTURES for name in different):
        raise ConfigError(
            f"{out / RECORD} holds a review of {before.url}, and these scores are of {now.url}"
            f" (they differ in: {', '.join(different)}): what was seen there need not be so here. Name a new --out"
        )


def _log_unseen(counts: KnownCounts, config: PublishConfig) -> None:
    """Log how many known places are on no scored tile, so that they can't be used to judge the model."""
    if not counts.unseen:
        return
    message = f"{counts.unseen:,} of {counts.places:,} places of {config.known} are on no scored tile "
    message += f"({counts.not_planned:,} on tiles that weren't planned, {counts.tile_failed:,} on tiles that failed)"
    if counts.unseen == counts.places:
        _log.warning(
            "known     %s: the fraction that the model finds is unknown, and candidates count as new. "
            "Is --known of this area?",
            message,
        )
    else:
        _log.info("known     %s; missed.csv names them", message)


def _write_comparison(table: pa.Table, missed: pa.Table, work: Path) -> None:
    for kind in ("known", "new"):
        write_csv(table.filter(pc.equal(table["comparison"], kind)), work / f"{kind}.csv")
    write_csv(missed, work / "missed.csv")


def _threshold(config: PublishConfig, scores: ScoreFolder) -> float:
    threshold = scores.document.threshold if config.threshold is None else config.threshold
    if threshold is None:
        raise ConfigError(f"{scores.folder}/{BulkScores.file_name} names no threshold: give one with --threshold")
    return threshold


def _link_shards(scores: ScoreFolder, work: Path) -> None:
    """Add the shards to the folder: hard-linked, or copied if it is on another disk."""
    folder = work / "tiles"
    folder.mkdir()
    for path in (*scores.shards, scores.folder / BulkScores.file_name):
        try:
            os.link(path.resolve(), folder / path.name)
        except OSError:
            shutil.copyfile(path, folder / path.name)


def _publication(
    config: PublishConfig,
    scores: ScoreFolder,
    threshold: float,
    findings: _Findings,
    sites: Sites,
    comparison: KnownPlaceMatches | None,
    areas: list[AreaRow],
    imagery: PageImagery,
    review: ReviewCounts,
) -> Publication:
    scored = scores.document
    tiles = TileCounts(
        planned=scored.planned,
        scored=scored.scored,
        failed=scored.failed,
        candidates=len(sites.x),
        below=scored.scored - len(sites.x),
    )
    return Publication(
        model=scored.model,
        classes=scored.classes,
        positive_label=scores.positive,
        threshold=threshold,
        zoom=scores.zoom,
        tiles=tiles,
        by_label=dict(sorted(findings.by_label.items())),
        reasons=dict(findings.reasons.most_common()),
        candidates=comparison.site_counts() if comparison else SiteCounts(sites=len(sites)),
        known=comparison.place_counts() if comparison else None,
        areas=tuple(areas),
        attribution=imagery.attribution,
        imagery=scored.imagery,
        review=review,
        config=config.resolved(),
    )


def _marks(sites: Sites) -> tuple[Floats, Floats]:
    return sites.x[sites.first] + 0.5, sites.y[sites.first] + 0.5


def _write_review(
    config: PublishConfig, head: PageHead, table: pa.Table, sites: Sites, imagery: PageImagery, work: Path
) -> ReviewCounts:
    data = review_data(head, table, sites, config.most_reviewed)
    if imagery.source is not None:
        images = copy_tiles(data, imagery.source, config, work / "review" / "tiles")
        data = data.model_copy(update={"images": images})
    write_page(work / "review", data, imagery, config)
    kept = 0
    if (work / RECORD).is_file():
        record = ReviewRecord(work / RECORD, data)
        kept = len(record.decisions)
        _log.info("review    %s decisions are kept, %s more of tiles that are no candidates now", kept, record.others)
    count = len(data.score)
    return ReviewCounts(candidates=count, left_out=len(sites) - count, kept_decisions=kept)
