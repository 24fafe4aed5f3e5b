"""Components of the compiled pipelines, run by kfp's own executor on what the real driver and launcher give them."""

import json
import shutil
import urllib.request

import numpy as np
import pytest
from google.protobuf import json_format

from pipelines.training import training
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.notify.last_run import outcome_of
from tests.components.launcher import Launcher
from tests.conftest import draw_tile, encode
from tests.small_models import small_backbone
from tests.storage_backends import Servers
from tests.tile_server import TileServer

pytestmark = pytest.mark.usefixtures("charts_drawn_once")
NO_LIMITS = {"min_accuracy": 0.0, "min_gain": -1.0, "min_recall": 0.0, "min_precision": 0.0, "max_loss": 1.0}


def as_settings(**settings):
    """Return settings of a task, as check returns them."""
    return json.dumps(settings)


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    return Launcher(json_format.MessageToDict(training.pipeline_spec), tmp_path, monkeypatch)


@pytest.fixture
def run_check(launcher, pipeline_parameters):
    """Return a function that runs check with the pipeline's defaults and other values, and returns what it returns."""
    return lambda **changes: launcher.run("check", **{**pipeline_parameters, "run": "run-1", **changes})


def test_assemble_and_convert_hand_over_a_dataset(launcher, run_check, class_folders):
    checked = run_check(data=str(class_folders))
    assert checked["baseline_run"] == ""
    launcher.run("assemble", source=checked["source"])
    dataset = launcher.outputs["assemble/dataset"]
    assert dataset.metadata["ok"] == 80
    launcher.run("convert", settings=checked["convert"], dataset=dataset)
    examples = launcher.outputs["convert/examples"]
    assert sum(examples.metadata.values()) == 80
    described = json.loads((examples.path / "examples.json").read_text())
    assert described["dataset_digest"] == dataset.metadata["digest"]


def test_with_a_store_the_source_is_the_same_in_every_run_on_the_same_data(
    launcher, run_check, class_folders, tmp_path
):
    given = {"data": str(class_folders), "data_store": str(tmp_path / "store"), "gate_min_accuracy": 0.5}
    first = run_check(**given)
    second = run_check(**{**given, "gate_min_accuracy": 0.9, "run": "run-2"})
    # Only the gate's settings differ, so nothing but the gate is computed again.
    assert {name for name, text in second.items() if text != first[name]} == {"gate"}
    launcher.run("assemble", source=first["source"])
    assert launcher.outputs["assemble/dataset"].metadata["ok"] == 80


def test_the_run_is_an_input_of_validate_where_there_is_a_baseline(run_check, class_folders, tmp_path):
    assert run_check(data=str(class_folders), data_baseline=str(tmp_path / "b"))["baseline_run"] == "run-1"


class _Imagery(TileServer):
    """Serves another drawn image for each tile."""

    def tile(self, x, y):
        return encode(draw_tile("school", x * 4096 + y % 4096))


def test_assemble_takes_places_and_imagery_by_parameters(launcher, run_check, tmp_path):
    places = [(10 + index * 0.31, 40 + index % 7, index % 2) for index in range(80)]
    rows = [
        f"{lon},{lat},{'school' if odd else 'not-school'},{'rural' if lat > 43 else 'urban'}"
        for lon, lat, odd in places
    ]
    (tmp_path / "places.csv").write_text("\n".join(["lon,lat,kind,setting", *rows]))
    with _Imagery([]) as server:
        given = {"data_labels": str(tmp_path / "places.csv"), "data_imagery": server.template, "data_zoom": 15}
        more = "assemble: {label_column: kind, slice_columns: [setting], negatives_ratio: 0.5, workers: 4}"
        launcher.run("assemble", source=run_check(**given, settings=more)["source"])
    dataset = launcher.outputs["assemble/dataset"]
    described = json.loads((dataset.path / "dataset.json").read_text())
    assert dataset.metadata["ok"] == described["counts"]["considered"] == 80 + 20 == sum(server.asked.values())
    assert described["counts"]["by_slice"]["setting"].keys() >= {"rural", "urban"}
    assert described["config"]["zoom"] == 15


