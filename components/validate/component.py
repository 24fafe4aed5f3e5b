"""KFP contract of the validate step."""

from typing import List  # noqa: UP035 - kfp reads the annotation

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("validate"), install_kfp_package=False)
def validate(
    examples: dsl.Input[dsl.Dataset],
    accept: List[str],  # noqa: UP006
    max_skew: float,
    max_drift: float,
    baseline: str,
    baseline_run: str,
    statistics: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Check the examples with TensorFlow Data Validation; anomalies that aren't accepted stop the run.

    Args:
        examples: Examples of the convert step.
        accept: Anomalies that don't stop the run, as "<split>:<feature>:<kind>".
        max_skew: Maximum distance between a feature's distributions in training and another split.
        max_drift: Maximum distance between a feature's distributions in training and in the last accepted run.
        baseline: Folder that keeps the schema and statistics of the last accepted run; "" means none.
        baseline_run: Id of the run that reads and replaces the baseline; "" without one. It prevents cache hits, which
            would skip that.
        statistics: Statistics, schema and anomalies.
        report: Page with the statistics and the anomalies.
    """
    import shutil

    from sat_xception.steps import run_step

    limits = {"accept": accept, "max_skew": max_skew, "max_drift": max_drift}
    run_step("validate", examples=examples.path, baseline=baseline, out=statistics.path, **limits)
    shutil.copyfile(f"{statistics.path}/report.html", report.path)
