"""Both pipelines through KFP's own parser, compiler and driver, without a cluster.

Local runners don't resolve GPUs, node selectors and artifacts as the driver does: whether every task's inputs can be
resolved is seen here, or on a cluster. Skipped without $KFP_SOURCE.
"""

from __future__ import annotations

import pytest

from tests.kfp_source.cases import BULK, BULK_PARAMETERS, TRAINING, Names, checked, planned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]  # the first build takes minutes

# What the JSON of a resolved parameter is in Python. A float that is whole comes as an int.
_KINDS = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
    "TASK_FINAL_STATUS": dict,
}


def training_cases():
    return pytest.mark.parametrize("name", TRAINING)


@pytest.fixture(scope="module")
def trainings(walk, compiled):
    """How each case of the training pipeline ends, each in a cluster of its own."""
    return {name: walk(compiled["training"], case[0])[0] for name, case in TRAINING.items()}


@pytest.fixture(scope="module")
def bulks(walk, compiled):
    """How each case of the bulk pipeline ends."""
    plans = {name: planned(parts) for name, (parts, _) in BULK.items()}
    runs = {name: {"parameters": BULK_PARAMETERS, "outputs": plan} for name, plan in plans.items()}
    return {name: walk(compiled["bulk-inference"], run)[0] for name, run in runs.items()}


@training_cases()
def test_the_driver_resolves_every_task_of_the_training(trainings, name):
    run = trainings[name]
    assert run.errors() == {}
    assert run.phase == "Succeeded"


@training_cases()
def test_each_task_of_the_training_runs_that_should(trainings, name):
    run = trainings[name]
    expected = dict.fromkeys(Names.BEFORE, "ran")
    if name == "no model passes":
        expected[Names.GROUP] = "skipped"
    else:
        expected |= dict.fromkeys(Names.AFTER, "ran")
    assert run.states() == expected


