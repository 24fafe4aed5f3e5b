"""KFP contract of the train step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train(
    examples: dsl.Input[dsl.Dataset],
    backbone: str,
    weights: str,
    input_size: int,
    alpha: float,
    batch_size: int,
    head_epochs: int,
    fine_tune_epochs: int,
    scratch_epochs: int,
    seed: int,
    search_trials: int,
    checkpoints: str,
    model: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Transfer learning with one backbone: train a head on frozen features, then fine-tune; keep the better one.

    Args:
        examples: Examples of the convert step.
        backbone: "xception" or "mobilenetv2".
        weights: "imagenet", a path or gs:// address of a weights file, or "none".
        input_size: Height and width of the input in pixels; 0 is the backbone's own.
        alpha: Width multiplier of MobileNetV2.
        batch_size: Batch size, in tiles.
        head_epochs: Maximum number of epochs of the head on frozen features.
        fine_tune_epochs: Maximum number of epochs of fine-tuning.
        scratch_epochs: Number of epochs of the whole network if weights is "none".
        seed: Seed of the initial weights, shuffling and augmentation.
        search_trials: Number of trials of a search over head settings before training; 0: no search.
        checkpoints: Folder or gs:// address for checkpoints, from which a killed training resumes; "" keeps them in the
            pod, where they are lost with it.
        model: Keras model with its history and description, and TensorBoard logs in `tensorboard/`. If the training
            diverged, there is no Keras model, and the description holds the reason as `failed`.
        curves: Page with the learning curves.
    """
    import shutil

    from sat_xception.steps import run_step

    schedule = {"head_epochs": head_epochs, "fine_tune_epochs": fine_tune_epochs, "scratch_epochs": scratch_epochs}
    network = {"backbone": backbone, "weights": weights, "input_size": input_size, "alpha": alpha}
    places = {"examples": examples.path, "out": model.path}
    kept = {"checkpoints": checkpoints, "batch_size": batch_size, "seed": seed, "search_trials": search_trials}
    # A training that diverged doesn't end the run: the gate rejects it, and the other candidate continues.
    result = run_step("train", **kept, **schedule, **network, **places, record_divergence=True)
    shutil.copyfile(f"{model.path}/curves.html", curves.path)
    found = {"valid_accuracy": result.valid_accuracy, "phase": result.phase}
    model.metadata.update({"backbone": backbone, **({"failed": result.failed} if result.failed else found)})
