"""What tests share: small class folders that a model can learn, and the results of the slow steps, made once."""

import io
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared"

# A shell that starts us in the background has us, and all that we start, ignore the keyboard's interrupt, which some
# tests send.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Whatever images this checkout has built and pushed. It is read when the pipelines are imported.
os.environ |= {"IMAGE_REGISTRY": "sat-xception", "TRAIN_DEVICE": "gpu"}

# One thread per process, also in those that tests start: there is a worker per core, and threads that wait for each
# other's core cost time. TensorFlow and OpenMP read these when they are imported.
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ |= dict.fromkeys(_THREADS, "1")


MadeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(autouse=True)
def log_of_this_test() -> Iterator[None]:
    """Let the package's log be set up anew: an earlier test in this process may have sent it to stderr."""
    handlers = logging.getLogger("sat_xception").handlers
    before = handlers[:]
    handlers.clear()
    yield
    handlers[:] = before


def draw_tile(label: str, index: int, size: int = 48) -> Image.Image:
    """Draw a tile that says its class by its pattern: stripes for one, dots for any other; colours say nothing."""
    rng = np.random.default_rng([index, sum(label.encode())])
    pixels = rng.integers(0, 60, (size, size, 3)) + rng.integers(40, 130, 3)
    if label.startswith("not"):
        pixels[rng.integers(0, size, 60), rng.integers(0, size, 60)] += 90
    else:
        pixels[:: 4 + index % 3] += 90
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encode(image: Image.Image, fmt: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_folders() -> Callable[..., Path]:
    """Return a function that writes class folders below a folder and returns it."""

    def make(folder: Path, count: int = 20, classes: Sequence[str] = ("school", "not-school"), start: int = 0) -> Path:
        for label in classes:
            (folder / label).mkdir(parents=True)
            for index in range(start, start + count):
                (folder / label / f"{index:03d}.jpg").write_bytes(encode(draw_tile(label, index), quality=90))
        return folder

    return make


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Return a function that makes a folder by name once for all workers, and returns it; tests only read it."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own, below that of the run.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    root.mkdir(exist_ok=True)

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, finished = root / name, root / f"{name}.finished"
        with FileLock(root / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                make(folder)
                finished.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def class_folders(make_folders: Callable[..., Path], made_once: MadeOnce) -> Path:
    """40 tiles each of school and not-school, in folders of classes."""
    return made_once("tiles", lambda folder: make_folders(folder / "data", count=40)) / "data"


@pytest.fixture(scope="session")
def examples(class_folders: Path, made_once: MadeOnce) -> Path:
    """The class folders, assembled and converted."""
    from sat_xception.dataset.assemble import assemble
    from sat_xception.dataset.settings import AssembleConfig
    from sat_xception.examples.convert import convert
    from sat_xception.examples.settings import ConvertConfig

    def make(folder: Path) -> None:
        assemble(AssembleConfig(data=str(class_folders), out=folder / "dataset"))
        convert(ConvertConfig(dataset=folder / "dataset", out=folder / "examples"))

    return made_once("examples", make) / "examples"


@pytest.fixture(scope="module")
def small_mobilenet() -> Iterator[None]:
    """Within a module, the backbone mobilenetv2 is a network of a few weights."""
    from sat_xception.model.backbones import BACKBONES
    from tests.small_models import SMALL_MOBILENET

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "mobilenetv2", SMALL_MOBILENET)
        yield


@pytest.fixture(scope="module")
def eager_steps() -> Iterator[None]:
    """Within a module, trainings run their steps eagerly: graphs pay from some ten epochs on."""
    from tests.small_models import steps_run

    with steps_run(eagerly=True):
        yield


@pytest.fixture(scope="session")
def small_weights(made_once: MadeOnce) -> Path:
    """A weights file of the small mobilenetv2."""
    from tests.small_models import write_small_weights

    def make(folder: Path) -> None:
        folder.mkdir()
        write_small_weights(folder / "small.weights.h5")

    return made_once("weights", make) / "small.weights.h5"


# What `trained` and `trained_mobilenet` were trained with, as fields of `TrainConfig`.
FROM_SCRATCH = {"backbone": "mobilenetv2", "weights": "none", "alpha": 0.35, "input_size": 32, "scratch_epochs": 2}


@pytest.fixture(scope="session")
def trained(examples: Path, made_once: MadeOnce) -> Path:
    """A network of a few weights, called mobilenetv2, trained for two epochs from random weights."""
    from sat_xception.model.backbones import BACKBONES
    from sat_xception.model.settings import TrainConfig
    from sat_xception.train.train import train
    from tests.small_models import SMALL_MOBILENET, steps_run

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch, steps_run(eagerly=False):
            patch.setitem(BACKBONES, "mobilenetv2", SMALL_MOBILENET)
            train(TrainConfig(examples=examples, out=folder / "mobilenetv2", **FROM_SCRATCH))

    return made_once("trained", make) / "mobilenetv2"


@pytest.fixture(scope="session")
def trained_mobilenet(examples: Path, made_once: MadeOnce) -> Path:
    """The real MobileNetV2, narrow, trained in the same way; for slow tests."""
    from sat_xception.model.backbones import BACKBONES
    from sat_xception.model.settings import TrainConfig
    from sat_xception.train.train import train
    from tests.small_models import MOBILENET, steps_run

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch, steps_run(eagerly=False):
            patch.setitem(BACKBONES, "mobilenetv2", MOBILENET)  # whatever the module has replaced it by
            train(TrainConfig(examples=examples, out=folder / "mobilenetv2", **FROM_SCRATCH))

    return made_once("trained-mobilenet", make) / "mobilenetv2"


@pytest.fixture(scope="session")
def evaluated(trained: Path, examples: Path, made_once: MadeOnce) -> Path:
    """The small network's evaluation on the validation split."""
    from sat_xception.evaluate.evaluate import evaluate
    from sat_xception.evaluate.settings import EvaluateConfig

    def make(folder: Path) -> None:
        evaluate(EvaluateConfig(model=trained, examples=examples, out=folder / "mobilenetv2"))

    return made_once("evaluated", make) / "mobilenetv2"


@pytest.fixture(scope="session")
def packaged(trained: Path, examples: Path, made_once: MadeOnce) -> Path:
    """The small network, packaged: a model root with school-classifier/1."""
    from sat_xception.package.package import package
    from sat_xception.package.settings import PackageConfig

    def make(folder: Path) -> None:
        package(PackageConfig(model=trained, examples=examples, out=folder, version=1))

    return made_once("packaged", make)


_CHARTS: dict[tuple[str, str], object] = {}


@pytest.fixture(scope="module")
def charts_drawn_once() -> Iterator[None]:
    """Within a module, draw the chart of equal figures once: each takes a quarter of a second, and a report has ten."""
    from sat_xception.evaluate import report

    def once(name: str, draw: Callable[..., object]) -> Callable[..., object]:
        def chart(*figures: object) -> object:
            key = (name, repr(figures))
            if key not in _CHARTS:
                _CHARTS[key] = draw(*figures)
            return _CHARTS[key]

        return chart

    with pytest.MonkeyPatch.context() as patch:
        for name in ("confusion_chart", "curves_chart", "precision_recall_chart", "reliability_chart", "roc_chart"):
            patch.setattr(report, name, once(name, getattr(report, name)))
        yield


@pytest.fixture(scope="session")
def ucmerced() -> Path:
    """Real tiles, where they are."""
    folder = SHARED / "data" / "tiles-ucmerced"
    if not folder.is_dir():
        pytest.skip(f"no real tiles at {folder}")
    return folder


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """Real ImageNet weights of MobileNetV2 with alpha 0.35, where they are."""
    path = SHARED / "data" / "weights" / "mobilenet_v2_0.35_imagenet_no_top.weights.h5"
    if not path.is_file():
        pytest.skip(f"no ImageNet weights at {path}")
    return path
