"""The same rollouts where the API server, its definitions and the rights of the rollout's account are real.

KServe, the kubelet and the gateway are still those of the tests. Needs `$KUBEBUILDER_ASSETS`; see `api_servers.py`.
"""
# ruff: noqa: F401, F811 - what is imported are tests and fixtures

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploy.api_servers import ADMINISTRATOR, DEPLOYER, certificate, real_api_server, write_kubeconfig
from tests.deploy.conftest import run_cluster
from tests.deploy.test_killed_rollout import (
    STAGES,
    start,
    test_sigterm_gives_the_traffic_back_before_the_process_ends,
)
from tests.deploy.test_killed_rollout import (
    test_after_a_kill_users_are_answered_and_the_next_run_finishes as after_a_kill,
)
from tests.deploy.test_lock import (
    api,
    test_a_lock_is_renewed_while_it_is_held,
    test_a_lock_that_somebody_took_over_ends_the_work_at_the_next_look,
    test_a_renewal_that_meets_a_conflict_goes_on_with_the_newer_lease,
    test_the_lock_of_somebody_who_is_gone_is_taken_over,
    test_two_that_begin_at_once_dont_both_get_it,
)
from tests.deploy.test_native_canary import (
    NATIVE,
)
from tests.deploy.test_native_canary import (
    test_a_canary_that_answers_wrongly_is_taken_out as a_wrong_canary,
)
from tests.deploy.test_native_canary import (
    test_a_canary_whose_pods_end_is_taken_out_with_their_reason as a_crashing_canary,
)
from tests.deploy.test_native_canary import (
    test_the_canary_gets_its_shares_and_becomes_the_stable_predictor as a_good_canary,
)
from tests.deploy.test_on_our_manifests import (
    test_a_version_is_rolled_out_in_the_shape_of_the_template,
    test_the_checks_of_the_cluster_find_nothing_wrong,
)
from tests.deploy.test_rollback import (
    go_back,
    listed,
    test_a_release_whose_files_were_changed_is_no_target,
    test_a_version_that_never_proved_itself_is_no_target,
    test_an_endpoint_without_history_says_so,
    test_rollback_goes_to_the_version_before_and_twice_to_where_it_was,
    test_rollback_to_a_version_skips_those_between,
)
from tests.deploy.test_rollout import (
    test_a_changed_template_is_rolled_out_with_the_same_version,
    test_a_copy_of_the_template_carries_nothing_that_is_the_templates_own,
    test_a_first_version_gets_all_the_traffic,
    test_a_model_that_answers_golden_tiles_wrongly_is_rolled_back_by_itself,
    test_a_route_that_the_gateway_refuses_is_told_in_its_words,
    test_a_version_that_fails_only_under_traffic_is_rolled_back,
    test_an_older_version_is_refused_with_the_way_to_go_back,
    test_deploying_the_same_version_again_proves_it_and_changes_nothing,
    test_the_next_version_takes_over_in_steps_and_no_request_of_a_user_fails,
    test_the_oldest_records_fall_out_but_never_the_one_that_serves,
)
from tests.manifests import check
from tests.real_kubernetes_api import RealKubernetesApi

if not os.environ.get("KUBEBUILDER_ASSETS"):
    pytest.skip("no $KUBEBUILDER_ASSETS: no real API server to test on", allow_module_level=True)

# Definitions of these groups are not among those that are there: KEDA and Prometheus' operator.
ABSENT = ("keda.sh", "monitoring.coreos.com")
RIGHTS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Return the folder of kubeconfigs and the address of a server on which our account has its rights, and no more."""
    folder = tmp_path_factory.mktemp("api")
    with real_api_server(folder) as url:
        apply(folder, url, [item for item in check.render(check.ROOT / "base") if item["kind"] in RIGHTS])
        yield folder, url


def apply(folder, url, objects, *flags):
    kubectl = Path(sys.executable).with_name("kubectl")
    command = [
        kubectl,
        "--kubeconfig",
        write_kubeconfig(folder, url, ADMINISTRATOR),
        "apply",
        "--server-side",
        *flags,
        "-f",
        "-",
    ]
    text = yaml.safe_dump_all(objects)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cluster(server, packages, tmp_path, request):
    folder, url = server
    context = ssl.create_default_context(cafile=certificate(folder))
    api = RealKubernetesApi(url, context, ADMINISTRATOR, write_kubeconfig(folder, url, DEPLOYER))
    yield from run_cluster(api, packages, tmp_path, **getattr(request, "param", {}))


@pytest.mark.parametrize("folder", sorted(check.ROOT.glob("overlays/*")), ids=lambda folder: folder.name)
def test_the_server_takes_our_manifests(server, folder):
    objects = [item for item in check.render(folder) if item["apiVersion"].split("/")[0] not in ABSENT]
    names = {item["metadata"].get("namespace") for item in objects} - {None, "sat-xception"}
    assert not names
    taken = apply(*server, objects, "--dry-run=server").splitlines()
    assert len(taken) == len(objects) > 10


# Not while an object is made: a real server isn't kept from it.
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "making"])
def test_after_a_kill(cluster, roll_out, start, stage):
    after_a_kill(cluster, roll_out, start, stage)


# These definitions have `spec.canary`, of a KServe that doesn't split by it: it has to be asked for.
@NATIVE
@pytest.mark.parametrize("happens", [a_good_canary, a_wrong_canary, a_crashing_canary])
def test_a_canary(cluster, roll_out, happens):
    happens(cluster, lambda version, **changes: roll_out(version, strategy="canary", **changes))
