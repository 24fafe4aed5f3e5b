"""KFP contract of the convert step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def convert(settings: str, dataset: dsl.Input[dsl.Dataset], examples: dsl.Output[dsl.Dataset]) -> None:
    """Convert a dataset to TFRecord files, without re-encoding images.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        dataset: Dataset of the assemble step.
        examples: TFRecord files by split.
    """
    from sat_xception.steps import run_step

    result = run_step("convert", settings, dataset=dataset.path, out=examples.path)
    examples.metadata.update(result.counts)
