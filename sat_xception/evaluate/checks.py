"""What a model must keep to be deployed: floors overall and in every slice, more than one class, and no loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sat_xception.evaluate.settings import GateConfig

__all__ = ["check", "limit_of"]

Row = dict[str, Any]


def check(evaluation: Mapping[str, Any], config: GateConfig, serving: Mapping[str, Any] | None = None) -> list[Row]:
    """Return a row for each limit. Equal is enough, but for what is gained on the most frequent class.

    Args:
        evaluation: Content of a candidate's `evaluation.json`.
        config: The limits.
        serving: What is serving now, as `evaluation.json` describes it, with the candidate's `comparison` to it; None
            when the gate wasn't told.

    Returns:
        `name`, `value` (None where there is none), 95 % `interval` (None where it isn't known), `limit`, the `rule`
        that ties them, whether it `passed`, and a `note`; rows of slices also name their `slice` and `figure`. Of a
        candidate whose training failed a single row, without a limit.
    """
    if evaluation.get("failed"):
        note = f"its training failed: {evaluation['failed']}"
        return [_row("training", None, None, "ends with a model", False, note=note)]
    metrics = evaluation["metrics"]
    intervals, positive = metrics["intervals"], metrics["positive"]
    whose = evaluation["positive_label"] or "macro average"
    rows = [
        _floor("validation accuracy", metrics["accuracy"], config.min_accuracy, intervals["accuracy"]),
        _check_gain(metrics["most_frequent"], config.min_gain),
        _floor(f"recall of {whose}", positive["recall"], config.min_recall, intervals["recall"]),
        _floor(f"precision of {whose}", positive["precision"], config.min_precision, intervals["precision"]),
    ]
    rows += _check_unscored(evaluation)
    error, limit = metrics["calibration_error"], config.max_calibration_error
    rows.append(_row("calibration error", error, limit, "at most", error <= limit))
    rows += _check_slices(metrics["slices"], "accuracy", "count", config.min_slice_accuracy, config.min_slice_tiles)
    rows += _check_slices(metrics["slices"], "recall", "positives", config.min_slice_recall, config.min_slice_tiles)
    return rows + ([_check_loss(serving, config.max_loss)] if serving else [])


def limit_of(row: Mapping[str, Any]) -> str:
    """Return the rule of a row with its limit, if it has one."""
    return str(row["rule"]) if row["limit"] is None else f"{row['rule']} {row['limit']:g}"


def _row(
    name: str,
    value: float | None,
    limit: float | None,
    rule: str,
    passed: bool,
    interval: list[float] | None = None,
    note: str = "",
) -> Row:
    return {
        "name": name,
        "value": value,
        "interval": interval,
        "limit": limit,
        "rule": rule,
        "passed": passed,
        "note": note,
    }


def _floor(name: str, value: float, limit: float, interval: list[float] | None) -> Row:
    return _row(name, value, limit, "at least", value >= limit, interval)


def _check_unscored(evaluation: Mapping[str, Any]) -> list[Row]:
    """Return a row that fails where the model had no probabilities for some tile: its figures are of the others."""
    unscored = evaluation.get("unscored") or {"count": 0}
    if not unscored["count"]:
        return []
    tiles = unscored["count"] + evaluation["metrics"]["count"]
    reason = max(unscored["reasons"], key=lambda each: unscored["reasons"][each])
    note = f"{unscored['count']:,} of {tiles:,} tiles have no score, most often: {reason}"
    return [_row("share of tiles without a score", unscored["count"] / tiles, 0.0, "at most", False, note=note)]


def _check_gain(found: Mapping[str, Any], min_gain: float) -> Row:
    """Return the row of the comparison with naming the most frequent class for every tile.

    A model passes whose accuracy is higher by more than `min_gain` with 97.5 % confidence: the lower bound of the 95 %
    interval of the difference tells, or the difference itself where one block gives no interval.
    """
    difference, bounds = found["difference"], found["interval"]
    passed = min_gain <= -1 or (difference if bounds is None else bounds[0]) > min_gain
    note = (
        f"naming {found['class']} for every tile is right on {found['share']:.4f} of them; the model is right alone on "
        f"{found['first_only']:,} tiles, wrong alone on {found['second_only']:,}"
    )
    rule = "above" if bounds is None else "its lower bound above"
    return _row("accuracy gained on the most frequent class", difference, min_gain, rule, passed, bounds, note)


def _check_slices(slices: list[Row], figure: str, counted: str, floor: float, least: int) -> list[Row]:
    """Return a row for each slice where a floor is asked for; slices of fewer than `least` tiles aren't judged.

    A floor that nothing can be held to is not kept: it was asked for because a slice matters.
    """
    if not floor:
        return []
    if not any(figure in row for row in slices):
        missing = "no slices" if not slices else "no class that is looked for"
        return [_row(f"{figure} in each slice", None, floor, "at least", False, note=f"the data has {missing}")]
    rows = []
    if all(each[counted] < least for each in slices):
        largest = max(each[counted] for each in slices)
        note = f"none of {len(slices):,} slices is judged: {largest:,} tiles count in the largest, {least:,} are needed"
        rows.append(_row(f"{figure} in each slice", None, floor, "at least", False, note=note))
    for each in slices:
        name = f"{figure} where {each['slice']} is {each['value'] or 'unknown'}"
        interval = each["intervals"][figure]
        if each[counted] < least:
            note = f"not judged: {each[counted]:,} tiles count, {least:,} are needed"
            rows.append(_row(name, each[figure], floor, "at least", True, interval, note))
        else:
            rows.append(_floor(name, each[figure], floor, interval))
        rows[-1] |= {"slice": [each["slice"], each["value"]], "figure": figure}
    return rows


def _check_loss(serving: Mapping[str, Any], max_loss: float) -> Row:
    """Return the row of the comparison with what is serving.

    A model passes that is at least as accurate on these tiles, or that is less accurate by no more than `max_loss` with
    97.5 % confidence: the lower bound of the 95 % interval of the difference tells. See decision 21.
    """
    name, rule = "accuracy gained on what is serving", "at least 0, or its lower bound at least"
    if serving["state"] != "scored":
        passed = serving["state"] == "nothing" or max_loss >= 1
        advice = "" if passed else ". Deploy it under another name, or set the largest loss to 1 to deploy it unseen"
        return _row(name, None, -max_loss, rule, passed, note=f"not compared: {serving['reason']}{advice}")
    found = serving["comparison"]
    difference, bounds = found["difference"], found["interval"]
    passed = difference >= 0 or max_loss >= 1 or (bounds is not None and bounds[0] >= -max_loss)
    version = f"version {serving['version']}" if serving["version"] is not None else "the model"
    note = (
        f"{version} at {serving['place']}; right on {found['first_only']:,} tiles that it isn't, wrong on "
        f"{found['second_only']:,} that it is right on (McNemar p = {found['p']:.2g})"
    )
    return _row(name, difference, -max_loss, rule, passed, bounds, note)
