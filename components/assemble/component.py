"""KFP contract of the assemble step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("data"), install_kfp_package=False)
def assemble(source: str, dataset: dsl.Output[dsl.Dataset], report: dsl.Output[dsl.HTML]) -> None:
    """Assemble labelled tiles into a dataset, or take the dataset from the store.

    Args:
        source: Address of the dataset in the store, or the settings to assemble it with, as the check task returns it.
        dataset: The dataset.
        report: Page with counts, dropped tiles with reasons, and example tiles.
    """
    import shutil
    from pathlib import Path

    from sat_xception.dataset.source import take_dataset
    from sat_xception.steps import reporting_errors

    with reporting_errors("assemble"):
        result = take_dataset(source, Path(dataset.path))
    print(result.summary(), flush=True)
    shutil.copyfile(f"{dataset.path}/report.html", report.path)
    dataset.metadata.update({"digest": result.digest, **result.counts.by_status})
