"""The walk says what is wrong with a checkout, and with a pipeline."""

import pytest

from tests.kfp_source import small_pipelines as small
from tests.kfp_source.kfp_walk import Run, build


def checkout(folder, version="2.17.0", argo="github.com/argoproj/argo-workflows/v4 v4.0.5"):
    (folder / "backend/src/v2/driver").mkdir(parents=True)
    (folder / "VERSION").write_text(version + "\n")
    (folder / "go.mod").write_text(f"module github.com/kubeflow/pipelines\n\nrequire {argo}\n")
    return folder


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no checkout of kubeflow/pipelines"):
        build(tmp_path, tmp_path)


def test_a_version_that_the_walk_does_not_know_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is KFP 2\.5\.0; check out 2\.17\.x"):
        build(checkout(tmp_path / "kfp", version="2.5.0"), tmp_path)


def test_a_checkout_without_argo_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"go\.mod names no Argo"):
        build(checkout(tmp_path / "kfp", argo="example.com/other v1"), tmp_path)


def test_without_go_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no `go` to build with"):
        build(checkout(tmp_path / "kfp"), tmp_path)


def test_tasks_are_found_by_the_end_of_their_path_and_groups_are_not_told():
    states = {"": "failed", "run": "failed", "run/loop": "group", "run/loop[0]": "group", "run/loop[0]/a": "ran"}
    run = Run("Failed", "", {path: {"state": state} for path, state in (states | {"run/b": "failed"}).items()})
    assert run.states() == {"a[0]": "ran", "b": "failed"}
    assert run["b"] is run.tasks["run/b"]
    with pytest.raises(KeyError, match="0 tasks are called 'c'; there are"):
        run["c"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_settings_for_kubernetes_that_kfp_would_leave_out_are_an_error(walk, tmp_path):
    """KFP itself says nothing: with one field that it doesn't know the pipeline runs without any of them."""
    path = small.compile_to(tmp_path, small.every_kind)
    platform = "platforms: {kubernetes: {pipelineConfig: {unheardOf: 1}}}"
    path.write_text(f"{path.read_text()}\n---\n{platform}\n")
    with pytest.raises(ValueError, match=r"leaves the settings for Kubernetes out: .*unknown field.*unheardOf"):
        walk(path, {})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_pipeline_that_kfp_refuses_is_an_error(walk, tmp_path):
    path = small.compile_to(tmp_path, small.every_kind)
    path.write_text(path.read_text().replace("parameterType:", "parameterSort:"))
    with pytest.raises(ValueError, match="pipeline spec is invalid"):
        walk(path, {})


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_output_that_a_component_does_not_have_breaks_the_walk_off(walk, tmp_path):
    path = small.compile_to(tmp_path, small.every_kind)
    with pytest.raises(RuntimeError, match=r"no output parameter .other."):
        walk(path, {"outputs": {"use": {"other": 1}}})
