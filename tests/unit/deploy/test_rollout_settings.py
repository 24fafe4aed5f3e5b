"""Settings of rollouts: what doesn't fit is told by the flag as it is typed."""

from pathlib import Path

import pytest

from sat_xception.deploy.settings import DeployConfig, RollbackConfig
from sat_xception.errors import ConfigError
from sat_xception.settings.config import load_config

LOCAL = {"package": "package", "model_root": "models/serving"}
KSERVE = {
    "target": "kserve",
    "package": "package",
    "model_root": "gs://bucket/models",
    "endpoint": "https://tiles.example.org",
}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**LOCAL, "namespace": "other"}, "--namespace needs --target kserve"),
        ({**LOCAL, "traffic_steps": (100,)}, "--traffic-steps needs --target kserve"),
        ({**LOCAL, "dry_run": True}, "--dry-run needs --target kserve"),
        ({**LOCAL, "storage_uri": "pvc://models"}, "--storage-uri needs --target kserve"),
        ({**LOCAL, "reason": "none is wanted"}, "--reason goes with --target none"),
        ({**KSERVE, "endpoint": "grpc://host:1"}, "--endpoint must be the http:// or https:// address"),
        (
            {**KSERVE, "model_root": "models"},
            "give an address at gs:// or s3://, or the one that the cluster's pods use as --storage-uri",
        ),
        (
            {**KSERVE, "model_root": "az://bucket/models"},
            "az://bucket/models is in Azure; give an address at gs://",
        ),
        ({**KSERVE, "storage_uri": "az://bucket/models"}, "--storage-uri: expected what KServe reads"),
        ({**KSERVE, "model_root": "oci://bucket/m"}, "oci:// isn't known; expected a path on this machine, or an"),
        ({**KSERVE, "storage_uri": "/models"}, "--storage-uri: expected what KServe reads"),
        ({**KSERVE, "traffic_steps": (10, 50)}, "--traffic-steps: expected rising shares"),
        ({**KSERVE, "traffic_steps": (50, 10, 100)}, "--traffic-steps: expected rising shares"),
        ({**KSERVE, "traffic_steps": ()}, "--traffic-steps: expected rising shares"),
        ({**KSERVE, "predictor_url": "http://localhost:9000"}, "--predictor-url: expected http://"),
        ({**KSERVE, "predictor_url": "http://{service}.{zone}"}, "--predictor-url: expected http://"),
        ({**KSERVE, "namespace": "Not_A_Name"}, "--namespace: "),
        ({**KSERVE, "strategy": "magic"}, "--strategy: "),
    ],
)
def test_a_setting_that_doesnt_fit_is_named(settings, said):
    with pytest.raises(ConfigError) as caught:
        load_config(DeployConfig, None, settings)
    assert said in str(caught.value)


def test_settings_that_fit_are_taken():
    assert load_config(DeployConfig, None, LOCAL).target == "local"
    assert load_config(DeployConfig, None, {**KSERVE, "endpoint": "", "model_root": "minio://bucket/m"}).endpoint == ""
    assert str(load_config(DeployConfig, None, {**KSERVE, "model_root": "s3://bucket/m"}).model_root) == "s3://bucket/m"
    assert load_config(DeployConfig, None, {**KSERVE, "traffic_steps": [100]}).traffic_steps == (100,)
    on_a_volume = load_config(DeployConfig, None, {**KSERVE, "model_root": "/mnt/m", "storage_uri": "pvc://models/m/"})
    assert (on_a_volume.storage_uri, on_a_volume.model_root) == ("pvc://models/m", Path("/mnt/m"))


def test_a_rollback_goes_at_once_and_compares_nothing_unless_asked():
    config = load_config(RollbackConfig, None, {"endpoint": "http://10.0.0.1"})
    assert (config.traffic_steps, config.step_minutes, config.min_agreement, config.max_slowdown) == ((100,), 0, 0, 0)
    assert load_config(RollbackConfig, None, {}).endpoint == ""  # that of the gateway
    with pytest.raises(ConfigError, match="--endpoint must be"):
        load_config(RollbackConfig, None, {"endpoint": "grpc://10.0.0.1"})


@pytest.mark.parametrize("config", [DeployConfig, RollbackConfig])
def test_a_predictor_stays_until_the_latest_gateway_has_let_go_of_it_and_requests_have_ended(config):
    """Gateways took weights up to 15 s late; what they sent by then has as long again."""
    assert config.model_fields["drain_s"].default >= 2 * 15