def test_bad_data_ends_the_process_with_its_exit_code_and_a_termination_message(
    launcher, run_check, tmp_path, monkeypatch
):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    source = run_check(data=str(tmp_path / "nowhere"))["source"]
    with pytest.raises(SystemExit) as ended:
        launcher.run("assemble", source=source)
    assert ended.value.code == 3
    reason = json.loads((tmp_path / "reason.json").read_text())
    assert reason["step"] == "assemble"
    assert "nowhere" in reason["error"]


def test_the_first_task_refuses_a_parameter_of_a_later_one_before_it_reads_the_data(run_check, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    with pytest.raises(SystemExit) as ended:
        run_check(data=str(tmp_path / "nowhere"), gate_min_accuracy=1.5)
    assert ended.value.code == 2
    reason = json.loads((tmp_path / "reason.json").read_text())["error"]
    assert reason.startswith("wrong settings: gate_min_accuracy")
    assert "nowhere" not in reason


def test_on_a_cluster_the_first_task_refuses_a_local_target_without_a_server(run_check, tmp_path, monkeypatch):
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    with pytest.raises(SystemExit) as ended:
        run_check(deploy_target="local")
    assert ended.value.code == 2
    assert "deploy_target: 'local' needs deploy_endpoint" in json.loads((tmp_path / "reason.json").read_text())["error"]


def test_without_a_kubernetes_to_ask_the_first_task_says_that_the_run_ends_with_a_packaged_model(
    launcher, run_check, monkeypatch
):
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "nowhere")
    checked = run_check()
    assert checked["deploy_reason"].startswith("API server: no cluster to deploy to")
    assert json.loads(checked["deploy"])["target"] == "none"
    assert "This run ends with a packaged model" in launcher.outputs["check/summary"].path.read_text()


def test_on_this_machine_the_first_task_says_where_the_model_goes(launcher, run_check):
    assert run_check()["deploy_reason"] == ""
    page = launcher.outputs["check/summary"].path.read_text()
    assert "A model that passes the gate is copied to models/serving." in page


@pytest.fixture
def decide(launcher, packaged, evaluated, examples, tmp_path):
    """Return a function that runs the gate on two models and what a model root serves, and returns its answer."""

    def stored(name, folder):
        launcher.store(name, folder)
        return launcher.outputs[name]

    other = shutil.copytree(evaluated, tmp_path / "other")
    weaker = json.loads((evaluated / "evaluation.json").read_text())
    weaker["backbone"], weaker["model"] = "xception", "0" * 64
    weaker["metrics"]["accuracy"] = 0.0
    (other / "evaluation.json").write_text(json.dumps(weaker))
    candidates = {"xception": stored("a/evaluation", other), "mobilenetv2": stored("b/evaluation", evaluated)}

    def run(model_root, run, **changes):
        where = as_settings(model_root=str(model_root))
        launcher.run("evaluate-serving", settings=where, examples=stored("convert/examples", examples))
        serving = launcher.outputs["evaluate-serving/evaluation"]
        ending = {"baseline": str(tmp_path / "baseline"), "run": run}
        limits = as_settings(**{**NO_LIMITS, "max_loss": 0.01, **changes})
        return launcher.run("gate", settings=limits, **candidates, serving=serving, **ending)["Output"]

    return run


def test_gate_returns_the_winner_and_package_takes_it(launcher, decide, trained, tmp_path):
    baseline = tmp_path / "baseline"
    nowhere = tmp_path / "nowhere"
    assert decide(nowhere, "run-1", max_calibration_error=0.0) == "none"
    assert outcome_of(baseline, "run-1").startswith("no model passes: ")
    assert "no version of school-classifier is served" in launcher.outputs["evaluate-serving/report"].path.read_text()
    assert decide(nowhere, "run-2") == "mobilenetv2"
    assert outcome_of(baseline, "run-2") == "", "a run with a winner hasn't finished before deploy"
    assert not [figure for figure in launcher.outputs["gate/metrics"].metadata if figure.startswith("serving")]
    launcher.store("train/model", trained)
    models = {"xception": launcher.outputs["train/model"], "mobilenetv2": launcher.outputs["train/model"]}
    inputs = {"examples": launcher.outputs["convert/examples"], "decision": launcher.outputs["gate/decision"]}
    launcher.run(
        "package", in_group=True, settings=as_settings(name="schools"), winner="mobilenetv2", **models, **inputs
    )
    served = launcher.outputs["package/served_model"]
    assert (served.path / "schools" / served.metadata["version"] / "saved_model.pb").is_file()


