"""Alerts fire when they should and don't when they shouldn't: Prometheus' own promtool runs them on series of ours.

It comes with Debian's package `prometheus`; where it isn't, these tests are skipped.
"""

import re
import shutil
import subprocess

import pytest
import yaml

PROMTOOL = shutil.which("promtool")
pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="no promtool, which Debian's package prometheus has")

REQUESTS = ':tensorflow:serving:request_count{namespace="sat-xception", model_name="school-classifier", status="%s"}'
LATENCY = ':tensorflow:serving:request_latency_bucket{namespace="sat-xception", le="%s"}'
REPLICAS = (
    'kube_deployment_status_replicas_available{namespace="sat-xception", deployment="school-classifier-%s-predictor"}'
)
RESTARTS = 'kube_pod_container_status_restarts_total{namespace="sat-xception", pod="p", container="%s"}'
UP = 'up{job="%s", pod="p"}'
READY = {REPLICAS % "a": "1x60", REPLICAS % "b": "0x60"}


def run_promtool(*arguments):
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def rules(rendered):
    """The spec of the alerts, which is what Prometheus reads from a file."""
    return rendered("overlays/prod")["PrometheusRule", "school-classifier"]["spec"]


@pytest.fixture
def fired(rules, tmp_path):
    """Return a function that gives the alerts that fire at some minute of some series, one sample a minute."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))

    def run(minute, series):
        names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
        # promtool only says whether what is expected is so: expect silence of all of them.
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for name in names],
        }
        content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
        (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
        done = run_promtool("test", "rules", tmp_path / "test.yaml")
        found = set(re.findall(r"alertname: (\w+)", done.stdout + done.stderr))
        assert bool(found) is bool(done.returncode), done.stdout + done.stderr
        return found

    return run


def test_prometheus_takes_the_rules(rules, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    done = run_promtool("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stderr
    assert "5 rules found" in done.stdout


@pytest.mark.parametrize(
    ("minute", "series", "alerts"),
    [
        pytest.param(30, READY, set(), id="all is well"),
        pytest.param(30, {REPLICAS % "a": "0x60", REPLICAS % "b": "2x60"}, set(), id="the other half answers"),
        pytest.param(30, {REPLICAS % "v20260101": "1x60"}, set(), id="KServe splits traffic itself"),
        pytest.param(30, {REPLICAS % "a": "0x60"}, {"SchoolClassifierDoesNotAnswer"}, id="no half answers"),
        pytest.param(30, {}, {"SchoolClassifierDoesNotAnswer"}, id="nothing is known"),
        pytest.param(14, {REPLICAS % "a": "1x9 0x50"}, set(), id="gone for less than five minutes"),
        pytest.param(
            30,
            READY | {REQUESTS % "OK": "0+100x60", REQUESTS % "UNAVAILABLE": "0+3x60"},
            {"SchoolClassifierErrors"},
            id="3 % are refused",
        ),
        pytest.param(
            30, READY | {REQUESTS % "OK": "0+100x60", REQUESTS % "UNAVAILABLE": "0+1x60"}, set(), id="1 % are refused"
        ),
        pytest.param(
            30,
            READY | {REQUESTS % "OK": "0+100x60", REQUESTS % "INVALID_ARGUMENT": "0+50x60"},
            set(),
            id="a client sends what are no images",
        ),
        pytest.param(30, READY | {REQUESTS % "OK": "5x60", REQUESTS % "INTERNAL": "5x60"}, set(), id="nobody asks"),
        pytest.param(
            30,
            READY | {LATENCY % "1e+06": "0+90x60", LATENCY % "4e+06": "0+100x60", LATENCY % "+Inf": "0+100x60"},
            {"SchoolClassifierSlow"},
            id="one in ten takes more than a second",
        ),
        pytest.param(
            30,
            READY | {LATENCY % "1e+06": "0+100x60", LATENCY % "4e+06": "0+100x60", LATENCY % "+Inf": "0+100x60"},
            set(),
            id="all take less than a second",
        ),
        pytest.param(
            30, READY | {RESTARTS % "kserve-container": "0+1x60"}, {"SchoolClassifierRestarts"}, id="restarts"
        ),
        pytest.param(30, READY | {RESTARTS % "kserve-container": "0x20 1x40"}, set(), id="restarted once"),
        pytest.param(30, READY | {RESTARTS % "other": "0+1x60"}, set(), id="something else restarts"),
        pytest.param(
            30, READY | {UP % "sat-xception/school-classifier": "0x60"}, {"SchoolClassifierUnseen"}, id="no metrics"
        ),
        pytest.param(30, READY | {UP % "default/other": "0x60"}, set(), id="no metrics of something else"),
    ],
)
def test_an_alert_fires_when_it_should_and_no_other_does(minute, series, alerts, fired):
    assert fired(minute, series) == alerts


def test_keda_counts_requests_in_flight(rendered, tmp_path):
    predictor = rendered("overlays/gpu")["InferenceService", "school-classifier-template"]["spec"]["predictor"]
    (metric,) = predictor["autoScaling"]["metrics"]
    name = ':tensorflow:serving:request_latency_sum{namespace="%s", pod="%s"}'
    # Two pods, one with 6 requests at any time and one with 2: 6 and 2 seconds of requests a second, in microseconds.
    series = {name % ("sat-xception", "a"): "0+90000000x60", name % ("sat-xception", "b"): "0+30000000x60"}
    series[name % ("other", "c")] = "0+90000000x60"
    (tmp_path / "rules.yaml").write_text("groups: []\n")
    test = {
        "interval": "15s",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": metric["external"]["metric"]["query"],
                "eval_time": "10m",
                "exp_samples": [{"labels": "{}", "value": 8}],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
    done = run_promtool("test", "rules", tmp_path / "test.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
