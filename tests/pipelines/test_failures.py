"""What `sat_xception submit` tells of a run that failed, out of what Kubeflow Pipelines 2.16 and 2.17 keep of it.

Facts, with the files of kubeflow/pipelines 2.17.0 that they are from (2.16 is the same but where it is said):

- `task_details` has an entry for each node of the Argo workflow: the workflow itself, DAGs, drivers, executors, retries
  and their attempts, hooks. An entry has a name, a state, times and the ids of its children. It never has `error`,
  `pod_name` or its node's own id (apiserver/server/api_converter.go, toApiPipelineTaskDetail; the node's message is
  dropped in common/util/workflow.go, NodeStatuses). `state_history` repeats the states, without reasons.
- A node that Argo omits, since what it depends on failed, has no `state`: the phase Omitted is none of the API's
  (apiserver/model/run.go, ToV2), and the API's JSON leaves out RUNTIME_STATE_UNSPECIFIED.
- The node's message, template and id are in the workflow, which the API server stores and hands out in v1beta1's
  GET /runs/{id}, as `pipeline_runtime.workflow_manifest`, for v2 runs too (server/run_server.go, GetRunV1).
- A task is a DAG (template system-container-executor) with one node, `executor` (system-container-impl); beside it is
  the pod of its driver (system-container-driver). With retries, `executor` is a Retry node and its attempts are
  `executor(0)` and so on (v2/compiler/argocompiler/container.go). An importer is one pod, named as the task
  (argocompiler/importer.go). What runs at the end is a hook: `exit-handler-1.onExit` (argocompiler/dag.go).
- A hook's end doesn't count for the run's: Argo looks at the tasks of a DAG alone (argo-workflows 4.0.5,
  workflow/controller/dag.go, assessDAGPhase).
"""

import json
import re

import pytest
from kfp import compiler, dsl

from sat_xception.kubeflow import kfp_api as cluster_module
from sat_xception.kubeflow.answers import ArgoWorkflow, Node, Run
from sat_xception.kubeflow.failed_tasks import Workflow, failed_by_details
from sat_xception.kubeflow.failure import RunFailedError, describe_failures
from sat_xception.kubeflow.kfp_api import KfpClient
from sat_xception.kubeflow.settings import KfpConfig, SubmitConfig
from sat_xception.kubeflow.spec import read_pipeline
from sat_xception.kubeflow.submit import submit
from sat_xception.kubeflow.task_logs import last_lines
from tests.kfp_workflow import Look, workflow, workflow_nodes