@training_cases()
def test_trainings_ask_for_the_gpus_and_nodes_of_the_parameters(trainings, name):
    _, gpus, selector, tolerations = TRAINING[name]
    for task in sorted(Names.TRAININGS):
        pod = trainings[name][task]["pod_spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        assert {key: value for key, value in limits.items() if key not in ("cpu", "memory")} == gpus
        assert (pod.get("nodeSelector"), pod.get("tolerations")) == (selector, tolerations)


@training_cases()
def test_nothing_else_asks_for_gpus_or_nodes(trainings, name):
    for path, task in trainings[name].tasks.items():
        if "pod_spec" in task and path.rpartition("/")[2] not in Names.TRAININGS:
            assert set(task["pod_spec"]["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}
            assert not {"nodeSelector", "tolerations"} & set(task["pod_spec"])


def wrong_inputs(run) -> list[str]:
    """Return each input of a component that the driver gives no value, or one of another kind.

    An optional artifact counts, too: kfp's executor can't make one of an input without a type.
    """
    wrong = []
    for path, task in run.tasks.items():
        wanted = task.get("component", {}).get("inputDefinitions", {})
        given = task.get("executor_input", {}).get("inputs", {})
        for name, parameter in wanted.get("parameters", {}).items():
            value = given.get("parameterValues", {}).get(name)
            kind = _KINDS[parameter["parameterType"]]
            if value is None and parameter.get("isOptional"):
                continue
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                wrong.append(f"{path}: {name} is {value!r}")
        for name in wanted.get("artifacts", {}):
            artifacts = given.get("artifacts", {}).get(name, {}).get("artifacts", [])
            if not artifacts or not all(artifact and artifact["uri"] for artifact in artifacts):
                wrong.append(f"{path}: artifact {name} is {artifacts}")
    return wrong


@training_cases()
def test_every_component_of_the_training_gets_each_input_and_of_its_kind(trainings, name):
    run = trainings[name]
    assert len([task for task in run.tasks.values() if "component" in task]) >= len(Names.BEFORE)
    assert wrong_inputs(run) == []
    assert run.phase == "Succeeded"


def test_every_pod_has_a_deadline_a_user_and_bounds_and_needs_no_secret(trainings, bulks):
    """What the driver writes into a pod of what the pipelines set on its task. A Secret may be missing."""
    runs = [*trainings.values(), *bulks.values()]
    pods = {path: task["pod_spec"] for run in runs for path, task in run.tasks.items() if "pod_spec" in task}
    assert len(pods) >= 10
    for pod in pods.values():
        (container,) = pod["containers"]
        assert pod["activeDeadlineSeconds"] > 0
        user = container["securityContext"]
        assert (user["runAsUser"], user["runAsNonRoot"]) == (65532, True)
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]) & set(container["resources"]["limits"])
        secrets = [volume["secret"] for volume in pod.get("volumes", [])]
        secrets += [variable["valueFrom"]["secretKeyRef"] for variable in container.get("env", [])]
        assert all(secret["optional"] is True for secret in secrets)


@pytest.mark.parametrize("name", BULK)
def test_the_driver_resolves_every_task_of_the_bulk_pipeline(bulks, name):
    run = bulks[name]
    assert run.errors() == {}
    assert run.phase == "Succeeded"
    assert run.states() == dict.fromkeys(BULK[name][1], "ran")
    assert wrong_inputs(run) == []


@pytest.mark.parametrize("name", BULK)
def test_each_part_of_the_bulk_pipeline_gets_its_own_and_the_close_gets_all(bulks, name):
    run, parts = bulks[name], BULK[name][0]
    for index, part in enumerate(parts):
        task = run[f"for-loop-2[{index}]/bulk-predict"]
        assert task["executor_input"]["inputs"]["parameterValues"]["part"] == part
    assert len(run["bulk-predict-2"]["executor_input"]["inputs"]["parameterValues"]["after"]) == len(parts)


@pytest.mark.parametrize("how", ["fail", "lost"])
def test_notify_runs_when_a_part_fails_and_the_run_fails(walk, compiled, how):
    outputs = planned(["1/2", "2/2"])
    given = {"parameters": BULK_PARAMETERS, "outputs": outputs, how: ["for-loop-2[1]/bulk-predict"]}
    (run,) = walk(compiled["bulk-inference"], given)
    assert run.phase == "Failed"
    assert run.states() == {
        "bulk-check": "ran",
        "bulk-plan": "ran",
        "bulk-predict[0]": "ran",
        "bulk-predict[1]": {"fail": "failed", "lost": "lost"}[how],
        "bulk-predict-2": "omitted",
        "bulk-publish": "omitted",
        "notify": "ran",
    }
    # Nobody tells ML Metadata of a pod that is lost: to notify the run still seems to be going on.
    status = run["notify"]["executor_input"]["inputs"]["parameterValues"]["status"]
    assert (status["state"], status["error"]) == ({"fail": "FAILED", "lost": "RUNNING"}[how], {})


@pytest.mark.parametrize("failing", sorted(Names.BEFORE - {"notify"}))
def test_notify_runs_whichever_step_of_the_training_fails(walk, compiled, failing):
    (run,) = walk(compiled["training"], {"outputs": TRAINING["defaults"][0]["outputs"], "fail": [failing]})
    assert run.errors() == {}
    assert (run.phase, run[failing]["state"], run["notify"]["state"]) == ("Failed", "failed", "ran")
    assert run["notify"]["times"] == 1


def test_what_the_data_decides_comes_from_the_cache_until_the_data_is_another(walk, compiled):
    """With other limits of the gate nothing is converted, trained or scored again; with one tile more, everything."""
    passed = TRAINING["defaults"][0]["outputs"]
    limits = {"gate_min_accuracy": 0.5, "gate_min_recall": 0.1}
    same, more = (passed | checked(address) for address in ("gs://a/data/1", "gs://a/data/2"))
    first, second, third = walk(
        compiled["training"],
        {"outputs": same},
        {"outputs": passed | checked("gs://a/data/1", **limits), "parameters": limits},
        {"outputs": more},
    )
    assert [run.phase for run in (first, second, third)] == ["Succeeded"] * 3
    assert [cached(run) for run in (first, second, third)] == [set(), Names.CACHED, set()]
    keys = [{name: run[name]["fingerprint"] for name in Names.CACHED} for run in (first, second, third)]
    assert keys[0] == keys[1]
    assert not set(keys[0].values()) & set(keys[2].values())


def cached(run) -> set[str]:
    return {name for name, state in run.states().items() if state == "cached"}


def test_the_api_server_refuses_a_parameter_of_another_kind(walk, compiled):
    (run,) = walk(compiled["training"], {"parameters": {"gpu_count": 2}})
    assert run.phase == ""
    assert "gpu_count requires type string" in run.problem
