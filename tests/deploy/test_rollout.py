"""A rollout on a cluster, seen over HTTP: traffic moves in steps without a failed request, or goes back by itself."""

import json
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from aiohttp import web
from PIL import Image

from sat_xception.deploy.history import History
from sat_xception.deploy.rollout_record import FAILED
from sat_xception.deploy.traffic_checks import agreement
from sat_xception.errors import ConfigError, DataError, ModelError, ServiceError
from sat_xception.serve.client import EndpointClient
from tests.deploy.conftest import ALL_STEPS
from tests.deploy.packages import NAME, write_package
from tests.kserve_cluster import GATEWAY, KSERVE
from tests.predictors import ServingPredictor
from tests.serving_fixtures import pngs

ROUTE = f"{NAME}-route"
A, B = f"{NAME}-a-predictor", f"{NAME}-b-predictor"
REAL_SERVERS = pytest.mark.parametrize("cluster", [{"predictor": ServingPredictor}], indirect=True)


@contextmanager
def load(endpoint):
    """Send requests as users do, each once; yield the status codes."""
    body = json.dumps({"instances": [{"image_bytes": {"b64": image}} for image in _base64(pngs(1))]})
    answered, stopped = [], threading.Event()

    def ask():
        with httpx.Client(trust_env=False, timeout=60, verify=False) as client:
            while not stopped.is_set():
                answered.append(client.post(f"{endpoint}/v1/models/{NAME}:predict", content=body).status_code)
                stopped.wait(0.05)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def _base64(images):
    import base64

    return [base64.b64encode(image).decode() for image in images]


def records(cluster):
    maps = cluster.api.read("configmaps", f"{NAME}-deploys") or {"data": {}}
    return [json.loads(text) for _, text in sorted(maps["data"].items(), reverse=True)]


def test_a_first_version_gets_all_the_traffic(cluster, roll_out, caplog):
    caplog.set_level("INFO", "sat_xception")
    result = roll_out(1)
    assert "has all the traffic" in caplog.text and "is removed" not in caplog.text
    assert cluster.weights[ROUTE] == {A: 100}
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-a", f"{NAME}-template"]
    assert result.record.version == 1 and result.record.version_before is None
    assert "answers its 3 golden tiles" in result.summary()


@REAL_SERVERS
def test_the_next_version_takes_over_in_steps_and_no_request_of_a_user_fails(cluster, roll_out):
    roll_out(1)
    with load(cluster.endpoint) as answered:
        record = roll_out(2, traffic_steps=ALL_STEPS).record
    assert len(answered) > 50 and set(answered) == {200}
    assert cluster.weights[ROUTE] == {B: 100}
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-b", f"{NAME}-template"]
    assert [step.percent for step in record.rollout.steps] == [10, 50, 100]
    assert 0 < record.rollout.steps[0].answered_by_new < 0.4
    assert [one["state"] for one in records(cluster)] == ["serving", "replaced"]
    with EndpointClient(cluster.endpoint, NAME) as client:
        assert [status.version for status in client.status()] == [2]


@REAL_SERVERS
def test_a_model_that_answers_golden_tiles_wrongly_is_rolled_back_by_itself(cluster, roll_out):
    roll_out(1)
    cluster.fates[2] = "impostor"
    with load(cluster.endpoint) as answered, pytest.raises(ModelError) as caught:
        roll_out(2)
    assert "version 1 has all the traffic again" in str(caught.value)
    assert "expected" in str(caught.value) and caught.value.exit_code == 3
    assert set(answered) == {200}
    assert cluster.weights[ROUTE] == {A: 100}
    assert f"{NAME}-b" not in cluster.api.names("inferenceservices", KSERVE)
    assert records(cluster)[0]["state"] == FAILED and "golden tile" in records(cluster)[0]["reason"]


def test_a_version_that_fails_only_under_traffic_is_rolled_back(cluster, roll_out):
    roll_out(1)
    cluster.route_faults[B] = lambda request: web.json_response({"error": "out of GPU memory"}, status=500)
    with pytest.raises(ServiceError, match=r"rolled back, version 1 .* failed at 50 %.*out of GPU memory"):
        roll_out(2)
    assert cluster.weights[ROUTE] == {A: 100}
    assert "out of GPU memory" in records(cluster)[0]["reason"]


