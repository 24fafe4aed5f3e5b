"""KFP contract of the validate step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("validate"), install_kfp_package=False)
def validate(
    settings: str,
    run: str,
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
) -> None:
    """Check the examples with TensorFlow Data Validation; anomalies that aren't accepted stop the run.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        run: Id of the run, if it reads and replaces a baseline, else "". It prevents cache hits, which would skip that.
        examples: Examples of the convert step.
        statistics: Statistics, schema and anomalies.
        report: Page with the statistics and the anomalies.
    """
    import shutil

    from sat_xception.steps import run_step

    run_step("validate", settings, examples=examples.path, out=statistics.path)
    shutil.copyfile(f"{statistics.path}/report.html", report.path)
