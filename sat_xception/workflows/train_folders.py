"""The original command `sat_xception train -model=xception -train=train -valid=test`: all steps from class folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sat_xception.clock import version_of
from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.examples.convert import convert
from sat_xception.examples.settings import ConvertConfig
from sat_xception.model.settings import TrainConfig
from sat_xception.package.package import PackageResult, package
from sat_xception.package.settings import PackageConfig
from sat_xception.storage import scratch_folder
from sat_xception.train.train import TrainResult, train
from sat_xception.workflows.settings import TrainFoldersConfig

__all__ = ["TrainFoldersResult", "train_folders"]


@dataclass(frozen=True)
class TrainFoldersResult:
    """Results of training and packaging.

    Attributes:
        trained: Result of the train step.
        packaged: Result of the package step.
        logs: TensorBoard's logs of this run.
    """

    trained: TrainResult
    packaged: PackageResult
    logs: Path

    def summary(self) -> str:
        """Return the best validation accuracy, the paths of the results, and commands to run next."""
        version = self.packaged.folder
        root, name = version.parent.parent, version.parent.name
        return "\n".join(
            [
                f"best validation accuracy {self.trained.valid_accuracy:.4f} "
                f"({self.trained.backbone}, {self.trained.phase})",
                f"model       {self.trained.folder}/model.keras",
                f"history     {self.trained.folder}/history.json  (curves: {self.trained.folder}/curves.html)",
                f"SavedModel  {version}",
                "next",
                f"  watch     tensorboard --logdir {self.logs.parent}",
                f"  score     sat_xception predict --model {version} FILES_OR_FOLDERS",
                f"  serve     sat_xception serve --model-root {root} --name {name}",
            ]
        )


def train_folders(config: TrainFoldersConfig) -> TrainFoldersResult:
    """Assemble, convert, train and package into a new folder below `models`, with logs in one below `tensorboard`.

    Raises:
        SatXceptionError: As the steps do.
    """
    run = f"{config.model}-{version_of()}"
    logs = config.tensorboard / run
    with scratch_folder() as scratch:
        dataset, examples = scratch / "dataset", scratch / "examples"
        print(
            assemble(
                # Blocks of one tile, so that the split given by the folders is kept, as in the original.
                AssembleConfig(train=config.train, valid=config.valid, out=dataset, block_zoom=22)
            ).summary()
        )
        convert(ConvertConfig(dataset=dataset, out=examples))
        trained = train(
            TrainConfig(
                examples=examples,
                out=config.models / run,
                backbone=config.model,
                weights=config.weights,
                alpha=config.alpha,
                input_size=config.input_size,
                seed=config.seed,
                tensorboard=logs,
                checkpoints=config.models / f"{config.model}.checkpoints",
            )
        )
        root = config.models / run / "saved_model"
        packaged = package(PackageConfig(model=trained.folder, examples=examples, out=root, name=config.model))
    return TrainFoldersResult(trained, packaged, logs)
