"""A model root in a bucket, from package to an answer: on an emulator of Google Cloud Storage, with faults between."""

import csv
import json
from collections.abc import Iterator

import pytest

from sat_xception.deploy.deploy import deploy
from sat_xception.deploy.settings import DeployConfig
from sat_xception.errors import ConfigError, ModelError, ServiceError
from sat_xception.evaluate.evaluate import evaluate
from sat_xception.evaluate.settings import EvaluateConfig
from sat_xception.package.package import package
from sat_xception.package.settings import PackageConfig
from sat_xception.serve.client import EndpointClient
from sat_xception.serve.predict import predict
from sat_xception.serve.server import RunningServer
from sat_xception.serve.settings import PredictConfig, ServeConfig
from sat_xception.served_model.model_root import (
    find_versions,
    has_version,
    new_version,
    remove_version,
    resolve_version,
)
from sat_xception.steps import MODELS_VERBS
from sat_xception.storage import GcsPath, folder_digests
from sat_xception.storage import store as stores
from tests.conftest import draw_tile, encode
from tests.small_models import write_small_model
from tests.storage_proxy import StorageProxy, bucket_of, running_emulator, running_proxy
from tests.waiting import wait_until

# The client library leaves the body of a refused download unread, and its connection to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
NAME = "school-classifier"
ROOT = GcsPath("gs://models/serving")
PACKAGED = GcsPath("gs://models/packaged")
VERSION = ROOT / NAME / "7"


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with running_emulator("models") as address:
        yield address