def test_wrong_answers_behind_the_route_are_noticed(cluster, roll_out):
    roll_out(1)

    def wrong(request):
        return web.json_response({"predictions": [[0.5, 0.5]]}) if request.method == "POST" else None

    cluster.route_faults[B] = wrong
    with pytest.raises((ModelError, ServiceError), match="rolled back, version 1 has all the traffic again"):
        roll_out(2)
    assert cluster.weights[ROUTE] == {A: 100}


def test_a_slower_version_is_rolled_back_unless_that_is_meant(cluster, roll_out):
    roll_out(1)
    cluster.delays_s[B] = 1.0
    with pytest.raises(ModelError, match=r"at the 95th percentile.*--max-slowdown 2"):
        roll_out(2, max_slowdown=2)
    assert cluster.weights[ROUTE] == {A: 100}


def test_a_limit_of_slowness_that_nothing_can_be_held_to_is_told(roll_out, caplog):
    roll_out(1)
    roll_out(2, max_slowdown=2, traffic_steps=(100,))
    assert "--max-slowdown 2 isn't checked" in caplog.text


def test_two_versions_that_answer_nan_dont_agree_on_a_class():
    nothing, sound = np.full((1, 2), np.nan, np.float32), np.array([[0.9, 0.1]], np.float32)

    def version(*answers):
        return SimpleNamespace(version=1, predict=lambda images: np.concatenate(answers))

    assert agreement(version(sound, sound), version(sound, sound), [b"", b""], 1.0) == 1
    assert agreement(version(sound, nothing), version(sound, sound), [b"", b""], 0.5) == 0.5
    with pytest.raises(ModelError, match="give 0% of 2 tiles the same class"):
        agreement(version(nothing, nothing), version(nothing, nothing), [b"", b""], 0.5)


def test_old_and_new_are_compared_on_tiles_of_a_folder(cluster, roll_out, tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (32, 32), (60 * number, 255 - 60 * number, 30)).save(folder / f"{number}.png")
    roll_out(1)
    with pytest.raises(ModelError, match=r"give \d+% of 7 tiles the same class \(--min-agreement 1\)"):
        # Opposite answers: the same weights with the classes swapped would do; other weights do here.
        roll_out(2, min_agreement=1, tiles=folder)
    with pytest.raises(DataError, match=r"--tiles .* holds no images"):
        roll_out(2, min_agreement=1, tiles=tmp_path / "root")


def test_a_route_that_the_gateway_refuses_is_told_in_its_words(cluster, roll_out, hurry):
    hurry("traffic")
    cluster.refuses_route = "Gateway has no listener for this host"
    with pytest.raises(ServiceError, match="Gateway has no listener for this host"):
        roll_out(1)
    assert cluster.api.names("inferenceservices", KSERVE) == [f"{NAME}-template"]


def test_the_host_that_the_gateway_routes_by_can_be_given(cluster, roll_out):
    cluster.clock.rate = 20
    with pytest.raises(ServiceError, match=r"no route for this host|404"):
        roll_out(1, endpoint_host="other.example.org")
    roll_out(1, endpoint_host="tiles.example.org")
    assert cluster.weights[ROUTE] == {A: 100}


def test_a_gateway_that_asks_for_a_token_gets_it_and_predictors_dont(cluster, roll_out, tmp_path, monkeypatch):
    cluster.clock.rate = 20
    cluster.token = "secret-of-the-users"
    with pytest.raises(ServiceError, match=r"401: .*Check --token-file \(or \$SAT_XCEPTION_TOKEN_FILE\)"):
        roll_out(1)
    cluster.clock.rate = 1
    (tmp_path / "token").write_text(cluster.token)
    monkeypatch.setenv("SAT_XCEPTION_TOKEN_FILE", str(tmp_path / "token"))
    roll_out(1)
    roll_out(2)
    assert cluster.weights[ROUTE] == {B: 100}


