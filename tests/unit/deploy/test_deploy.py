"""The deploy step: a version that proves itself answers; one that doesn't is gone again, and the one before answers."""

import _thread
import json
import shutil
import socket
import threading
import time

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.deployment import Deployment
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.package.package import package
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import ServeConfig
from sat_xception.served_model.golden import check_golden
from sat_xception.steps import STEPS
from sat_xception.storage import file_digest, folder_digests
from tests.serving_fixtures import reverse_golden_tiles
from tests.small_models import write_small_model
from tests.waiting import wait_until

NAME = "school-classifier"


@pytest.fixture(scope="module")
def packages(examples, made_once):
    """Versions 1 and 2 of different weights, each in a model root of its own."""

    def make(folder):
        for number in (1, 2):
            write_small_model(folder / f"model-{number}", examples, seed=number)
            places = {"model": folder / f"model-{number}", "examples": examples, "out": folder / str(number)}
            package(PackageConfig(**places, version=number, golden_tiles=3))

    return made_once("packages-to-deploy", make)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Shorter pauses between two looks at an endpoint than outside of tests."""
    monkeypatch.setattr("sat_xception.deploy.availability._POLL_S", 0.02)
    monkeypatch.setattr("sat_xception.serve.client._RETRY_DELAYS_S", (0.01, 0.02))


@pytest.fixture
def damaged(packages, tmp_path):
    """Return a function that copies the package of version 2, changes it, and sets its digests right again."""

    def make(change):
        root = shutil.copytree(packages / "2", tmp_path / "damaged")
        version = root / NAME / "2"
        change(version)
        digests = {name: digest for name, digest in folder_digests(version).items() if name != "digests.json"}
        (version / "digests.json").write_text(json.dumps(digests))
        return root

    return make


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def run(packages, root):
    def run(package=packages / "1", **changes):
        return deploy(DeployConfig(**{"package": package, "model_root": root, **changes}))

    return run


@pytest.fixture
def server(root):
    """Return a function that starts a server on a root; it follows closely and stops with the test."""
    running = []

    def start(folder=root):
        running.append(RunningServer(ServeConfig(model_root=folder, name=NAME, rest_port=0, grpc_port=0, poll_s=0.05)))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def versions(root):
    """Every entry of the model's folder, half-written ones too."""
    return sorted(path.name for path in (root / NAME).iterdir())


def answers_as(url, version):
    """Whether the endpoint answers a version's golden tiles, whatever version it says it is."""
    with EndpointClient(url, NAME) as client:
        try:
            return check_golden(version, client) < 1e-5
        except (ModelError, ServiceError):
            return False


def test_a_first_version_is_copied_whole_and_proven(run, packages, root, tmp_path):
    result = run(out=tmp_path / "record")
    assert folder_digests(root / NAME / "1") == folder_digests(packages / "1" / NAME / "1")
    record = Deployment.read(tmp_path / "record")
    assert record == result.record
    assert (record.name, record.version, record.version_before) == (NAME, 1, None)
    assert (record.backbone, record.golden_tiles) == ("mobilenetv2", 3)
    assert record.model == file_digest(packages / "model-1" / "model.keras")
    assert 0 <= record.golden_difference < 1e-5
    assert "over REST and gRPC" in result.summary()
    assert f"sat_xception serve --model-root {root} --name {NAME}" in result.summary()


def test_deploying_the_same_version_again_proves_it_again_and_changes_nothing(run, root):
    run()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert run().record.version_before is None
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_newer_version_comes_beside_the_one_before(run, packages, root):
    run()
    assert run(packages / "2").record.version_before == 1
    assert versions(root) == ["1", "2"]


def test_an_older_version_is_refused_as_it_would_never_answer(run, packages, root):
    run(packages / "2")
    started = time.monotonic()
    with pytest.raises(ConfigError, match="holds version 2, which is newer than 1"):
        run()
    assert time.monotonic() - started < 5
    assert versions(root) == ["2"]


def test_another_model_of_the_same_version_is_refused(run, damaged, root):
    def change(version):
        (version / "MODEL_CARD.md").write_text("another")

    other = damaged(change)
    run(other)
    before = folder_digests(root)
    with pytest.raises(DataError, match=r"root/school-classifier/2 holds another model of this version"):
        (other / NAME / "2" / "MODEL_CARD.md").write_text("and another")
        (other / NAME / "2" / "digests.json").write_text(
            json.dumps({k: v for k, v in folder_digests(other / NAME / "2").items() if k != "digests.json"})
        )
        run(other)
    assert folder_digests(root) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda version: (version / "model.json").write_text("{}"), r"model\.json changed since it was packaged"),
        (lambda version: (version / "saved_model.pb").write_bytes(b""), r"saved_model\.pb changed"),
        (lambda version: (version / "golden.json").unlink(), r"golden\.json is missing since"),
        (
            lambda version: (version / "variables/more").write_text("x"),
            r"variables/more isn't in the package's digests",
        ),
        (lambda version: (version / "digests.json").unlink(), r"digests\.json is missing"),
        (lambda version: (version / "digests.json").write_text("["), r"digests\.json can't be read"),
    ],
)
def test_a_damaged_package_is_refused_by_the_file_that_is_wrong(run, packages, root, tmp_path, change, message):
    damaged = shutil.copytree(packages / "1", tmp_path / "damaged")
    change(damaged / NAME / "1")
    with pytest.raises(DataError, match=message):
        run(damaged)
    assert not root.exists()


