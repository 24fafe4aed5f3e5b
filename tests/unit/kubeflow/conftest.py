"""What tests of the pipelines' settings share: the environment of a task on a cluster."""

import pytest

from sat_xception.kubeflow import claims, pod, volumes


@pytest.fixture(autouse=True)
def no_volumes(monkeypatch):
    """Leave the volumes of the developer's own environment out of it."""
    for name in ("DATA_VOLUME", "RESULTS_VOLUME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def volumes_here(tmp_path, monkeypatch):
    """Mount the volumes at folders of this machine, `data` and `results`; return the folder that both are in."""
    for name in ("data", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setitem(volumes._FOLDERS, f"{name.upper()}_VOLUME", str(tmp_path / name))
    for module in (claims, pod):
        monkeypatch.setattr(module, "RESULTS_FOLDER", str(tmp_path / "results"))
    monkeypatch.setattr(pod, "DATA_FOLDER", str(tmp_path / "data"))
    return tmp_path
