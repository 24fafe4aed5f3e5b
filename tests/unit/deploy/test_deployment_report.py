"""What people read of a deployment."""

import json

import pytest

from sat_xception.deploy.deployment import CheckedPackage, Deployment
from sat_xception.deploy.readiness import Predictor
from sat_xception.deploy.release import Release
from sat_xception.deploy.report import deployment_markdown
from sat_xception.deploy.rollout_record import Agreement, RolloutRecord, TrafficStep
from sat_xception.errors import DataError

DEPLOYMENT = Deployment(
    name="school-classifier",
    version=20261124104844,
    version_before=None,
    backbone="xception",
    model="d" * 64,
    model_root="models/serving",
    endpoint="",
    golden_tiles=8,
    golden_difference=1.2e-07,
    serve_command="sat_xception serve --model-root models/serving --name school-classifier",
    deployed_at="2026-11-24T10:48:44Z",
)
ROLLOUT = RolloutRecord(
    id="20261124T104844.000-2",
    name="school-classifier",
    version=2,
    place="/root/2/2",
    storage_uri="gs://models/2",
    digest="0" * 64,
    backbone="xception",
    model="d" * 64,
    classes=("not-school", "school"),
    strategy="canary",
    by="host-1",
    endpoint="http://models.example",
    before=Predictor("s", "s-v1-predictor", 1, "gs://models/1", min_replicas=1),
    new=Predictor("s", "s-v2-predictor", 2, "gs://models/2", ("Ready",)),
    stage="100 % of the traffic",
    steps=(
        TrafficStep(
            percent=100,
            requests=1234,
            failed=1,
            answered_by_new=1.0,
            tiles_answered_by_new=900,
            p95_new_ms=12.5,
            p95_old_ms=None,
        ),
    ),
    state="serving",
    started_at="2026-11-24T10:40:00Z",
    finished_at="2026-11-24T10:48:44Z",
    golden_difference=1.2e-07,
    golden_tiles=8,
    agreement=Agreement(tiles=8, share=1.0),
)


@pytest.fixture
def record():
    def make(**changes):
        return DEPLOYMENT.model_copy(update=changes)

    return make


def test_it_names_version_digest_place_and_proof(record):
    text = deployment_markdown(record(version_before=7))
    assert text.startswith("# school-classifier version 20261124104844 answers\n")
    for row in (
        "| model | school-classifier |",
        "| version | 20261124104844 |",
        "| version before | 7 |",
        f"| digest of the Keras model | {'d' * 64} |",
        "| model root | models/serving |",
        "| golden tiles | 8 answered within 1e-07 |",
    ):
        assert row in text


def test_without_an_endpoint_it_says_how_to_start_one(record):
    text = deployment_markdown(record())
    assert "\n    sat_xception serve --model-root models/serving --name school-classifier\n" in text
    assert "](" not in text


def test_an_endpoint_is_linked_and_can_be_asked_by_the_commands(record):
    text = deployment_markdown(record(endpoint="http://models.example:8501/"))
    status = "http://models.example:8501/v1/models/school-classifier/versions/20261124104844"
    assert f"]({status})" in text
    assert f"\n    curl -s {status}\n" in text
    assert "--endpoint http://models.example:8501/" in text


def test_an_endpoint_of_grpc_has_no_page_to_link(record):
    text = deployment_markdown(record(endpoint="grpc://models.example:8500"))
    assert "](" not in text
    assert "curl" not in text
    assert "--endpoint grpc://models.example:8500" in text


def test_a_rollout_is_shown_share_by_share(record):
    assert "| 100 % | 1,234 | 1 | 12.5 ms |" in deployment_markdown(record(rollout=ROLLOUT))


def test_records_are_read_as_they_were_written(record, tmp_path):
    for written in (record(), record(rollout=ROLLOUT)):
        written.write(tmp_path)
        assert Deployment.read(tmp_path) == written
    assert RolloutRecord.from_json(ROLLOUT.to_json(compact=True), "the history") == ROLLOUT


def test_records_of_the_version_before_are_read(record, tmp_path):
    """It wrote no `schema_version`, and no `id` into a ConfigMap, whose keys have it."""
    stored = json.loads(ROLLOUT.to_json())
    del stored["schema_version"], stored["id"]
    del stored["new"]["min_replicas"], stored["new"]["max_replicas"]
    found = RolloutRecord.from_json(json.dumps(stored), "the history")
    assert found == ROLLOUT.model_copy(update={"id": ""})
    assert found.release == Release(
        "school-classifier", 2, "/root/2/2", "gs://models/2", "0" * 64, "xception", "d" * 64, ("not-school", "school")
    )
    stored = record(rollout=ROLLOUT).content()
    (tmp_path / "deployment.json").write_text(json.dumps(stored))
    assert Deployment.read(tmp_path) == record(rollout=ROLLOUT)


def test_figures_that_arent_known_are_left_out_as_before(record):
    begun = ROLLOUT.model_copy(update={"golden_difference": None, "golden_tiles": None, "agreement": None})
    assert ROLLOUT.content().keys() - begun.content().keys() == {"golden_difference", "golden_tiles", "agreement"}
    assert RolloutRecord.from_json(begun.to_json(), "the history") == begun
    assert "rollout" not in record().content()


def test_a_package_that_was_only_checked_is_no_deployment(tmp_path):
    CheckedPackage(name="a", version=1, backbone="xception", model="0").write(tmp_path)
    assert CheckedPackage.read(tmp_path).target == "none"
    with pytest.raises(DataError, match=r"deployment\.json is damaged: version_before: Field required"):
        Deployment.read(tmp_path)