def test_a_folder_without_a_package_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="no packaged model at"):
        run(tmp_path)


def test_a_version_is_what_its_description_says_whatever_its_folder_is_called(run, packages, root, tmp_path):
    copy = shutil.copytree(packages / "2" / NAME / "2", tmp_path / "my model")
    assert run(copy).record.version == 2
    assert versions(root) == ["2"]


def test_a_package_without_golden_tiles_proves_nothing_and_is_taken_out(run, damaged, root):
    with pytest.raises(DataError, match=r"golden\.json is missing"):
        run(damaged(lambda version: (version / "golden.json").unlink()))
    assert versions(root) == []


def test_a_model_that_answers_wrongly_is_taken_out_and_the_one_before_answers_again(
    run, damaged, root, packages, server
):
    run()
    running = server()
    with pytest.raises(ModelError, match=r"answers golden tile .* with \[.*expected \[.*it isn't the model in"):
        run(damaged(reverse_golden_tiles), endpoint=running.rest_url, timeout_s=30)
    assert versions(root) == ["1"]
    wait_until(lambda: answers_as(running.rest_url, packages / "1" / NAME / "1"))


def test_a_model_that_answers_wrongly_is_taken_out_without_an_endpoint_too(run, damaged, root):
    with pytest.raises(ModelError, match="answers golden tile"):
        run(damaged(reverse_golden_tiles))
    assert versions(root) == []


@pytest.mark.parametrize("before", [False, True])
def test_a_model_that_doesnt_load_is_taken_out(run, damaged, root, before):
    if before:
        run()
    with pytest.raises(ModelError, match="load"):
        run(damaged(lambda version: (version / "saved_model.pb").write_bytes(b"no graph")))
    assert versions(root) == (["1"] if before else [])


def test_a_running_endpoint_takes_the_new_version_over(run, packages, server):
    run()
    running = server()
    result = run(packages / "2", endpoint=running.rest_url, timeout_s=30)
    assert answers_as(running.rest_url, packages / "2" / NAME / "2")
    assert result.record.endpoint == running.rest_url
    assert f"at {running.rest_url}" in result.summary()
    assert "start it" not in result.summary()


def test_an_endpoint_may_be_asked_over_grpc(run, server):
    run()
    address = f"grpc://{server().grpc_address}"
    assert run(endpoint=address, timeout_s=30).record.golden_difference < 1e-5


def test_an_endpoint_that_never_gets_the_version_is_told_in_time(run, packages, root, server, tmp_path):
    run(model_root=tmp_path / "elsewhere")
    running = server(tmp_path / "elsewhere")
    started = time.monotonic()
    with pytest.raises(ServiceError, match=r"version 2 doesn't answer at .* after 0.3 s .*--model-root"):
        run(packages / "2", endpoint=running.rest_url, timeout_s=0.3)
    assert time.monotonic() - started < 10
    assert versions(root) == []


def test_an_endpoint_of_another_model_is_told(run, packages, root, server, tmp_path):
    shutil.copytree(packages / "2" / NAME / "2", tmp_path / "elsewhere" / NAME / "1")
    with pytest.raises(ModelError, match="it isn't the model in"):
        run(endpoint=server(tmp_path / "elsewhere").rest_url, timeout_s=30)
    assert versions(root) == []


def test_nobody_listening_is_told_in_time(run, root):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ServiceError, match=rf"doesn't answer at http://127\.0\.0\.1:{port} after 0.3 s"):
        run(endpoint=f"http://127.0.0.1:{port}", timeout_s=0.3)
    assert time.monotonic() - started < 15
    assert versions(root) == []


def test_a_version_that_was_proven_before_stays_when_the_endpoint_is_gone(run, root):
    run()
    with pytest.raises(ServiceError, match="doesn't answer"):
        run(endpoint="http://127.0.0.1:9", timeout_s=0.1)
    assert versions(root) == ["1"]


def test_an_address_of_another_form_is_told_before_anything_is_copied(packages, root):
    settings = {"package": packages / "1", "model_root": root, "endpoint": "localhost:8501"}
    with pytest.raises(ConfigError, match="--endpoint: expected http://host:port"):
        STEPS["deploy"].run(settings)
    assert not root.exists()


def test_an_interrupted_deployment_leaves_no_version_that_wasnt_proven(run, root):
    ended = threading.Event()

    def interrupt():
        while not ended.wait(0.05):
            if (root / NAME / "1").is_dir():
                _thread.interrupt_main()
                return

    killer = threading.Thread(target=interrupt)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        try:
            run(endpoint="http://127.0.0.1:9", timeout_s=120)
        finally:
            ended.set()
    killer.join()
    assert versions(root) == []


@pytest.mark.slow
def test_a_trained_network_deploys_as_a_small_one_does(run, packaged):
    assert run(packaged).record.golden_difference < 1e-4
