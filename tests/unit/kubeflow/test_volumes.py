"""Volumes of the pipelines: how they are named, what is in them, and what a task finds wrong with them."""

import os
from functools import partial
from pathlib import Path

import pytest

from sat_xception.errors import ConfigError
from sat_xception.kubeflow import claims, pod
from sat_xception.kubeflow.claims import find_volume_problems, warn_of_claims
from sat_xception.kubeflow.pod import find_lost, is_lost
from sat_xception.kubeflow.volumes import claim_address, find_volumes, mounted_path, using_volumes
from tests.kubernetes_api import KubernetesApi

NAMES = ("DATA_VOLUME", "RESULTS_VOLUME")


def test_there_are_none_by_default():
    assert find_volumes() == ()
    assert mounted_path("pvc://nas/models") == claim_address("/results/models") == ""


@pytest.mark.parametrize(("given", "shown"), [("nas", "nas"), ("nas/", "nas"), ("nas/a b/ñ/", "nas/a b/ñ")])
def test_a_claim_is_given_with_a_folder_or_without(given, shown, monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", given)
    (volume,) = find_volumes()
    assert str(volume) == shown and volume.address == f"pvc://{shown}"
    assert (volume.folder, volume.claim) == ("/results", "nas")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("Nas", "'Nas' can't be mounted; expected the name of a PersistentVolumeClaim"),
        ("nas.tiles", "'nas.tiles' can't be mounted"),
        ("-nas", "'-nas' can't be mounted"),
        ("n" * 64, "can't be mounted"),
        ("pvc://nas/tiles", "'pvc:' can't be mounted"),
        ("/tiles", "'' can't be mounted"),
        ("sat-xception-storage/x", "the tasks have another volume of the name 'sat-xception-storage'"),
        ("kfp-launcher", "the tasks have another volume of the name 'kfp-launcher'"),
        ("nas/..", "'..' is no folder of a claim"),
        ("nas/a/../b", "'a/../b' is no folder of a claim"),
        ("nas//a", "'/a' is no folder of a claim"),
        ("nas/./a", "'./a' is no folder of a claim"),
        ("nas/{{x}}", "is no folder of a claim"),
        ("nas/a:b", "is no folder of a claim"),
        ("nas/a\\b", "is no folder of a claim"),
    ],
)
def test_what_cant_be_mounted_is_refused_with_the_value(name, given, why, monkeypatch):
    monkeypatch.setenv(name, given)
    with pytest.raises(ConfigError) as refused:
        find_volumes()
    assert str(refused.value).startswith(f"{name}={given}: ") and why in str(refused.value)