def test_a_winner_that_is_serving_already_is_not_deployed_again(launcher, decide, packaged, tmp_path):
    """As on a night without new tiles: all is cached up to the gate, and the winner is the model of the last run."""
    assert decide(packaged, "run-1") == "none"
    assert "it is serving already, as version" in outcome_of(tmp_path / "baseline", "run-1")
    decision = json.loads((launcher.outputs["gate/decision"].path / "decision.json").read_text())
    assert (decision["winner"], decision["already_serving"]) == ("mobilenetv2", True)
    assert launcher.outputs["gate/metrics"].metadata["serving accuracy"] >= 0


@pytest.fixture(scope="module")
def diverged(examples, tmp_path_factory, small_mobilenet, charts_drawn_once):
    """The launcher that ran train on weights that aren't numbers, then evaluate, and evaluate-serving on no model."""
    folder = tmp_path_factory.mktemp("diverged")
    network = small_backbone(include_top=False, weights=None, input_shape=(32, 32, 3), alpha=0.35)
    network.layers[1].kernel.assign(np.full(network.layers[1].kernel.shape, np.nan))
    network.save_weights(folder / "nan.weights.h5")
    weights = {"weights": str(folder / "nan.weights.h5"), "input_size": 32, "alpha": 0.35}
    own = {"train": {"head_epochs": 3, "fine_tune_epochs": 0}, "mobilenetv2": weights}
    with pytest.MonkeyPatch.context() as monkeypatch:
        launcher = Launcher(json_format.MessageToDict(training.pipeline_spec), folder, monkeypatch)
        launcher.store("convert/examples", examples)
        data = launcher.outputs["convert/examples"]
        launcher.run("train", settings=TRAINING.check({"settings": json.dumps(own)})["mobilenetv2"], examples=data)
        launcher.run("evaluate", settings="{}", examples=data, model=launcher.outputs["train/model"])
        launcher.run("evaluate-serving", settings=as_settings(model_root=str(folder / "nowhere")), examples=data)
        yield launcher


