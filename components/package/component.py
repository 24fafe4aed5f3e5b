"""KFP contract of the package step."""

from kfp import dsl

from components.images import image


@dsl.component(base_image=image("package"), install_kfp_package=False)
def package(
    winner: str,
    xception: dsl.Input[dsl.Model],
    mobilenetv2: dsl.Input[dsl.Model],
    examples: dsl.Input[dsl.Dataset],
    decision: dsl.Input[dsl.Artifact],
    name: str,
    served_model: dsl.Output[dsl.Model],
    card: dsl.Output[dsl.Markdown],
) -> None:
    """Export the winner for TensorFlow Serving, check that its outputs equal Keras's, and score the test split once.

    Args:
        winner: Backbone that the gate chose.
        xception: Model of Xception.
        mobilenetv2: Model of MobileNetV2.
        examples: Examples of the convert step.
        decision: The gate's decision.
        name: Name of the served model.
        served_model: Model root with the new version.
        card: The model card, with the metrics on the validation and test splits.
    """
    import shutil

    from sat_xception.steps import run_step

    model = {"xception": xception, "mobilenetv2": mobilenetv2}[winner]
    places = {"model": model.path, "examples": examples.path, "decision": decision.path, "out": served_model.path}
    result = run_step("package", name=name, **places)
    shutil.copyfile(f"{result.folder}/MODEL_CARD.md", card.path)
    served_model.metadata.update({"name": name, "version": str(result.served.version), "backbone": winner})
