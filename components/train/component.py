"""KFP contract of the train step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("train"), install_kfp_package=False)
def train(
    settings: str,
    examples: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    curves: dsl.Output[dsl.HTML],
) -> None:
    """Transfer learning with one backbone: train a head on frozen features, then fine-tune; keep the better one.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        examples: Examples of the convert step.
        model: Keras model with its history and description, and TensorBoard logs in `tensorboard/`. If the training
            diverged, there is no Keras model, and the description holds the reason as `failed`.
        curves: Page with the learning curves.
    """
    import shutil

    from sat_xception.steps import run_step

    result = run_step("train", settings, examples=examples.path, out=model.path)
    shutil.copyfile(f"{model.path}/curves.html", curves.path)
    found = {"valid_accuracy": result.valid_accuracy, "phase": result.phase}
    model.metadata.update({"backbone": result.backbone, **({"failed": result.failed} if result.failed else found)})
