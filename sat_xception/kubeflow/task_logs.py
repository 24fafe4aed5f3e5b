"""Read the end of a task's log through Kubeflow Pipelines, from its pod or, if that is gone, from the archive."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import httpx

from sat_xception.kubeflow.answers import Run
from sat_xception.kubeflow.kfp_api import KfpClient, KfpError

__all__ = ["TaskLog", "last_lines", "read_log"]

_LAST_BYTES = 64 * 1024
_LINES = 15
_LONGEST_LINE = 500
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.")
# A line of glog, the logger of Kubeflow's driver and launcher. Lines of Python and C++ programs have no ".go".
_GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w-]+\.go:\d+\] ?(.*)")
# Lines of Argo's emissary, which starts the container's command.
_EMISSARY = re.compile(r"time=\S+ .*\bargo=true\b|Error: exit status \d+$")


@dataclass(frozen=True)
class TaskLog:
    """The end of a log.

    Attributes:
        lines: The last lines; empty if there are none.
        why_not: Why there are none.
        address: URL of the complete log; "" if it isn't available.
    """

    lines: tuple[str, ...] = ()
    why_not: str = ""
    address: str = ""


def read_log(cluster: KfpClient, run: Run, namespace: str, pod: str, is_driver: bool) -> TaskLog:
    """Return the end of the log of a pod.

    The API server reads the log from the pod or, if that is gone, from the archive. If the endpoint is the UI's server,
    it forwards only /apis/v1beta1 and /apis/v2beta1, and has its own path for logs, with the same two sources
    (kubeflow/pipelines 2.16 and 2.17: backend/src/apiserver/main.go, frontend/server/app.ts).
    """
    created = (run.created_at or "")[:10]
    of_the_ui = {"podname": pod, "runid": run.run_id, "podnamespace": namespace, "createdat": created}
    reasons = []
    for request in (
        cluster.build(f"/apis/v1alpha1/runs/{run.run_id}/nodes/{pod}/log"),
        cluster.build("/k8s/pod/logs", **of_the_ui),
    ):
        try:
            text = _text(cluster.exchange(request, last_bytes=_LAST_BYTES))
        except KfpError as error:
            reason = error.reason.partition(" answered ")[2] or error.reason
            reasons += [reason] if error.status != httpx.codes.NOT_FOUND or error.absent else []
        except _NoLogError as error:
            reasons += [str(error)] if str(error) else []
        else:
            lines = last_lines(text, is_driver)
            return TaskLog(lines, "" if lines else "it is empty", str(request.url))
    return TaskLog(why_not=reasons[0][:300] if reasons else f"{cluster.endpoint} serves no logs")


class _NoLogError(Exception):
    """The response isn't a log; the message is the reason, or "" if the URL doesn't serve logs."""


def _text(answer: httpx.Response) -> str:
    """Return the log in a response.

    The API server sends status 200 before it looks for the log, so a failure has status 200 too, with an error in JSON
    at the end of the body (backend/src/apiserver/server/run_log_server.go). Some servers return the UI's page for an
    unknown path.
    """
    if answer.headers.get("content-type", "").startswith("text/html"):
        raise _NoLogError
    text = answer.content.decode(errors="replace")
    beginning = text.rfind('{"error_message":')
    try:
        error = json.loads(text[beginning:]) if beginning >= 0 else None
    except (ValueError, RecursionError):
        error = None
    if isinstance(error, dict) and set(error) <= {"error_message", "error_details"}:
        raise _NoLogError(" ".join(str(error["error_message"]).split()))
    return text


def last_lines(text: str, is_driver: bool = False) -> tuple[str, ...]:
    """Return the lines at the end of a log that contain the reason of a failure.

    The lines that Kubeflow's launcher and Argo add after the component's are left out: they only report its exit code.
    In a driver's log, which has no lines of a component, the lines from the error on are returned.
    """
    lines = [line for raw in text.split("\n") if (line := _plain(raw)) and not _EMISSARY.match(line)]
    if is_driver:
        errors = [index for index, line in enumerate(lines) if _GLOG.match(line) and line[0] in "EF"]
        own = lines[errors[-1] :] if errors else lines
    else:
        own = [line for line in lines if not _is_launchers(line)]
    return tuple(_shortened(line) for line in (own or lines)[-_LINES:])


def _is_launchers(line: str) -> bool:
    match = _GLOG.match(line)
    return bool(match) and (line[0] in "IW" or bool(re.search(r"exit status \d+$", line)))


def _plain(line: str) -> str:
    """Return a line without colours and control characters, and only the last state of a progress bar."""
    shown = [part for part in _ESCAPES.sub("", line).split("\r") if part.strip()]
    return "".join(letter if letter.isprintable() else " " for letter in shown[-1]).rstrip() if shown else ""


def _shortened(line: str) -> str:
    """Cut a long line in the middle, since its end holds the innermost of nested errors."""
    if len(line) <= _LONGEST_LINE:
        return line
    head = _LONGEST_LINE // 4
    return f"{line[:head]} … {line[head - _LONGEST_LINE :]}"
