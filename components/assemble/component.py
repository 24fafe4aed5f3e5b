"""KFP contract of the assemble step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("assemble"), install_kfp_package=False)
def assemble(data: str, positive_label: str, seed: int, dataset: dsl.Output[dsl.Dataset]) -> None:
    """Gather labelled tiles into a dataset: Parquet shards, a manifest with a row for every tile considered, a digest.

    Args:
        data: Folder of class folders, or "sample" for the synthetic sample.
        positive_label: The class that is looked for; "" leaves the choice to the names.
        seed: Part of the hash that deals tiles to splits.
        dataset: The dataset.
    """
    from sat_xception.steps import run_step

    result = run_step("assemble", data=data, positive_label=positive_label, seed=seed, out=dataset.path)
    dataset.metadata.update({"digest": result.digest, **result.counts["by_status"]})