def test_one_claim_for_both_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setenv("DATA_VOLUME", "nas/tiles")
    monkeypatch.setenv("RESULTS_VOLUME", "nas/results")
    with pytest.raises(ConfigError, match="Give RESULTS_VOLUME=nas alone, and data as a path below /results"):
        find_volumes()


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("pvc://nas/sat", "/results"),
        ("pvc://nas/sat/models/a", "/results/models/a"),
        ("pvc://tiles/x", "/data/x"),
        ("pvc://nas/other", ""),
        ("pvc://nas", ""),
        ("pvc://nas/sat-more/x", ""),
        ("pvc://nas/sat/../other", ""),
        ("/results/models", ""),
    ],
)
def test_an_address_of_a_claim_is_a_path_in_the_task(address, path, monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    assert mounted_path(address) == path
    if path:
        assert claim_address(path) == address


@pytest.mark.parametrize("path", ["/resultsmore/x", "/results/../etc", "results/x", "s3://b/results"])
def test_what_is_in_no_volume_has_no_address(path, monkeypatch):
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    assert claim_address(path) == ""


def test_volumes_hold_for_a_block_and_not_after_it(monkeypatch):
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    with using_volumes("", "nas"):
        assert [str(volume) for volume in find_volumes()] == ["tiles", "nas"]
    assert [str(volume) for volume in find_volumes()] == ["tiles"]
    with pytest.raises(RuntimeError), using_volumes("other", "nas"):
        assert os.environ["DATA_VOLUME"] == "other"
        raise RuntimeError
    assert os.environ["DATA_VOLUME"] == "tiles" and "RESULTS_VOLUME" not in os.environ


def test_a_path_that_isnt_there_yet_is_kept_below_a_mount_and_lost_elsewhere(monkeypatch):
    assert is_lost("/results/new") and is_lost("/tmp-of-the-pod/x") and is_lost("results/new")
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    assert not is_lost("/results/new/er") and not is_lost("s3://b/x")
    assert is_lost("/results/../new") and is_lost("results/new")


def test_a_folder_on_another_disk_than_the_pods_own_is_kept(monkeypatch, tmp_path):
    real = Path.stat

    class Other:
        st_dev = -1

    monkeypatch.setattr(Path, "stat", lambda self, **more: Other if self == tmp_path else real(self, **more))
    assert not is_lost(str(tmp_path / "new" / "er"))


def test_a_lost_path_is_answered_with_what_is_mounted_or_how_to_mount_it(monkeypatch):
    (lost,) = find_lost({"scores": "kept"})
    assert "give an address in a bucket, or mount a volume for a path below /results: compile" in lost
    assert "`sat_xception submit --results-volume CLAIM`" in lost
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    assert find_lost({"scores": "kept"}) == [
        "scores: 'kept' is lost with its pod; give an address in a bucket, or a path below /results, where the volume "
        "for results is mounted"
    ]


def test_data_is_read_and_not_written_to(monkeypatch):
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    (problem,) = find_lost({"scores": "/data/scores"}, read={"model_root": "/data/models"})
    assert problem.startswith("scores: '/data/scores' is in the volume for data, which no task writes to")


# In the first task


@pytest.fixture
def in_a_task(tmp_path, monkeypatch, volumes_here):
    """Yield the API server that a task asks; its volumes are folders here, and their claims aren't there yet."""
    (tmp_path / "namespace").write_text("kubeflow\n")
    monkeypatch.setattr(pod, "_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr("sat_xception.deploy.k8s_client._RETRY_DELAYS_S", ())
    with KubernetesApi() as api:
        kubeconfig = api.write_kubeconfig(tmp_path / "kubeconfig")
        monkeypatch.setattr(claims, "_OwnCluster", partial(claims._OwnCluster, kubeconfig=kubeconfig))
        yield api


def put_claim(api, name, *modes, bound=True):
    claim = {"metadata": {"name": name}, "spec": {"accessModes": list(modes)}}
    claim |= {"status": {"accessModes": list(modes)} if bound else {}}
    api.put("persistentvolumeclaims", claim, namespace="kubeflow")


@pytest.mark.parametrize(
    ("name", "modes", "told"),
    [
        ("RESULTS_VOLUME", ["ReadWriteMany"], ""),
        ("RESULTS_VOLUME", ["ReadWriteOnce", "ReadWriteMany"], ""),
        ("RESULTS_VOLUME", ["ReadWriteOnce", "ReadOnlyMany"], "is ReadOnlyMany, ReadWriteOnce: one node at a time"),
        ("RESULTS_VOLUME", ["ReadWriteOnce"], "is ReadWriteOnce: one node at a time mounts it"),
        ("RESULTS_VOLUME", ["ReadWriteOncePod"], "is ReadWriteOncePod: one pod at a time mounts it"),
        ("DATA_VOLUME", ["ReadOnlyMany"], ""),
        ("DATA_VOLUME", ["ReadWriteOnce"], "is ReadWriteOnce: one node at a time mounts it"),
    ],
)
@pytest.mark.parametrize("bound", [True, False])
def test_a_claim_that_not_every_node_can_mount_is_told_of(name, modes, told, bound, in_a_task, monkeypatch, caplog):
    monkeypatch.setenv(name, "nas/sat")
    put_claim(in_a_task, "nas", *modes, bound=bound)
    warn_of_claims()
    if not told:
        assert not caplog.text
        return
    assert f"claim nas ({name}) {told}" in caplog.text
    assert "the trainings, wait for each other" in caplog.text
    assert ("unless they are on one node" in caplog.text) is ("node" in told)
    assert ("Use a claim with ReadWriteMany" in caplog.text) is (name == "RESULTS_VOLUME")


def test_where_the_claim_cant_be_read_this_is_told_and_nothing_fails(in_a_task, monkeypatch, caplog):
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    in_a_task.allowed = {}
    warn_of_claims()
    assert "couldn't ask how many nodes can mount claim nas" in caplog.text and "forbidden" in caplog.text
    caplog.clear()
    in_a_task.allowed = None
    warn_of_claims()
    assert "(there is no PersistentVolumeClaim nas in namespace kubeflow)" in caplog.text


def test_outside_of_a_cluster_this_is_told_too(in_a_task, monkeypatch, caplog):
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    monkeypatch.setattr(pod, "_NAMESPACE", Path("/nowhere/namespace"))
    warn_of_claims()
    assert "couldn't ask how many nodes can mount claim nas" in caplog.text


def test_results_that_cant_be_written_are_found_before_the_work(in_a_task, monkeypatch, tmp_path):
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    put_claim(in_a_task, "nas", "ReadWriteMany")

    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(claims.tempfile, "TemporaryFile", refuse)
    (problem,) = find_volume_problems()
    assert "RESULTS_VOLUME: the tasks, user and group 65532, can't write to nas/sat: Permission denied" in problem
    monkeypatch.undo()


def test_the_check_leaves_nothing_behind_and_data_neednt_be_written(in_a_task, monkeypatch, tmp_path):
    for name, claim in zip(NAMES, ("tiles", "nas"), strict=True):
        monkeypatch.setenv(name, claim)
        put_claim(in_a_task, claim, "ReadWriteMany")
    (tmp_path / "data").chmod(0o555)
    assert find_volume_problems() == []
    assert list((tmp_path / "results").iterdir()) == []


def test_a_volume_that_isnt_mounted_is_found(in_a_task, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    put_claim(in_a_task, "tiles", "ReadOnlyMany")
    (tmp_path / "data").rmdir()
    (problem,) = find_volume_problems()
    assert problem.startswith(f"DATA_VOLUME: tiles isn't mounted at {tmp_path / 'data'}")
