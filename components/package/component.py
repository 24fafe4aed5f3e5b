"""KFP contract of the package step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("score"), install_kfp_package=False)
def package(
    settings: str,
    winner: str,
    xception: dsl.Input[dsl.Model],
    mobilenetv2: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    decision: dsl.Input[dsl.Artifact],
    served_model: dsl.Output[dsl.Model],
    card: dsl.Output[dsl.Markdown],
) -> None:
    """Export the winner for TensorFlow Serving, check that its outputs equal Keras's, and score the test split once.

    Args:
        settings: Settings of the step that differ from its defaults, as JSON.
        winner: Backbone that the gate chose.
        xception: Model of Xception.
        mobilenetv2: Model of MobileNetV2.
        examples: Examples of the convert step.
        decision: The gate's decision.
        served_model: Model root with the new version.
        card: The model card, with the metrics on the validation and test splits.
    """
    import shutil

    from sat_xception.steps import run_step

    model = {"xception": xception, "mobilenetv2": mobilenetv2}[winner]
    inputs = {"model": model.path, "examples": examples.path, "decision": decision.path}
    result = run_step("package", settings, **inputs, out=served_model.path)
    shutil.copyfile(f"{result.folder}/MODEL_CARD.md", card.path)
    made = {"name": result.served.name, "version": str(result.served.version), "backbone": winner}
    served_model.metadata.update(made)
