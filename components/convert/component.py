"""KFP contract of the convert step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("convert"), install_kfp_package=False)
def convert(
    dataset: dsl.Input[dsl.Dataset], examples: dsl.Output[dsl.Dataset], summary: dsl.Output[dsl.Markdown]
) -> None:
    """Turn a dataset into TFRecord files, without re-encoding an image.

    Args:
        dataset: Dataset of the assemble step.
        examples: TFRecord files by split.
        summary: Tiles, classes, files and size by split, as a table.
    """
    import pathlib

    from sat_xception.steps import run_step

    result = run_step("convert", dataset=dataset.path, out=examples.path)
    pathlib.Path(summary.path).write_text(result.markdown(), encoding="utf-8")
    examples.metadata.update(result.counts)
