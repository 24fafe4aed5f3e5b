"""The command of 2018, word for word: what it prints, what it leaves, how it fails.

Each test has a quick form, in this process with a network of a few weights in MobileNetV2's place. For most there is a
slow one, too, in a process of its own with MobileNetV2, as it is typed.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sat_xception.cli import main
from sat_xception.model.backbones import BACKBONES
from sat_xception.served_model.packaged_model import PackagedModel
from sat_xception.train.record import TrainingHistory, TrainingRecord
from sat_xception.workflows import train_folders
from tests.conftest import SHARED, draw_tile, encode
from tests.integration.test_another_backbone import ENTRY
from tests.small_models import steps_run

REPOSITORY = Path(__file__).parents[2]
# On a machine that does other things too; on a quiet one with two cores it is a minute.
_TIMEOUT_S = 600
pytestmark = pytest.mark.timeout(_TIMEOUT_S)
COMMAND = "train -model=mobilenetv2 -train=train -valid=test -weights=none -alpha=0.35"


def small(include_top, weights, input_shape, alpha):
    return ENTRY.build(include_top=include_top, weights=weights, input_shape=input_shape)


SMALL = dataclasses.replace(BACKBONES["mobilenetv2"], build=small, fine_tune_from=ENTRY.fine_tune_from)


@dataclass
class Run:
    """A command that was run, or is running, in a folder of its own."""

    folder: Path
    process: subprocess.Popen[str] | None = None
    output: tuple[int, str, str] | None = None

    def finished(self):
        """Wait for the end; return exit code, stdout and stderr."""
        if self.output is None:
            output = self.process.communicate(timeout=_TIMEOUT_S)
            self.output = (self.process.returncode, *output)
        return self.output

    def next(self, command):
        """Run another command in the same folder and in the same way; return exit code, stdout and stderr."""
        if self.process is None:
            return run_here(self.folder, command).finished()
        return Run(self.folder, popen(self.folder, command)).finished()


def write_tiles(folder, classes=("school", "not-school"), tiles=8):
    for split, first, count in (("train", 0, tiles), ("test", 100, 4)):
        for label in classes:
            (folder / split / label).mkdir(parents=True)
            for index in range(first, first + count):
                data = encode(draw_tile(label, index), quality=90)
                (folder / split / label / f"{index:03d}.jpg").write_bytes(data)
    return folder


def start(folder, command, environment=None, program=("-m", "sat_xception"), **tiles):
    write_tiles(folder, **tiles)
    return Run(folder, popen(folder, command, program, **(environment or {})))


def run_here(folder, command):
    """Run a command in this process, with a small network and two epochs."""
    output, code = io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, steps_run(eagerly=True), contextlib.redirect_stdout(output):
        patch.chdir(folder)
        patch.setitem(BACKBONES, "mobilenetv2", SMALL)
        quick = functools.partial(train_folders.TrainConfig, scratch_epochs=2)
        patch.setattr(train_folders, "TrainConfig", quick)
        try:
            main(command.split())
        except SystemExit as ended:
            code = ended.code or 0
    return Run(folder, output=(code, output.getvalue(), ""))


# `python -m sat_xception`, with two epochs of the head and one of fine-tuning.
FEW_EPOCHS = """
import functools
from sat_xception.workflows import train_folders
train_folders.TrainConfig = functools.partial(train_folders.TrainConfig, head_epochs=2, fine_tune_epochs=1)
from sat_xception.cli import console
console()
"""


def popen(folder, command, program=("-m", "sat_xception"), **environment):
    known = {key: value for key, value in os.environ.items() if key != "SAT_XCEPTION_IMAGENET_DIR"}
    return subprocess.Popen(
        [sys.executable, "-W", "error::DeprecationWarning:sat_xception", *program, *command.split()],
        cwd=folder,
        env={**known, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Start every command at once: most of their time goes into one core's work."""
    folder = tmp_path_factory.mktemp("original")
    no_network = {"https_proxy": "http://127.0.0.1:9", "KERAS_HOME": str(folder / "keras")}
    imagenet = "train -model=mobilenetv2 -train=train -valid=test -weights=imagenet -alpha=0.35 -input-size=96"
    started = {
        "original": start(folder / "original", f"{COMMAND} -input-size=32"),
        "no network": start(folder / "no-network", imagenet, no_network),
    }
    yield started
    for run in started.values():
        run.process.kill()
        run.process.communicate()


HERE_OR_ALONE = ["here", pytest.param("alone", marks=pytest.mark.slow)]
NAMES = ("not_school", "school", "water tower")


@pytest.fixture(scope="module", params=HERE_OR_ALONE)
def original(request, tmp_path_factory):
    if request.param == "alone":
        run = request.getfixturevalue("runs")["original"]
    else:
        run = run_here(write_tiles(tmp_path_factory.mktemp("here")), f"{COMMAND} -input-size=32")
    code, stdout, stderr = run.finished()
    assert code == 0, stderr
    return run, stdout


