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
    """Transfer-learn one backbone: a head on frozen features, then fine-tuning; the better of the two is kept.

    Args:
        examples: Examples of the convert step.
        backbone: "xception" or "mobilenetv2".
        weights: "imagenet", a path or gs:// address of a weights file, or "none".
        input_size: Height and width of the input in pixels; 0 is the backbone's own.
        alpha: Width multiplier of MobileNetV2.
        batch_size: Tiles a step.
        head_epochs: Most epochs of the head on frozen features.
        fine_tune_epochs: Most epochs of fine-tuning.
        scratch_epochs: Epochs of the whole network where weights is "none".
        seed: Seed of weights, order and augmentation.
        search_trials: Heads that a search tries first; 0 is no search.
        checkpoints: Folder or gs:// address from which a training goes on that was killed; "" is one that is lost with
            the pod.
        model: Keras model with its history and description, and TensorBoard's logs in `tensorboard/`. Where the
            training diverged there is no Keras model, and the description has the reason as `failed`.
        curves: Page with the learning curves.
    """
    import shutil

    from sat_xception.steps import run_step

    schedule = {"head_epochs": head_epochs, "fine_tune_epochs": fine_tune_epochs, "scratch_epochs": scratch_epochs}
    network = {"backbone": backbone, "weights": weights, "input_size": input_size, "alpha": alpha}
    places = {"examples": examples.path, "out": model.path}
    kept = {"checkpoints": checkpoints, "batch_size": batch_size, "seed": seed, "search_trials": search_trials}
    # A training that diverged doesn't end the run: the gate refuses it, and the other candidate goes on.
    result = run_step("train", **kept, **schedule, **network, **places, record_divergence=True)
    shutil.copyfile(f"{model.path}/curves.html", curves.path)
    found = {"valid_accuracy": result.valid_accuracy, "phase": result.phase}
    model.metadata.update({"backbone": backbone, **({"failed": result.failed} if result.failed else found)})