def test_deploying_the_same_version_again_proves_it_and_changes_nothing(cluster, roll_out):
    roll_out(1)
    before = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)["metadata"]["uid"], records(cluster)
    assert roll_out(1).record.version == 1
    assert (cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)["metadata"]["uid"], records(cluster)) == before


def test_a_changed_template_is_rolled_out_with_the_same_version(cluster, roll_out):
    roll_out(1)

    def more_replicas(body):
        body["spec"]["predictor"]["maxReplicas"] = 9

    cluster.api.edit("inferenceservices", f"{NAME}-template", more_replicas, KSERVE, manager="kustomize")
    roll_out(1)
    assert cluster.weights[ROUTE] == {B: 100}
    assert cluster.api.read("inferenceservices", f"{NAME}-b", KSERVE)["spec"]["predictor"]["maxReplicas"] == 9


def test_an_older_version_is_refused_with_the_way_to_go_back(cluster, roll_out):
    roll_out(1)
    roll_out(2)
    with pytest.raises(ConfigError, match="sat_xception rollback --to 1"):
        roll_out(1)
    assert cluster.weights[ROUTE] == {B: 100}


def test_a_copy_of_the_template_carries_nothing_that_is_the_templates_own(cluster, roll_out):
    roll_out(1)
    metadata = cluster.api.read("inferenceservices", f"{NAME}-a", KSERVE)["metadata"]
    assert metadata["annotations"].keys() == {
        "serving.kserve.io/deploymentMode",
        "sat-xception/version",
        "sat-xception/package-digest",
    }
    assert metadata["labels"] == {"app.kubernetes.io/part-of": "sat-xception"}


def test_a_dry_run_shows_the_checks_and_the_change_and_changes_nothing(cluster, roll_out):
    roll_out(1)
    before = {key: body["metadata"]["resourceVersion"] for key, body in cluster.api.objects.items()}
    shown = roll_out(2, dry_run=True, traffic_steps=ALL_STEPS).summary()
    assert {key: body["metadata"]["resourceVersion"] for key, body in cluster.api.objects.items()} == before
    assert not (cluster.root / f"{NAME}-releases" / "2").exists()
    assert "PROBLEM" not in shown and "traffic: 10 % -> 50 % -> 100 %" in shown
    assert "+      storageUri: pvc://models/serving/school-classifier-releases/2" in shown
    assert f"+++ httproute/{ROUTE} (planned)" in shown
    assert [line.split() for line in shown.splitlines() if line[:1] in "+-" and "weight" in line] == [
        ["-", "weight:", "100"],
        ["+", "weight:", "90"],
        ["+", "weight:", "10"],
    ]


def test_a_version_never_changes_under_its_number(cluster, roll_out, tmp_path):
    roll_out(1)
    other = write_package(tmp_path / "other", 1, seed=3)
    with pytest.raises(DataError, match="holds another model of this version"):
        roll_out(1, package=other)
    assert cluster.weights[ROUTE] == {A: 100}


def test_the_oldest_records_fall_out_but_never_the_one_that_serves(cluster, roll_out, settings):
    roll_out(1)
    cluster.fates[2] = "crash"
    for _ in range(2):
        with pytest.raises(ModelError):
            roll_out(2)

    class Settings:
        namespace, kubeconfig, context = "sat-xception", cluster.kubeconfig, ""

    from sat_xception.deploy.k8s_client import connect

    with connect(Settings()) as api:
        history = History(api, NAME)
        history.records = [
            *(history.records[0].model_copy(update={"id": f"2030-{number:03d}"}) for number in range(30)),
            *history.records,
        ]
        history.write()
        kept = History(api, NAME).records
    assert len(kept) == 21 and kept[-1].state == "serving"


def test_weights_of_the_route_are_the_only_thing_that_a_rollout_owns_of_it(cluster, roll_out):
    roll_out(1)
    route = cluster.api.read("httproutes", ROUTE, GATEWAY)
    assert route["spec"]["hostnames"] == ["tiles.example.org"]
    owners = cluster.api.owners[GATEWAY, "httproutes", "sat-xception", ROUTE]
    assert [path for path, names in owners.items() if "sat-xception-deploy" in names] == [("spec", "rules")]