def read(path):
    return json.loads(path.read_text())


def only(folder):
    """Return the one entry of a folder."""
    found = list(folder.iterdir())
    assert len(found) == 1, found
    return found[0]


def test_it_trains_and_packages_and_says_how_good_the_best_model_is(original):
    run, stdout = original
    trained = only(run.folder / "models")
    record = TrainingRecord.read(trained)
    best = max(epoch.score for epoch in TrainingHistory.read(trained).epochs)
    assert f"best validation accuracy {best:.4f} (mobilenetv2, scratch)" in stdout
    assert record.valid_accuracy == best
    assert record.weights.kind == "none"
    assert (record.config["alpha"], record.input_size) == (0.35, 32)
    assert record.classes == ("not-school", "school")


def test_it_counts_the_tiles_of_both_folders(original):
    _, stdout = original
    assert re.search(r"train +not-school 8 +school 8", stdout)
    assert re.search(r"valid +not-school 4 +school 4", stdout)


def test_models_and_tensorboard_get_a_folder_of_the_run_and_nothing_else_is_left(original):
    run, _ = original
    assert sorted(path.name for path in run.folder.iterdir()) == ["models", "tensorboard", "test", "train"]
    trained, logs = only(run.folder / "models"), only(run.folder / "tensorboard")
    assert trained.name == logs.name
    assert re.fullmatch(r"mobilenetv2-\d{14}", trained.name)
    names = ["curves.html", "history.json", "model.keras", "saved_model", "train.json"]
    assert sorted(path.name for path in trained.iterdir()) == names
    for kind in ("train", "validation"):
        assert list((logs / "scratch" / kind).glob("events.out.tfevents.*"))
    version = only(only(trained / "saved_model"))
    served = PackagedModel.read(version)
    assert (served.name, served.backbone) == ("mobilenetv2", "mobilenetv2")
    assert served.tiles == {"train": 16, "valid": 8}
    assert (version / "saved_model.pb").is_file()


def test_the_next_steps_that_it_prints_work(original):
    run, stdout = original
    steps = dict(re.findall(r"^ +(watch|score|serve) +(.*)$", stdout, re.MULTILINE))
    assert (run.folder / steps["watch"].removeprefix("tensorboard --logdir ")).is_dir()
    root = re.search(r"--model-root (\S+) --name mobilenetv2$", steps["serve"])
    assert root and (run.folder / root[1] / "mobilenetv2").is_dir()
    command = steps["score"].removeprefix("sat_xception ").replace("FILES_OR_FOLDERS", "test")
    code, scores, stderr = run.next(command)
    assert code == 0, stderr
    rows = list(csv.DictReader(io.StringIO(scores)))
    assert len(rows) == 8
    for row in rows:
        shares = [
            float(value) for key, value in row.items() if key.removeprefix("probability_") in ("school", "not-school")
        ]
        assert np.isclose(sum(shares), 1, atol=1e-3)


def test_other_names_of_classes_come_from_the_folders(tmp_path):
    run = run_here(write_tiles(tmp_path, classes=NAMES), f"{COMMAND} -input-size=32")
    code, stdout, stderr = run.finished()
    assert code == 0, stderr
    assert "best validation accuracy" in stdout
    served = PackagedModel.read(only(only(only(run.folder / "models") / "saved_model")))
    assert served.classes == ("not_school", "school", "water tower")
    assert served.positive_label == "school"


@pytest.mark.slow
def test_weights_that_cant_be_downloaded_are_told_with_advice_and_nothing_stays(runs):
    run = runs["no network"]
    code, stdout, stderr = run.finished()
    assert code == 4
    error = stderr.strip().splitlines()[-1]
    assert "can't be downloaded" in error
    assert "--weights PATH" in error and "SAT_XCEPTION_IMAGENET_DIR" in error and "--weights none" in error
    assert "Traceback" not in stderr
    assert "Downloading" not in stdout and "best validation accuracy" not in stdout
    assert not [path for path in (run.folder / "models").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_imagenet_weights_come_from_the_folder_that_the_environment_names(tmp_path):
    weights = SHARED / "data" / "weights"
    if not (weights / "xception_imagenet_no_top.weights.h5").is_file():
        pytest.skip(f"no ImageNet weights of Xception in {weights}")
    command = "train -model=xception -train=train -valid=test -input-size=71"
    run = start(tmp_path, command, {"SAT_XCEPTION_IMAGENET_DIR": str(weights)}, ("-c", FEW_EPOCHS), tiles=4)
    code, stdout, stderr = run.finished()
    assert code == 0, stderr
    trained = only(tmp_path / "models")
    weights = TrainingRecord.read(trained).weights
    assert weights.kind == "file"
    assert "xception_imagenet_no_top.weights.h5" in weights.description
    phases = [epoch.phase for epoch in TrainingHistory.read(trained).epochs]
    assert phases == ["head", "head", "fine-tune"]
    assert "best validation accuracy" in stdout and "(xception, " in stdout
