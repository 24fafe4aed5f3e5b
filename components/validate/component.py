"""KFP contract of the validate step."""

from typing import List  # noqa: UP035 - kfp reads the annotation

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("validate"), install_kfp_package=False)
def validate(
    examples: dsl.Input[dsl.Dataset],
    accept: List[str],  # noqa: UP006
    max_skew: float,
    baseline: str,
    statistics: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Check the examples with TensorFlow Data Validation; anomalies that aren't accepted stop the run.

    Args:
        examples: Examples of the convert step.
        accept: Anomalies that don't stop the run, as "<split>:<feature>:<kind>".
        max_skew: Largest distance of a feature's distribution between training and another split.
        baseline: Folder or gs:// address of the last accepted run; "" for none.
        statistics: Statistics, schema and anomalies.
        report: Page with the statistics and the anomalies.
    """
    import shutil

    from sat_xception.steps import run_step

    settings = {"accept": accept, "max_skew": max_skew, "baseline": baseline or None}
    run_step("validate", examples=examples.path, out=statistics.path, **settings)
    shutil.copyfile(f"{statistics.path}/report.html", report.path)