@pytest.fixture
def proxy(emulator, monkeypatch, tmp_path) -> Iterator[StorageProxy]:
    """The emulator's empty bucket `models` behind a proxy, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stores, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(stores, "_LOOK_S", 1)
    monkeypatch.setattr(stores, "_TRANSFER_S", 1)
    with running_proxy(emulator, monkeypatch) as proxy:
        assert proxy.ask("GET", "/wipe?keep-buckets=1", b"", {})[0] == 200
        yield proxy


@pytest.fixture(scope="module")
def model(examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    write_small_model(folder, examples, seed=1)
    return folder


def objects(below: str) -> list[str]:
    return sorted(blob.name for blob in bucket_of("models").list_blobs(prefix=f"{below}/"))


def write(version: GcsPath, text: str = "weights") -> None:
    with new_version(version) as work:
        (work / "variables").mkdir()
        for name in ("saved_model.pb", "variables/variables.data", "model.json"):
            (work / name).write_text(f"{text} of {name}")
        (work / "digests.json").write_text(json.dumps(folder_digests(work)))


def test_from_package_to_an_answer_with_every_place_in_a_bucket(proxy, examples, model, tmp_path):
    result = package(PackageConfig(model=model, examples=examples, out=PACKAGED, version=7, golden_tiles=3))
    assert str(result.folder) == "gs://models/packaged/school-classifier/7"
    with pytest.raises(ConfigError, match="exists, and a version never changes"):
        package(PackageConfig(model=model, examples=examples, out=PACKAGED, version=7, golden_tiles=3))
    settings = ServeConfig(model_root=ROOT, name=NAME, rest_port=0, grpc_port=0, poll_s=0.1, wait=True)
    with RunningServer(settings) as server:
        deployed = deploy(DeployConfig(package=PACKAGED, model_root=ROOT, endpoint=server.rest_url))
        assert deployed.record.golden_difference < 1e-5
        assert deployed.record.serve_command.endswith("--model-root gs://models/serving --name school-classifier")
        for label in ("school", "not-school"):
            tile = encode(draw_tile(label, 1))
            bucket_of("models").blob(f"tiles/{label}.jpg").upload_from_string(tile)
        outs = [GcsPath("gs://models/scores/served.csv"), GcsPath("gs://models/scores/model.csv")]
        inputs = (GcsPath("gs://models/tiles"), GcsPath("gs://models/tiles/school.jpg"))
        predict(PredictConfig(inputs=inputs, endpoint=server.rest_url, out=outs[0]))
        predict(PredictConfig(inputs=inputs, model=ROOT, out=outs[1]))
    now = evaluate(EvaluateConfig(model_root=ROOT, examples=examples, out=tmp_path / "now")).evaluation
    assert (now.serving.version, now.serving.place) == (7, "gs://models/serving")
    served, local = (
        list(csv.reader(bucket_of("models").blob(out.object).download_as_text().splitlines())) for out in outs
    )
    assert [row[0] for row in served[1:]] == ["gs://models/tiles/not-school.jpg", "gs://models/tiles/school.jpg"]
    assert [row[1] for row in served] == [row[1] for row in local]
    assert float(served[1][2]) == pytest.approx(float(local[1][2]), abs=1e-5)
    again = deploy(DeployConfig(package=PACKAGED, model_root=ROOT))  # proves it once more, and changes nothing
    assert again.record.version == 7
    look = {verb: step.run({"model_root": ROOT}).summary() for verb, step in MODELS_VERBS.items()}
    assert look["list"].splitlines()[1].startswith("7 ")
    assert look["show"].startswith("# school-classifier 7")
    assert "golden tiles answered within" in look["verify"]
    assert look["gc"] == "versions  1 were there | 0 removed  1 kept"


def test_a_version_that_answers_wrongly_is_out_of_the_bucket_again(proxy, examples, model):
    result = package(PackageConfig(model=model, examples=examples, out=PACKAGED, version=7, golden_tiles=2))
    place = bucket_of("models").blob(f"{result.folder.object}/golden.json")
    golden = json.loads(place.download_as_text())
    for tile in golden["tiles"]:
        tile["probabilities"].reverse()
    place.upload_from_string(json.dumps(golden))
    digests = folder_digests(resolve_version(PACKAGED, NAME))
    del digests["digests.json"]
    bucket_of("models").blob(f"{result.folder.object}/digests.json").upload_from_string(json.dumps(digests))
    with pytest.raises(ModelError, match="it isn't the model in"):
        deploy(DeployConfig(package=PACKAGED, model_root=ROOT))
    assert objects("serving") == []


def test_a_server_keeps_what_it_has_while_the_bucket_is_away_and_follows_it_afterwards(proxy, examples, model, caplog):
    def publish(number: int) -> None:
        package(PackageConfig(model=model, examples=examples, out=ROOT, version=number, golden_tiles=1))

    publish(7)
    settings = ServeConfig(model_root=ROOT, name=NAME, rest_port=0, grpc_port=0, poll_s=0.05)
    with RunningServer(settings) as server, EndpointClient(server.rest_url, NAME) as client:
        proxy.fail("GET /storage/.*/o", 503, times=1000)
        wait_until(lambda: "still serving what is loaded" in caplog.text)
        proxy.faults.clear()
        publish(8)
        wait_until(lambda: {8: "AVAILABLE", 7: "END"} == {one.version: one.state for one in client.status()})
        remove_version(ROOT / NAME / "8")
        wait_until(lambda: client.status()[0].version == 7 and client.status()[0].state == "AVAILABLE")


def test_a_model_root_that_is_not_there_is_told_when_the_server_starts(proxy):
    with pytest.raises(ConfigError, match="no version of 'school-classifier' to serve in gs://models/serving"):
        RunningServer(ServeConfig(model_root=ROOT, name=NAME, rest_port=0, grpc_port=0))
    with pytest.raises(ConfigError, match=r"gcloud storage ls gs://nowhere/"):
        RunningServer(ServeConfig(model_root=GcsPath("gs://nowhere/x"), name=NAME, rest_port=0, grpc_port=0, wait=True))
    with pytest.raises(ConfigError, match="no packaged model at gs://models/serving"):
        resolve_version(ROOT, NAME)


def test_a_version_counts_once_its_digests_are_there_and_they_come_last(proxy):
    proxy.fail(r"POST /upload/.*7/digests\.json", 503, times=50)
    with pytest.raises(ServiceError):
        write(VERSION)
    assert len(objects("serving")) == 3
    assert not has_version(VERSION)
    assert find_versions(VERSION.parent) == {}
    proxy.faults.clear()
    bucket_of("models").blob(f"{VERSION.object}/of-an-earlier-try").upload_from_string("x")
    write(VERSION)
    assert list(find_versions(VERSION.parent)) == [7]
    uploads = [request.rsplit("/", 1)[-1] for request in proxy.requests if request.startswith("POST /upload/")]
    assert uploads[-2:] == ["saved_model.pb", "digests.json"]
    assert sorted(folder_digests(resolve_version(ROOT, NAME))) == [
        "digests.json",
        "model.json",
        "saved_model.pb",
        "variables/variables.data",
    ]


def test_a_version_is_never_replaced_but_a_lost_answer_is_no_conflict(proxy):
    proxy.fail(r"POST /upload/.*7/digests\.json", "lost")
    write(VERSION)
    with pytest.raises(ConfigError, match="is there already, and never changes"):
        write(VERSION, "others")
    proxy.fail(r"POST /upload/.*8/saved_model\.pb", lambda: write(ROOT / NAME / "8", "theirs"))
    with pytest.raises(ConfigError, match="somebody else published"):
        write(ROOT / NAME / "8", "ours")


def test_removing_a_version_takes_its_digests_first(proxy):
    write(VERSION)
    proxy.fail(r"DELETE .*saved_model\.pb", 503, times=50)
    with pytest.raises(ServiceError):
        remove_version(VERSION)
    assert not has_version(VERSION)
    proxy.faults.clear()
    remove_version(VERSION)
    assert objects("serving") == []
