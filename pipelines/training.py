"""The training pipeline: tiles in, a gated, packaged, answering model out.

    assemble -> convert -> validate -> train xception    -> evaluate -> gate -> package -> deploy
                                    -> train mobilenetv2 -> evaluate ->

The two trainings don't wait for each other, so a cluster runs them side by side. `kfp dsl compile --py
pipelines/training.py` works.
"""

from typing import List  # noqa: UP035 - kfp reads the annotation

from kfp import dsl

from components.assemble.component import assemble
from components.convert.component import convert
from components.deploy.component import deploy
from components.evaluate.component import evaluate
from components.gate.component import gate
from components.notify.component import notify
from components.package.component import package
from components.train.component import train
from components.validate.component import validate
from pipelines.resources import acts_outside, needs_gpu, reads_webhook, small, works_on_data

__all__ = ["PIPELINE_NAME", "training"]

PIPELINE_NAME = "school-classifier-training"
_NO_WINNER = "none"


@dsl.pipeline(
    name=PIPELINE_NAME,
    description="Train Xception and MobileNetV2 side by side; deploy the better if it is good enough.",
)
def training(
    data: str = "sample",
    positive_label: str = "",
    seed: int = 0,
    accept_anomalies: List[str] = [],  # noqa: B006, UP006 - kfp copies the default into the pipeline's definition
    max_skew: float = 0.3,
    xception_weights: str = "imagenet",
    xception_input_size: int = 256,
    xception_scratch_epochs: int = 25,
    mobilenetv2_weights: str = "imagenet",
    mobilenetv2_input_size: int = 224,
    mobilenetv2_scratch_epochs: int = 25,
    mobilenetv2_alpha: float = 1.0,
    batch_size: int = 32,
    head_epochs: int = 100,
    fine_tune_epochs: int = 10,
    min_accuracy: float = 0.85,
    min_recall: float = 0.0,
    min_precision: float = 0.0,
    max_calibration_error: float = 1.0,
    model_name: str = "school-classifier",
    model_root: str = "models/serving",
) -> None:
    """Train, compare, gate, package and deploy.

    Args:
        data: Folder of class folders, or "sample" for the synthetic sample.
        positive_label: The class that is looked for; "" leaves the choice to the names.
        seed: Seed of the split and of training.
        accept_anomalies: Anomalies that don't stop the run, as "<split>:<feature>:<kind>".
        max_skew: Largest distance of a feature's distribution between training and another split.
        xception_weights: "imagenet", a path or gs:// address of a weights file, or "none".
        xception_input_size: Height and width of Xception's input in pixels.
        xception_scratch_epochs: Epochs of the whole network where its weights are "none".
        mobilenetv2_weights: As `xception_weights`.
        mobilenetv2_input_size: Height and width of MobileNetV2's input in pixels.
        mobilenetv2_scratch_epochs: As `xception_scratch_epochs`.
        mobilenetv2_alpha: Width multiplier of MobileNetV2.
        batch_size: Tiles a step.
        head_epochs: Most epochs of the head on frozen features.
        fine_tune_epochs: Most epochs of fine-tuning; 0 leaves it out.
        min_accuracy: Gate: lowest validation accuracy.
        min_recall: Gate: lowest recall of the positive class.
        min_precision: Gate: lowest precision of the positive class.
        max_calibration_error: Gate: largest expected calibration error.
        model_name: Name the model is served as.
        model_root: Model root of the endpoint.
    """
    ending = reads_webhook(acts_outside(small(notify(pipeline=PIPELINE_NAME)))).set_display_name("Notify")
    with dsl.ExitHandler(ending, name="run"):
        dataset = acts_outside(works_on_data(assemble(data=data, positive_label=positive_label, seed=seed)))
        dataset.set_display_name("Assemble tiles")
        examples = works_on_data(convert(dataset=dataset.output)).set_display_name("Convert to TFRecord").output
        checked = works_on_data(validate(examples=examples, accept=accept_anomalies, max_skew=max_skew))
        checked.set_display_name("Validate data")
        schedule = {"head_epochs": head_epochs, "fine_tune_epochs": fine_tune_epochs}
        shared = {"examples": examples, "batch_size": batch_size, "seed": seed, **schedule}

        train_xception = train(
            backbone="xception",
            weights=xception_weights,
            input_size=xception_input_size,
            alpha=1.0,
            scratch_epochs=xception_scratch_epochs,
            **shared,
        )
        train_mobilenetv2 = train(
            backbone="mobilenetv2",
            weights=mobilenetv2_weights,
            input_size=mobilenetv2_input_size,
            alpha=mobilenetv2_alpha,
            scratch_epochs=mobilenetv2_scratch_epochs,
            **shared,
        )
        needs_gpu(train_xception, gpus=1).after(checked).set_display_name("Train Xception")
        needs_gpu(train_mobilenetv2, gpus=1).after(checked).set_display_name("Train MobileNetV2")
        xception, mobilenetv2 = train_xception.outputs["model"], train_mobilenetv2.outputs["model"]

        score_xception = works_on_data(evaluate(model=xception, examples=examples, batch_size=batch_size))
        score_mobilenetv2 = works_on_data(evaluate(model=mobilenetv2, examples=examples, batch_size=batch_size))
        decision = small(
            gate(
                xception=score_xception.set_display_name("Evaluate Xception").outputs["evaluation"],
                mobilenetv2=score_mobilenetv2.set_display_name("Evaluate MobileNetV2").outputs["evaluation"],
                min_accuracy=min_accuracy,
                min_recall=min_recall,
                min_precision=min_precision,
                max_calibration_error=max_calibration_error,
            )
        ).set_display_name("Gate")
        # The one value that the gate returns: a condition on a named output would silently be false in the local
        # runner.
        winner = decision.outputs["Output"]
        with dsl.If(winner != _NO_WINNER, name="a-model-passed"):
            packaged = works_on_data(
                package(
                    winner=winner,
                    xception=xception,
                    mobilenetv2=mobilenetv2,
                    examples=examples,
                    decision=decision.outputs["decision"],
                    name=model_name,
                )
            ).set_display_name("Package for TensorFlow Serving")
            deployed = deploy(served_model=packaged.outputs["served_model"], name=model_name, model_root=model_root)
            acts_outside(small(deployed)).set_display_name("Deploy")
