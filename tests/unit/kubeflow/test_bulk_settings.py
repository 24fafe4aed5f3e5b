"""Settings of the bulk pipeline: shared ones of imagery reach all tasks; moved parameters are named."""

import itertools
import json
import subprocess
import sys

import pytest
import yaml
from pydantic import Field

from sat_xception.bulk.settings import BulkPlanConfig, BulkPredictConfig
from sat_xception.errors import ConfigError
from sat_xception.imagery.settings import ImagerySettings
from sat_xception.kubeflow.bulk_settings import BULK
from sat_xception.kubeflow.parameters import typed_parameters
from sat_xception.kubeflow.settings_reference import settings_yaml
from sat_xception.publish.settings import PublishConfig
from tests.setting_values import candidates, settings_of

GIVEN = {"imagery": "tiles", "area": "a.gpkg", "model_root": "gs://bucket/models", "scores": "gs://bucket/scores"}
# Settings that others need beside them.
CONTEXTS = (
    {},
    {"predict": {"runner": "FlinkRunner"}},
    {"predict": {"engine": "openvino", "calibrate": "examples"}},
    {"publish": {"areas": "a", "known": "k"}},
    {"publish": {"basemap": "http://host/{z}/{x}/{y}", "basemap_attribution": "them"}},
)
# Parameters of version 3, when every setting of the pipeline was one.
BEFORE = """
    area area_bbox area_buffer_m area_layer area_tiles area_zoom imagery imagery_attribution imagery_bands
    imagery_contact imagery_rate_per_s imagery_scale imagery_tile_size imagery_tms imagery_token_env imagery_workers
    model_name model_root publish_area_name publish_areas publish_areas_layer publish_known publish_known_distance_m
    publish_known_layer publish_most_reviewed publish_threshold publish_with_tiles scores scoring_batch_size
    scoring_endpoint scoring_engine scoring_in_flight scoring_parts scoring_shard_tiles
""".split()


def check(settings=None, **headlines):
    """Return the settings of every task, with `settings` as a mapping or a text."""
    text = settings if isinstance(settings, str) else yaml.safe_dump(settings) if settings else ""
    return {task: json.loads(found) for task, found in BULK.check({**GIVEN, **headlines, "settings": text}).items()}


def message(settings=None, **headlines):
    with pytest.raises(ConfigError) as refused:
        check(settings, **headlines)
    return str(refused.value)


def readers(section, name):
    """Return the tasks that a setting shall reach."""
    if section != "imagery":
        return [section]
    configs = {"plan": BulkPlanConfig, "predict": BulkPredictConfig, "publish": PublishConfig}
    return [task for task, config in configs.items() if name in config.model_fields]


@pytest.mark.parametrize(("section", "name"), settings_of(BULK))
def test_every_setting_of_every_section_reaches_its_tasks(section, name):
    field = BULK.sections[section][name].model_fields[name]
    sources = ({}, {"area": ""}, {"imagery": ""}, {"area": "", "imagery": ""})
    for value, context, headlines in itertools.product(candidates(field.annotation, field.default), CONTEXTS, sources):
        given = {**context, section: {**context.get(section, {}), name: value}}
        try:
            checked = check(given, **headlines)
        except ConfigError:
            continue
        if all(checked[task].get(name) == value for task in readers(section, name)):
            return
    pytest.fail(f"no value of {section}.{name} reaches {readers(section, name)}")


def test_the_sections_hold_each_setting_once():
    assert list(BULK.sections) == ["imagery", "plan", "predict", "publish"]
    assert list(BULK.sections["imagery"]) == list(ImagerySettings.model_fields)
    for section in ("plan", "predict", "publish"):
        assert not BULK.sections[section].keys() & ImagerySettings.model_fields.keys()


def test_a_setting_that_is_added_to_imagery_reaches_all_tasks_that_have_it(monkeypatch):
    class Extended(ImagerySettings):
        more: int = Field(7, description="One more.")

    from sat_xception.kubeflow import bulk_settings

    monkeypatch.setattr(bulk_settings, "ImagerySettings", Extended)

    class ExtendedPlan(BulkPlanConfig):
        more: int = Field(7, description="One more.")

    assert bulk_settings._of_imagery(ExtendedPlan)["more"] == "imagery.more"


def test_the_texts_hold_what_differs_from_the_defaults():
    shared = {"imagery": "tiles", "model": "gs://bucket/models"}
    assert check() == {
        "imagery": {"imagery": "tiles"},
        "plan": shared | {"area": "a.gpkg", "scored_under": "gs://bucket/scores"},
        "predict": shared | {"out": "gs://bucket/scores", "part": ""},
        "publish": {"imagery": "tiles"},
    }
    checked = check({"predict": {"engine": "tensorflow"}}, model_name="wells")
    assert checked["plan"]["engine"] == checked["predict"]["engine"] == "tensorflow"
    assert checked["plan"]["name"] == checked["predict"]["name"] == "wells"


