"""Tasks that read data from one mounted volume, and keep datasets and scores on another."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format

from pipelines.training import training
from sat_xception.kubeflow import claims, pod, volumes
from tests.components.launcher import Launcher


@pytest.fixture
def mounted(tmp_path, monkeypatch, class_folders):
    """The environment of a task on a cluster with both volumes; return the folder for results."""
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("KFP_POD_NAME", "run-1-system-container-impl-1")
    for name, folder, claim in (("DATA", class_folders, "tiles"), ("RESULTS", results, "nas/sat")):
        monkeypatch.setenv(f"{name}_VOLUME", claim)
        monkeypatch.setitem(volumes._FOLDERS, f"{name}_VOLUME", str(folder))
        monkeypatch.setattr(pod, f"{name}_FOLDER", str(folder))
    monkeypatch.setattr(claims, "RESULTS_FOLDER", str(results))
    monkeypatch.setenv("SAT_XCEPTION_TERMINATION_LOG", str(tmp_path / "reason.json"))
    return results


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    return Launcher(json_format.MessageToDict(training.pipeline_spec), tmp_path, monkeypatch)


def test_tiles_are_read_from_the_data_and_kept_among_the_results(
    launcher, pipeline_parameters, mounted, class_folders, caplog
):
    given = {"data": str(class_folders), "data_store": str(mounted / "datasets"), "deploy_target": "none"}
    checked = launcher.run("check", **{**pipeline_parameters, **given, "run": "run-1"})
    # Which isn't on a cluster, and so has nobody to ask.
    assert "couldn't ask how many nodes can mount claim nas" in caplog.text
    launcher.run("assemble", source=checked["source"])
    assert launcher.outputs["assemble/dataset"].metadata["ok"] == 80
    (stored,) = [path for path in (mounted / "datasets").iterdir() if path.is_dir()]
    assert str(stored) in checked["source"]
    assert (stored / "dataset.json").is_file()


def test_results_among_the_data_end_the_run_before_a_tile_is_read(
    launcher, pipeline_parameters, mounted, class_folders, tmp_path
):
    where = str(Path(class_folders) / "datasets")
    given = {"data": str(class_folders), "data_store": where, "deploy_target": "none"}
    with pytest.raises(SystemExit) as ended:
        launcher.run("check", **{**pipeline_parameters, **given, "run": "run-1"})
    assert ended.value.code == 2
    reason = json.loads((tmp_path / "reason.json").read_text())["error"]
    assert f"data_store: {where!r} is in the volume for data, which no task writes to" in reason
    assert not Path(where).exists()
