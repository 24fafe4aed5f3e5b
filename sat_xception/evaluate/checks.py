"""The gate's checks of a candidate: minimum figures overall and per slice, gain on the most frequent class, no loss."""

from __future__ import annotations

from collections.abc import Sequence

from sat_xception.evaluate.decision import Check
from sat_xception.evaluate.evaluation import Evaluation, ServingStatus, Unscored
from sat_xception.evaluate.figures import Comparison, Interval, MostFrequent, SliceMetrics
from sat_xception.evaluate.settings import GateConfig

__all__ = ["check"]


def check(
    evaluation: Evaluation,
    config: GateConfig,
    serving: ServingStatus | None = None,
    against_serving: Comparison | None = None,
) -> list[Check]:
    """Check every limit. A figure equal to its limit passes, except for the gain on the most frequent class.

    Args:
        evaluation: Evaluation of the candidate.
        config: Limits.
        serving: Status of the serving model; None if the gate got no evaluation of it.
        against_serving: Comparison of the candidate with the serving model; None if that has no figures.

    Returns:
        The checks; for a candidate whose training failed a single one, without a limit.
    """
    metrics = evaluation.metrics
    if metrics is None:
        return [_row("training", None, None, "ends with a model", False, note=evaluation.why_unscored)]
    intervals, positive = metrics.intervals, metrics.positive
    whose = evaluation.positive_label or "macro average"
    rows = [
        _floor("validation accuracy", metrics.accuracy, config.min_accuracy, intervals.accuracy),
        _check_gain(metrics.most_frequent, config.min_gain),
        _floor(f"recall of {whose}", positive.recall, config.min_recall, intervals.recall),
        _floor(f"precision of {whose}", positive.precision, config.min_precision, intervals.precision),
    ]
    if evaluation.unscored and evaluation.unscored.count:
        rows.append(_check_unscored(evaluation.unscored, metrics.count))
    error, limit = metrics.calibration_error, config.max_calibration_error
    rows.append(_row("calibration error", error, limit, "at most", error <= limit))
    rows += _check_slices(metrics.slices, "accuracy", config.min_slice_accuracy, config.min_slice_tiles)
    rows += _check_slices(metrics.slices, "recall", config.min_slice_recall, config.min_slice_tiles)
    return rows + ([_check_loss(serving, against_serving, config.max_loss)] if serving else [])


def _row(
    name: str,
    value: float | None,
    limit: float | None,
    rule: str,
    passed: bool,
    interval: Interval | None = None,
    note: str = "",
) -> Check:
    return Check(name=name, value=value, interval=interval, limit=limit, rule=rule, passed=passed, note=note)


def _floor(name: str, value: float, limit: float, interval: Interval | None) -> Check:
    return _row(name, value, limit, "at least", value >= limit, interval)


def _check_unscored(unscored: Unscored, scored: int) -> Check:
    """Return the failed check of a model that has no score for some tiles, so that its figures leave them out."""
    tiles = unscored.count + scored
    reason = max(unscored.reasons, key=lambda each: unscored.reasons[each])
    note = f"{unscored.count:,} of {tiles:,} tiles have no score, most often: {reason}"
    return _row("share of tiles without a score", unscored.count / tiles, 0.0, "at most", False, note=note)


def _check_gain(found: MostFrequent, min_gain: float) -> Check:
    """Return the check of the accuracy gained on always predicting the most frequent class.

    The model passes if the lower bound of the difference's 95 % interval is above `min_gain`, which is a confidence of
    97.5 %. With one block there is no interval, and the difference itself counts.
    """
    bounds = found.interval
    passed = min_gain <= -1 or (found.difference if bounds is None else bounds.low) > min_gain
    note = (
        f"naming {found.class_name} for every tile is right on {found.share:.4f} of them; the model is right alone on "
        f"{found.first_only:,} tiles, wrong alone on {found.second_only:,}"
    )
    rule = "above" if bounds is None else "its lower bound above"
    return _row("accuracy gained on the most frequent class", found.difference, min_gain, rule, passed, bounds, note)


def _check_slices(slices: Sequence[SliceMetrics], figure: str, floor: float, min_tiles: int) -> list[Check]:
    """Return a check per slice if a floor is set; slices with fewer than `min_tiles` aren't judged.

    The check fails if the data has no slices, or if none is judged: a floor that can't be checked must not pass.
    """
    if not floor:
        return []
    counts = [_count_tiles(each, figure) for each in slices]
    largest = max((count for count in counts if count is not None), default=None)
    if largest is None:
        missing = "no slices" if not slices else "no class that is looked for"
        return [_row(f"{figure} in each slice", None, floor, "at least", False, note=f"the data has {missing}")]
    rows = []
    if largest < min_tiles:
        note = f"none of {len(slices):,} slices is judged: {largest:,} tiles count in the largest, "
        note += f"{min_tiles:,} are needed"
        rows.append(_row(f"{figure} in each slice", None, floor, "at least", False, note=note))
    return rows + [_check_slice(each, figure, floor, min_tiles) for each in slices]


def _check_slice(found: SliceMetrics, figure: str, floor: float, min_tiles: int) -> Check:
    """Return the check of one slice, which passes if it isn't judged."""
    of_accuracy = figure == "accuracy"
    value = found.accuracy if of_accuracy else found.recall
    count = _count_tiles(found, figure) or 0
    judged = count >= min_tiles and value is not None
    return Check(
        name=f"{figure} where {found.slice} is {found.value or 'unknown'}",
        value=value,
        interval=found.intervals.accuracy if of_accuracy else found.intervals.recall,
        limit=floor,
        rule="at least",
        passed=not judged or (value is not None and value >= floor),
        note="" if judged else f"not judged: {count:,} tiles count, {min_tiles:,} are needed",
        slice=(found.slice, found.value),
        figure=figure,
    )


def _count_tiles(found: SliceMetrics, figure: str) -> int | None:
    """Return the number of tiles behind a slice's figure; None for recall without a positive class."""
    return found.count if figure == "accuracy" else found.positives


def _check_loss(serving: ServingStatus, found: Comparison | None, max_loss: float) -> Check:
    """Return the check of the comparison with the serving model.

    The candidate passes if it is at least as accurate on these tiles, or if the lower bound of the difference's 95 %
    interval is at least `-max_loss`, which is a confidence of 97.5 %. See decision 21.
    """
    name, rule = "accuracy gained on what is serving", "at least 0, or its lower bound at least"
    if found is None:
        passed = serving.state == "nothing" or max_loss >= 1
        advice = "" if passed else ". Deploy it under another name, or set the largest loss to 1 to deploy it unseen"
        return _row(name, None, -max_loss, rule, passed, note=f"not compared: {serving.reason}{advice}")
    bounds = found.interval
    passed = found.difference >= 0 or max_loss >= 1 or (bounds is not None and bounds.low >= -max_loss)
    version = f"version {serving.version}" if serving.version is not None else "the model"
    note = (
        f"{version} at {serving.place}; right on {found.first_only:,} tiles that it isn't, wrong on "
        f"{found.second_only:,} that it is right on (McNemar p = {found.p:.2g})"
    )
    return _row(name, found.difference, -max_loss, rule, passed, bounds, note)
