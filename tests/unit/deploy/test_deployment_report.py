"""What people read of a deployment."""

import pytest

from sat_xception.deploy.report import deployment_markdown


@pytest.fixture
def record():
    def make(**changes):
        return {
            "name": "school-classifier",
            "version": 20261124104844,
            "version_before": None,
            "backbone": "xception",
            "model": "d" * 64,
            "model_root": "models/serving",
            "endpoint": "",
            "golden_tiles": 8,
            "golden_difference": 1.2e-07,
            "serve_command": "sat_xception serve --model-root models/serving --name school-classifier",
            "deployed_at": "2026-11-24T10:48:44Z",
            **changes,
        }

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
