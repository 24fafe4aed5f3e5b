"""A rollout that is killed at any point: users are answered all the while, and the next run ends it well."""

import os
import signal
import subprocess
import sys

import pytest

from sat_xception.serve.client import EndpointClient
from tests.deploy.packages import NAME
from tests.deploy.test_rollout import load, records
from tests.kserve_cluster import KSERVE, until

ROUTE = f"{NAME}-route"
# The command, with a lock that expires after a second and few requests at each step. The run after it has that from it:
# a lock lasts as long as its holder wrote.
PROGRAM = """
import sat_xception.deploy.lock, sat_xception.deploy.traffic_checks
sat_xception.deploy.lock.LEASE_S = 1
sat_xception.deploy.traffic_checks._MIN_ROUNDS = 12
sat_xception.deploy.traffic_checks._MIN_TILES = 5
from sat_xception.cli import main
main()
"""


@pytest.fixture
def start(settings):
    def start(version, **changes):
        flags = ["deploy"]
        for key, value in settings(version, **changes).items():
            for one in value if isinstance(value, tuple) else (value,):
                flags += [f"--{key.replace('_', '-')}", str(one)]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def at(cluster, stage):
    """Return whether the rollout of version 2 is at a stage."""
    newest = records(cluster)[0]
    return newest["version"] == 2 and (newest["stage"].startswith(stage) or newest["state"] == "serving")


def answering(cluster):
    with EndpointClient(cluster.endpoint, NAME) as client:
        return {status.version for status in client.status()}


# The stage, and what holds a rollout there long enough to be killed.
STAGES = {
    "making": {},
    "golden": {},
    "50 %": {"step_minutes": 1},
    "finished": {"traffic_steps": (100,), "drain_s": 60},
}


@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=[] if stage == "50 %" else pytest.mark.slow) for stage in STAGES]
)
def test_after_a_kill_users_are_answered_and_the_next_run_finishes(cluster, roll_out, start, stage):
    roll_out(1)
    if not STAGES[stage]:
        cluster.hold = stage
    process = start(2, **STAGES[stage])
    with load(cluster.endpoint) as answered:
        try:
            until(lambda: at(cluster, stage), 60)
        finally:
            process.kill()
            said = process.communicate()[0]
        cluster.hold = ""
        assert process.returncode == -signal.SIGKILL, said
        assert answering(cluster) <= {1, 2}
        roll_out(2)
    assert set(answered) == {200}
    assert answering(cluster) == {2}
    assert len(cluster.weights[ROUTE]) == 1
    assert len(cluster.api.names("inferenceservices", KSERVE)) == 2
    states = [one["state"] for one in records(cluster)]
    assert states == (["serving", "replaced"] if stage == "finished" else ["serving", "interrupted", "replaced"])


def test_sigterm_gives_the_traffic_back_before_the_process_ends(cluster, roll_out, start):
    roll_out(1)
    process = start(2, step_minutes=1)
    with load(cluster.endpoint) as answered:
        until(lambda: at(cluster, "50 %"), 60)
        os.kill(process.pid, signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 75, output
    assert "rolled back, version 1 has all the traffic again: stopped by SIGTERM" in output
    assert set(answered) == {200} and answering(cluster) == {1}
    assert records(cluster)[0]["state"] == "rolled back"