def test_a_threshold_of_0_is_the_models_own():
    for given in ({"publish_threshold": 0.0}, {"settings": {"publish": {"threshold": 0}}}, {"publish_threshold": 0}):
        assert "threshold" not in check(**given)["publish"]
    assert check(publish_threshold=0.5)["publish"]["threshold"] == 0.5
    assert "publish_threshold: Input should be less than or equal to 1; got 1.5" in message(publish_threshold=1.5)


def test_every_mistake_of_every_task_is_reported_at_once_by_the_name_that_was_written():
    text = message(
        {
            "plan": {"workers": 3, "model": "m", "shard_tile": 3},
            "predict": {"part": "1/2", "in_flight": 0},
            "plann": {},
        },
        area_zoom=40,
        scoring_parts=0,
        area_bbox="1,2,3,4",
    )
    for part in (
        "plan.workers: this is set as imagery.workers",
        "plan.model: this is set as model_root",
        "unknown setting plan.shard_tile; did you mean plan.shard_tiles?",
        "predict.part: the pipeline sets this itself",
        "predict.in_flight: Input should be greater than 0; got 0",
        "unknown section 'plann'; did you mean 'plan'?",
        "area_zoom: Input should be less than or equal to 22; got 40",
        "scoring_parts: Input should be greater than 0; got 0",
    ):
        assert part in text
    assert "give one of area, area_bbox, area_tiles and plan.dataset" in message(area="")
    assert "the scoring_endpoint has its own" in message(
        {"predict": {"engine": "auto", "precision": "int8"}}, **{"scoring_endpoint": "grpc://host:1"}
    )


def test_a_required_parameter_that_is_missing_is_named_once():
    with pytest.raises(ConfigError) as refused:
        BULK.check({"imagery": "tiles", "area": "a"})
    assert str(refused.value).startswith("wrong settings: model_root: Field required; scores: Field required. No data")


@pytest.mark.parametrize("name", ["model_root", "scores"])
def test_in_a_pod_what_would_be_lost_with_it_is_refused(monkeypatch, volumes_here, name):
    assert check(**{name: "kept"})
    monkeypatch.setenv("KFP_POD_NAME", "run-abc-system-container-impl-123")
    for lost in ("kept", str(volumes_here)):
        assert f"{name}: {lost!r} is lost with its pod; give an address in a bucket" in message(**{name: lost})
    monkeypatch.setenv("RESULTS_VOLUME", "nas/sat")
    assert check(**{name: str(volumes_here / "results" / "new")})


def test_in_a_pod_models_may_be_in_the_volume_for_data_and_scores_may_not(monkeypatch, volumes_here):
    monkeypatch.setenv("KFP_POD_NAME", "run-abc-system-container-impl-123")
    monkeypatch.setenv("DATA_VOLUME", "tiles")
    given = str(volumes_here / "data" / "x")
    assert check(model_root=given)
    assert f"scores: {given!r} is in the volume for data, which no task writes to" in message(scores=given)


def test_a_model_root_on_a_claim_is_read_through_its_mount(monkeypatch):
    assert "pvc:// is how KServe's pods address a claim" in message(model_root="pvc://nas/models")
    monkeypatch.setenv("RESULTS_VOLUME", "nas")
    checked = check(model_root="pvc://nas/models")
    assert checked["plan"]["model"] == checked["predict"]["model"] == "/results/models"


def test_every_parameter_of_before_is_one_still_or_has_an_address_in_settings():
    parameters = [*BULK.headlines, *BULK.parameters.model_fields]
    moved = [name for name in BEFORE if name not in parameters]
    assert len(BEFORE) == 34 and len(moved) == 21
    definitions = {"imagery": {"parameterType": "STRING"}}
    for name in moved:
        section, _, setting = BULK.moved(name).partition(".")
        assert setting in BULK.sections[section], name
        with pytest.raises(
            ConfigError, match=f"{name}' in here is no parameter any more: it is now `{section}.{setting}`"
        ):
            typed_parameters(definitions, {name: 1}, "here", BULK.name)
    assert (BULK.moved("scoring_engine"), BULK.moved("imagery_tms")) == ("predict.engine", "imagery.imagery_tms")
    assert (BULK.moved("scoring_shard_tiles"), BULK.moved("imagery_workers")) == ("plan.shard_tiles", "imagery.workers")


def test_the_printed_tree_is_yaml_that_changes_nothing():
    text = settings_yaml(BULK)
    assert check(text) == check()
    for name in BULK.headlines:
        assert f"Parameter {name}." in text.replace("\n  # ", " ")
    command = [sys.executable, "-m", "sat_xception", "settings", "bulk"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == f"{text}\n"


def test_checking_settings_imports_no_tensorflow():
    code = "import sys; from sat_xception.kubeflow.bulk_settings import BULK; BULK.check(" + repr(GIVEN) + "); "
    code += "sys.exit(bool({'tensorflow', 'keras', 'kfp', 'openvino', 'apache_beam'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