def test_of_a_training_that_diverged_the_other_candidate_goes_on(
    diverged, trained, evaluated, tmp_path, capsys, monkeypatch
):
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK", raising=False)
    launcher, evaluation = diverged, diverged.outputs["evaluate/evaluation"]
    model = launcher.outputs["train/model"]
    assert model.metadata["failed"] == "no epoch had a finite loss (head, learning rate 0.001)"
    assert model.metadata.keys() == {"backbone", "failed"}, "nothing that ML Metadata can't hold"
    assert "<svg" in launcher.outputs["train/curves"].path.read_text()
    assert model.metadata["failed"] in launcher.outputs["evaluate/report"].path.read_text()
    other = shutil.copytree(evaluated, tmp_path / "other")
    described = json.loads((evaluated / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps({**described, "backbone": "xception"}))
    launcher.store("other/evaluation", other)
    candidates = {"xception": launcher.outputs["other/evaluation"], "mobilenetv2": evaluation}
    data = launcher.outputs["convert/examples"]
    serving, baseline = launcher.outputs["evaluate-serving/evaluation"], tmp_path / "baseline"
    ending = {"baseline": str(baseline), "run": "run-1"}
    limits = as_settings(**NO_LIMITS)
    assert launcher.run("gate", settings=limits, **candidates, serving=serving, **ending)["Output"] == "xception"
    assert not [name for name in launcher.outputs["gate/metrics"].metadata if name.startswith("mobilenetv2")]
    assert model.metadata["failed"] in launcher.outputs["gate/report"].path.read_text()
    launcher.store("trained/model", trained)
    models = {"xception": launcher.outputs["trained/model"], "mobilenetv2": model}
    inputs = {"examples": data, "decision": launcher.outputs["gate/decision"]}
    launcher.run("package", in_group=True, settings="{}", winner="xception", **models, **inputs)
    _deploy_nowhere(launcher, ending)
    told = outcome_of(baseline, "run-1")
    assert told.endswith(f"; the training of mobilenetv2 failed: {model.metadata['failed']}")
    status = {"state": "COMPLETE", "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "r", "error": {}}
    launcher.run("notify", pipeline="p", status=status, **ending)
    assert f"p: SUCCEEDED: {told}" in capsys.readouterr().out


def test_where_both_trainings_diverged_no_model_is_deployed_and_the_run_ends_well(diverged, tmp_path):
    launcher, evaluation = diverged, diverged.outputs["evaluate/evaluation"]
    other = shutil.copytree(evaluation.path, tmp_path / "other")
    described = json.loads((other / "evaluation.json").read_text())
    (other / "evaluation.json").write_text(json.dumps({**described, "backbone": "xception"}))
    launcher.store("other/evaluation", other)
    candidates = {"xception": launcher.outputs["other/evaluation"], "mobilenetv2": evaluation}
    ending = {"baseline": str(tmp_path / "baseline"), "run": "run-1"}
    serving = launcher.outputs["evaluate-serving/evaluation"]
    limits = as_settings(**NO_LIMITS)
    assert launcher.run("gate", settings=limits, **candidates, serving=serving, **ending)["Output"] == "none"
    told = outcome_of(tmp_path / "baseline", "run-1")
    assert told.startswith("no model passes: ") and told.count("its training failed: no epoch had a finite loss") == 2


@pytest.mark.parametrize("state", ["FAILED", "COMPLETE", "RUNNING"])
def test_notify_is_told_the_state_as_the_driver_writes_it(launcher, capsys, monkeypatch, state):
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK", raising=False)
    status = {"state": state, "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "run-x", "error": {}}
    launcher.run("notify", pipeline="school-classifier-training", baseline="", run="run-1", status=status)
    shown = {"FAILED": "FAILED", "COMPLETE": "SUCCEEDED", "RUNNING": "ENDED: Kubeflow doesn't report how; see the run"}
    assert f"school-classifier-training: {shown[state]}" in capsys.readouterr().out


def _deploy_nowhere(launcher, ending, reason=""):
    settings = as_settings(target="none", model_root="models/serving")
    served = launcher.outputs["package/served_model"]
    launcher.run("deploy", in_group=True, settings=settings, served_model=served, reason=reason, **ending)


def test_a_target_of_none_ends_with_the_packaged_model(launcher, packaged, tmp_path):
    launcher.store("package/served_model", packaged)
    ending = {"baseline": str(tmp_path / "baseline"), "run": "run-1"}
    _deploy_nowhere(launcher, ending, reason="KServe: not installed")
    assert "KServe: not installed" in launcher.outputs["deploy/summary"].path.read_text()
    assert outcome_of(tmp_path / "baseline", "run-1").endswith("and not deployed: KServe: not installed")
    _deploy_nowhere(launcher, ending)
    assert "`deploy_target` is `none`" in launcher.outputs["deploy/summary"].path.read_text()
    assert outcome_of(tmp_path / "baseline", "run-1").startswith("mobilenetv2 is packaged as school-classifier version")


@pytest.fixture
def installation(tmp_path, monkeypatch):
    """The environment of a task on a cluster, with the store of Kubeflow Pipelines and its bucket."""
    servers = Servers(tmp_path)
    with servers.running:
        address = servers.address("s3")
        urllib.request.urlopen(urllib.request.Request(f"{address}/mlpipeline", method="PUT"), timeout=30).close()
        monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
        keys = {"MINIO_ENDPOINT_URL": address, "MINIO_ACCESS_KEY": "minio", "MINIO_SECRET_KEY": "minio123"}
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        yield address


def test_without_a_baseline_notify_still_says_why_nothing_was_deployed(launcher, packaged, capsys, installation):
    launcher.store("package/served_model", packaged)
    _deploy_nowhere(launcher, {"baseline": "", "run": "run-1"}, reason="KServe: not installed")
    status = {"state": "COMPLETE", "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "r", "error": {}}
    launcher.run("notify", pipeline="p", baseline="", run="run-1", status=status)
    assert "and not deployed: KServe: not installed" in capsys.readouterr().out.splitlines()[-1]
    launcher.run("notify", pipeline="p", baseline="", run="run-2", status=status)
    assert capsys.readouterr().out.splitlines()[-1] == "notify    p: SUCCEEDED"


def test_a_component_runs_by_the_command_of_the_compiled_pipeline(launcher):
    status = {"state": "COMPLETE", "pipelineTaskName": "exit-handler-1", "pipelineJobResourceName": "r", "error": {}}
    assert launcher.run_as_process("notify", pipeline="p", baseline="", run="run-1", status=status) == {}