LAUNCHER = """\
I0101 00:00:00.000000      18 main.go:67] Setting log level to: '1'
reading 12 tiles
Traceback (most recent call last):
  File "/usr/lib/step.py", line 3, in <module>
ValueError: no tiles
I0101 00:00:01.000000      18 launcher_v2.go:206] publish success.
F0101 00:00:01.000000      18 main.go:59] failed to execute component: exit status 1
time=2026-01-01T00:00:01.100Z level=INFO msg="sub-process exited" argo=true error=<nil>
Error: exit status 1
"""
DRIVER = """\
I0101 00:00:00.000000      20 main.go:119] Setting log level to: '1'
I0101 00:00:00.000000      20 main.go:333] input ComponentSpec:{
  "executorLabel": "exec-step-2"
}

F0101 00:00:01.000000      20 main.go:127] KFP driver: driver.Container(task="step-2") failed: failed to resolve \
inputs: parent DAG does not have input parameter pipelinechannel--gpu_count
time=2026-01-01T00:00:01.100Z level=INFO msg="sub-process exited" argo=true error=<nil>
Error: exit status 1
"""
COMPONENT_FAILED = Look(
    "FAILED", {"step": "SUCCEEDED", "step-2": "FAILED: main: Error (exit code 1)", "notify": "SUCCEEDED"}
)
DRIVER_FAILED = Look(
    "FAILED", {"step": "SUCCEEDED", "step-2-driver": "FAILED: main: Error (exit code 1)", "notify": "SUCCEEDED"}
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSES_S", (0.01, 0.01, 0.01))
    for name in ("KFP_ENDPOINT", "KFP_NAMESPACE", "KFP_EXISTING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def told(server, small_yaml):
    """Return a function that lets a run end as told and returns the message of the command."""

    def run(*looks):
        server.timeline = looks
        with pytest.raises(RunFailedError) as caught:
            submit(SubmitConfig(endpoint=server.url, file=small_yaml, poll_s=0.01))
        assert caught.value.exit_code == 4
        message = str(caught.value)
        own = [
            line for line in message.split("\n") if not line.strip().startswith(("|", "more:", "or,", "the workflow"))
        ]
        assert not re.search(r"no reason|executor\b|root\b|onExit|\bDAG\b", "\n".join(own))
        return message

    return run


@pytest.fixture(params=["through the UI", "at the API server"])
def either_way(request, server):
    server.through_ui = request.param == "through the UI"
    return server


# A component that fails


def test_a_component_that_failed_is_told_with_its_last_words_and_the_command_for_more(either_way, told):
    either_way.logs["step-2.executor"] = LAUNCHER
    message = told(COMPONENT_FAILED)
    lines = message.split("\n")
    assert lines[0] == "the run ended FAILED: 1 task failed"
    assert lines[1].strip() == "Train it (step-2): main: Error (exit code 1)"
    shown = [line.strip().removeprefix("| ") for line in lines if line.strip().startswith("|")]
    assert [line.strip() for line in shown] == [
        "reading 12 tiles",
        "Traceback (most recent call last):",
        'File "/usr/lib/step.py", line 3, in <module>',
        "ValueError: no tiles",
    ]
    assert re.search(r"more: kubectl logs -n kubeflow small-\w+-system-container-impl-\d+ -c main\n", message)
    assert re.search(rf"when the pod is gone: curl '{either_way.url}/\S+'\n", message)
    assert "look at http" in lines[-1]


def test_where_a_token_is_needed_the_command_names_it_and_does_not_show_it(server, told, monkeypatch):
    server.token = "s3cret"
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "s3cret")
    message = told(COMPONENT_FAILED)
    assert 'curl -H "Authorization: Bearer $KFP_EXISTING_TOKEN" \'http://' in message and "s3cret" not in message


def test_a_log_comes_from_the_archive_when_the_pod_is_gone(either_way, told):
    either_way.logs["step-2.executor"] = LAUNCHER
    either_way.pods_there = False
    assert "| ValueError: no tiles" in told(COMPONENT_FAILED)


def test_a_log_that_is_gone_is_one_line_with_the_reason(either_way, told):
    """The API server answers 200 and an error in JSON (run_log_server.go), the UI 500 (handlers/pod-logs.ts)."""
    either_way.pods_there = either_way.archived = False
    message = told(COMPONENT_FAILED)
    (line,) = [line.strip() for line in message.split("\n") if "can't be shown" in line]
    assert re.match(r"its log can't be shown: .*key does not exist", line)
    assert "kubectl logs -n kubeflow small-" in message and "curl" not in message and "|" not in message


def test_an_error_after_the_beginning_of_a_log_is_no_log(server, told):
    server.through_ui = False
    server.logs["step-2.executor"] = 'reading\n{"error_message":"stream reset","error_details":"a: b"}'
    assert "its log can't be shown: stream reset" in told(COMPONENT_FAILED)


def test_an_empty_log_is_called_so(server, told):
    server.logs["step-2.executor"] = "\n\n"
    assert "its log can't be shown: it is empty" in told(COMPONENT_FAILED)


def test_without_the_workflow_the_task_is_named_all_the_same(server, told):
    """As from a server that has no v1beta1 any more."""
    server.hands_out_workflows = False
    message = told(COMPONENT_FAILED)
    assert "Train it (step-2): failed" in message and "1 task failed" in message
    (line,) = [line for line in message.split("\n") if "can't be shown" in line]
    assert "its pod isn't known (" in line and "HTTP 404" in line
    assert re.search(r"kubectl logs -n kubeflow -l pipeline/runid=\S+ -c main --prefix", message)


@pytest.mark.parametrize(
    "manifest",
    ["", "null", "[]", "{}", '{"metadata": {"name": "a", "namespace": "b"}, "status": {"nodes": [1]}}', "[" * 99999],
)
def test_a_workflow_that_is_none_is_done_without(server, told, manifest):
    body = json.dumps({"pipeline_runtime": {"workflow_manifest": manifest}})
    beside = server._beside
    server._beside = lambda http: type(beside(http))(text=body) if "/v1beta1/" in http.path else beside(http)
    assert "Train it (step-2): failed" in told(COMPONENT_FAILED)


def test_several_failures_are_told_in_the_order_in_which_they_happened(server, told):
    failed = {"step": "FAILED: main: OOMKilled (exit code 137)", "step-2": "FAILED: main: Error (exit code 3)"}
    message = told(Look("FAILED", {**failed, "notify": "FAILED: main: Error (exit code 4)"}))
    found = re.findall(r"^ {10}(\S.*): main: ", message, re.MULTILINE)
    assert found == ["step", "Train it (step-2)", "notify"]
    assert "3 tasks failed" in message


# A driver that fails


def test_a_driver_that_failed_is_its_tasks_failure_with_the_drivers_last_words(either_way, told):
    """The task's node is omitted, with no state; `task_details` shows step-2-driver FAILED, and nothing of step-2."""
    either_way.logs["step-2-driver"] = DRIVER
    message = told(DRIVER_FAILED)
    assert "Train it (step-2): it never started: its driver failed (main: Error (exit code 1))" in message
    shown = [line.strip() for line in message.split("\n") if line.strip().startswith("|")]
    assert len(shown) == 1 and shown[0].endswith("parent DAG does not have input parameter pipelinechannel--gpu_count")
    assert re.search(r"kubectl logs -n kubeflow small-\w+-system-container-driver-\d+ -c main\n", message)


def test_a_driver_whose_log_is_gone_still_names_its_task(server, told):
    server.pods_there = server.archived = False
    message = told(DRIVER_FAILED)
    assert "Train it (step-2): it never started" in message and "the driver's log can't be shown: " in message
    server.hands_out_workflows = False
    assert "Train it (step-2): it never started: its driver failed" in told(DRIVER_FAILED)


def test_the_driver_of_a_group_is_told_by_the_group(server, told):
    message = told(
        Look(
            "FAILED",
            {"step": "SUCCEEDED", "step-2": "SUCCEEDED", "condition-2-driver": "FAILED: main: Error (exit code 1)"},
        )
    )
    assert "it-passed (condition-2): its tasks never started: its driver failed" in message


def test_the_driver_of_the_whole_run_is_told_by_the_pipeline(server, told):
    server.logs["root-driver"] = DRIVER
    message = told(Look("FAILED", {"root-driver": "FAILED: main: Error (exit code 1)"}))
    assert "the pipeline: its tasks never started: its driver failed" in message and "| F0101" in message


# Retries


def test_of_a_chain_of_retries_the_last_attempt_is_told(server, told):
    attempts = [("Failed", "main: Error (exit code 75)"), ("Failed", "main: Error (exit code 3)")]
    server.logs = {"step-2.executor(0)": "the first\n", "step-2.executor(1)": "the second\n"}
    look = Look("FAILED", {"step": "SUCCEEDED", "step-2": "FAILED"}, retried={"step-2": attempts})
    message = told(look)
    assert "Train it (step-2): main: Error (exit code 3)" in message and "1 task failed" in message
    assert "| the second" in message and "the first" not in message
    assert re.search(r"kubectl logs -n kubeflow small-\w+-retry-system-container-impl-\d+", message)


def test_an_attempt_of_a_task_that_succeeded_in_the_end_is_no_failure(server, told):
    attempts = [("Failed", "main: Error (exit code 75)"), ("Succeeded", "")]
    look = Look(
        "FAILED", {"step": "SUCCEEDED", "step-2": "FAILED: main: Error (exit code 3)"}, retried={"step": attempts}
    )
    message = told(look)
    assert "1 task failed" in message and "exit code 75" not in message


# What runs at the end, and runs without a task that failed


def test_a_failed_exit_leaves_a_run_that_succeeded_and_is_warned_of(server, small_yaml, caplog):
    server.timeline = (
        Look("SUCCEEDED", {"step": "SUCCEEDED", "step-2": "SUCCEEDED", "notify": "FAILED: main: Error (exit code 4)"}),
    )
    server.logs["notify.executor"] = "error     the webhook answered 500\n"
    shown = submit(SubmitConfig(endpoint=server.url, file=small_yaml, poll_s=0.01)).summary()
    assert "tasks     2 succeeded, 1 failed" in shown
    assert "the run succeeded, but 1 of its tasks failed" in caplog.text
    assert "notify: main: Error (exit code 4)" in caplog.text and "| error     the webhook answered 500" in caplog.text


def test_where_no_task_failed_the_workflows_own_message_is_told(server, told):
    message = told(Look("FAILED", message="invalid spec: templates.root.tasks.step failed to resolve"))
    assert "no task failed" in message and "the workflow says: invalid spec: templates.root" in message
    assert re.search("more: kubectl get workflows -n kubeflow -l pipeline/runid=", message)


def test_a_run_that_was_cancelled_is_not_told_as_failures(server, told):
    """Terminated, a workflow ends as failed; the run was CANCELING meanwhile (ReportWorkflowResource)."""
    look = Look(
        "FAILED", {"step": "FAILED: workflow shutdown with strategy:  Terminate"}, history=("RUNNING", "CANCELING")
    )
    message = told(look)
    assert "the run ended FAILED: somebody cancelled it" in message and "shutdown" not in message


def test_an_omitted_task_is_neither_pending_nor_failed(server, small_yaml, caplog):
    server.timeline = (DRIVER_FAILED,)
    with pytest.raises(RunFailedError):
        submit(SubmitConfig(endpoint=server.url, file=small_yaml, poll_s=0.01))
    assert "pending   Train it" not in caplog.text


# Other shapes of pipelines


@dsl.component(base_image="registry.example/step:1")
def predict(part: str) -> str:
    return part


@dsl.component(base_image="registry.example/step:1")
def use(data: dsl.Input[dsl.Dataset]):
    print(data.path)


@dsl.pipeline(name="loops")
def loops():
    stored = dsl.importer(artifact_uri="gs://bucket/data", artifact_class=dsl.Dataset, reimport=False)
    use(data=stored.output).set_display_name("Use it")
    with dsl.ParallelFor(["a", "b"], name="parts") as part:
        predict(part=part).set_display_name("Predict")


@pytest.fixture(scope="module")
def looped(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "loops.yaml"
    compiler.Compiler().compile(loops, str(path))
    return read_pipeline(path)


def node(name, kind="Pod", template="system-container-impl", phase="Failed", message=""):
    number = abs(hash(name)) % 10**9
    return Node(
        id=f"loops-x-{number}",
        name=f"loops-x.{name}",
        type=kind,
        template_name=template,
        phase=phase,
        message=message,
    )


def failed_of(nodes, pipeline):
    return [
        (task.what, task.reason) for task in Workflow("loops-x", "kubeflow", "", tuple(nodes), False).failed(pipeline)
    ]


def test_an_importer_is_a_task_whose_pod_is_named_as_it(looped):
    look = Look("FAILED", {"importer": "FAILED: main: Error (exit code 1)"})
    nodes = workflow_nodes("loops-x", looped.spec, look)
    sent = ArgoWorkflow.model_validate(workflow("loops-x", "r", nodes, look))
    found_nodes = tuple((sent.status.nodes or {}).values())
    (found,) = Workflow("loops-x", "kubeflow", "", found_nodes, False).failed(looped)
    assert (found.what, found.reason, found.is_driver) == ("importer", "main: Error (exit code 1)", False)
    assert found.pod.startswith("loops-x-system-importer-")


def test_items_of_a_loop_are_told_apart(looped):
    """The names that Argo gives to the nodes of a loop (argocompiler/dag.go, iteratorTask and iterationItemTask)."""
    loop = "root.for-loop-2"
    item = f"{loop}.iteration-iterations"
    nodes = [
        node("root", "DAG", "root"),
        node(loop, "DAG", "comp-for-loop-2-for-loop-2-iterator"),
        node(f"{loop}.iteration-driver", template="system-dag-driver", phase="Succeeded"),
        node(item, "TaskGroup", "comp-for-loop-2-iteration"),
        node(f"{item}(0:0)", "DAG", "comp-for-loop-2-iteration", "Succeeded"),
        node(f"{item}(1:1)", "DAG", "comp-for-loop-2-iteration"),
        node(f"{item}(1:1).iteration-item-driver", template="system-dag-driver", phase="Succeeded"),
        node(f"{item}(1:1).iteration-item", "DAG", "comp-for-loop-2"),
        node(f"{item}(1:1).iteration-item.predict", "DAG", "system-container-executor"),
        node(f"{item}(1:1).iteration-item.predict.executor", message="main: Error (exit code 3)"),
    ]
    assert failed_of(nodes, looped) == [("Predict (predict), item 1", "main: Error (exit code 3)")]
    driver = node(f"{loop}.iteration-driver", template="system-dag-driver", message="main: Error (exit code 1)")
    assert failed_of([nodes[0], nodes[1], driver], looped) == [
        ("parts (for-loop-2)", "its tasks never started: its driver failed (main: Error (exit code 1))")
    ]


def test_a_node_that_fails_without_a_pod_is_told_with_its_message(looped):
    nodes = [
        node("root", "DAG", "root"),
        node("root.use", "DAG", "system-container-executor", "Error", "quota exceeded"),
    ]
    assert failed_of(nodes, looped) == [("Use it (use)", "quota exceeded")]


def test_many_failures_are_counted_and_five_are_told_with_their_logs(server, small_yaml, looped, monkeypatch):
    nodes = [
        node(f"root.for-loop-2.iteration-iterations({i}:{i}).iteration-item.predict.executor", message="m")
        for i in range(12)
    ]
    found = Workflow("loops-x", "kubeflow", "", tuple(nodes), False)
    monkeypatch.setattr("sat_xception.kubeflow.failure.read_workflow", lambda *_: found)
    with KfpClient(KfpConfig(endpoint=server.url)) as cluster:
        count, lines = describe_failures(cluster, Run(run_id="r", state="FAILED"), looped)
    assert count == 12
    assert sum(line.startswith("          Predict") for line in lines) == 5
    assert lines[-1].startswith("          and 7 more: Predict (predict), item ")


def test_a_group_alone_is_told_where_the_list_of_nodes_has_nothing_else(looped):
    tasks = [{"display_name": "for-loop-2", "state": "FAILED"}, {"state": "FAILED"}]
    run = Run.model_validate({"run_id": "r", "run_details": {"task_details": tasks}})
    assert [task.what for task in failed_by_details(run, looped)] == ["parts (for-loop-2)"]


# Logs as a terminal can show them


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31merror\x1b[0m\n", ["error"]),
        ("1/9 [=>\r2/9 [==>\r9/9 [====]\r\n", ["9/9 [====]"]),
        ("\x1b]0;title\x07a\x07b\x00c\n", ["a b c"]),
        ("\n \n\t\n", []),
        ("\n".join(map(str, range(100))), [str(number) for number in range(85, 100)]),
        (
            LAUNCHER.split("reading")[0] + "Error: exit status 1\n",
            ["I0101 00:00:00.000000      18 main.go:67] Setting log level to: '1'"],
        ),
        (
            "done\nF0101 00:00:01.000000  18 main.go:59] failed to upload output artifact: no such bucket\n",
            ["done", "F0101 00:00:01.000000  18 main.go:59] failed to upload output artifact: no such bucket"],
        ),
        ("W0101 00:00:01.000000  18 gpu.cc:59] no GPU\n", ["W0101 00:00:01.000000  18 gpu.cc:59] no GPU"]),
    ],
)
def test_the_end_of_a_log_is_what_the_component_said_last(text, expected):
    assert list(last_lines(text)) == expected


def test_a_long_line_keeps_its_end():
    (line,) = last_lines("a" * 10_000 + " no such bucket")
    assert len(line) < 600 and line.endswith(" no such bucket")


def test_of_a_long_log_the_end_is_shown(server, told):
    server.logs["step-2.executor"] = "x" * 5_000_000 + "\nthe end\n"
    assert "| the end" in told(COMPONENT_FAILED)
