"""Telling a webhook on loopback how a run ended, and never telling anybody the webhook's address."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sat_xception.errors import ConfigError, ServiceError
from sat_xception.notify import notify as module
from sat_xception.notify.last_run import finish_run
from sat_xception.notify.notify import notify
from sat_xception.notify.settings import NotifyConfig

SECRET = "services/T0000/B0000/a-secret-token"


class Webhook(ThreadingHTTPServer):
    """A webhook that answers with the given codes, the last one for ever, and keeps what it was told."""

    def __init__(self) -> None:
        self.codes = [200]
        self.told: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, json.loads(body)))
        self.send_response(self.server.codes[0] if len(self.server.codes) == 1 else self.server.codes.pop(0))
        self.send_header("Location", f"/{SECRET}")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing: the address is a secret."""


@pytest.fixture
def webhook(monkeypatch) -> Iterator[Webhook]:
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("SAT_XCEPTION_WEBHOOK", server.address)
        yield server
        server.shutdown()
        thread.join()


def ended(**settings: object) -> NotifyConfig:
    return NotifyConfig(**{"pipeline": "training", "state": "FAILED", "message": "no tiles in café/", **settings})


def test_the_webhook_is_told_pipeline_state_and_reason(webhook):
    result = notify(ended())
    told = {
        "text": "training: FAILED: no tiles in café/",
        "pipeline": "training",
        "state": "FAILED",
        "message": "no tiles in café/",
    }
    assert webhook.told == [(f"/{SECRET}", told)]
    assert result.summary() == "notify    training: FAILED: no tiles in café/ | told 127.0.0.1"


def test_a_run_that_went_well_needs_no_reason(webhook):
    assert notify(ended(state="SUCCEEDED", message="")).text == "training: SUCCEEDED"
    assert webhook.told[0][1]["text"] == "training: SUCCEEDED"


def test_how_a_run_ended_is_told_from_its_own_record(webhook, tmp_path):
    well = {"state": "SUCCEEDED", "message": "", "baseline": tmp_path}
    finish_run(str(tmp_path), "run-1", "no model passes: accuracy")
    assert notify(ended(**well, run="run-1")).text == "training: SUCCEEDED: no model passes: accuracy"
    assert webhook.told[0][1]["message"] == "no model passes: accuracy"
    assert notify(ended(**well, run="run-2")).text == "training: SUCCEEDED"
    assert notify(ended(baseline=tmp_path, run="run-2")).text == "training: FAILED: no tiles in café/"


@pytest.mark.parametrize(
    ("state", "shown"),
    [("COMPLETE", "SUCCEEDED"), ("CACHED", "SUCCEEDED"), ("CANCELED", "CANCELLED"), ("FAILED", "FAILED")],
)
def test_the_states_of_ml_metadata_are_shown_as_those_of_runs(webhook, state, shown):
    notify(ended(state=state, message=""))
    assert (webhook.told[0][1]["state"], webhook.told[0][1]["text"]) == (shown, f"training: {shown}")


def test_a_state_that_stayed_running_is_not_taken_for_the_end_of_a_run(webhook, tmp_path):
    """The driver's own errors, and a last task that is cached or skipped, leave the state of the group at RUNNING."""
    running = {"state": "RUNNING", "message": "", "baseline": tmp_path, "run": "run-1"}
    assert notify(ended(**running)).text == "training: ENDED: Kubeflow doesn't report how; see the run"
    finish_run(str(tmp_path), "run-1", "xception is deployed")
    assert notify(ended(**running)).text == "training: SUCCEEDED: xception is deployed"


def test_a_record_that_cannot_be_read_keeps_nobody_from_being_told(webhook, tmp_path, caplog):
    (tmp_path / "last-run.json").write_text("{")
    assert notify(ended(state="SUCCEEDED", message="", baseline=tmp_path, run="r")).text == "training: SUCCEEDED"
    assert "last-run.json can't be read" in caplog.text
    assert len(webhook.told) == 1


@pytest.mark.parametrize("value", [None, ""])
def test_without_an_address_the_message_goes_to_the_log_only(webhook, monkeypatch, value):
    if value is None:
        monkeypatch.delenv("SAT_XCEPTION_WEBHOOK")
    else:
        monkeypatch.setenv("SAT_XCEPTION_WEBHOOK", value)
    assert notify(ended(message="")).summary() == "notify    training: FAILED"
    assert webhook.told == []


def test_the_address_may_be_in_another_variable(webhook, monkeypatch):
    monkeypatch.setenv("TEAM_HOOK", webhook.address)
    monkeypatch.delenv("SAT_XCEPTION_WEBHOOK")
    assert notify(ended(webhook_env="TEAM_HOOK")).told == "127.0.0.1"
    assert len(webhook.told) == 1


def test_a_webhook_that_stumbles_is_asked_again(webhook, caplog):
    webhook.codes = [503, 429, 204]
    assert notify(ended()).told == "127.0.0.1"
    assert len(webhook.told) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "notify    try 1 of 3: HTTP 503",
        "notify    try 2 of 3: HTTP 429",
    ]


@pytest.mark.parametrize("code", [500, 404, 302])
def test_a_webhook_that_does_not_take_the_message_is_a_failure_of_a_service(webhook, code):
    webhook.codes = [code]
    with pytest.raises(ServiceError, match=rf"at 127\.0\.0\.1 didn't take the message \(HTTP {code}\); check \$SAT_"):
        notify(ended())
    assert len(webhook.told) == 3


def test_there_is_a_pause_between_tries(webhook, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr("sat_xception.http_clients.time.sleep", pauses.append)
    webhook.codes = [500]
    with pytest.raises(ServiceError):
        notify(ended())
    assert pauses == [0.01, 0.01]


def test_nobody_listening_is_a_failure_of_a_service(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("SAT_XCEPTION_WEBHOOK", f"http://127.0.0.1:{closed.getsockname()[1]}/{SECRET}")
        with pytest.raises(ServiceError, match="ConnectError"):
            notify(ended())


def test_a_webhook_that_never_answers_is_left_after_the_deadline(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SAT_XCEPTION_WEBHOOK", f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}")
        with pytest.raises(ServiceError, match="ReadTimeout"):
            notify(ended(timeout_s=0.1))


@pytest.mark.parametrize(
    "address",
    [
        f"hooks.example/{SECRET}",
        f"ftp://hooks.example/{SECRET}",
        f"http:///{SECRET}",
        f"http://[::1/{SECRET}",
        f"http://hooks.example:port/{SECRET}",
        f"http://hooks.example/\n{SECRET}",
    ],
)
def test_what_is_no_web_address_is_refused_without_being_shown(monkeypatch, address):
    monkeypatch.setenv("SAT_XCEPTION_WEBHOOK", address)
    with pytest.raises(ConfigError) as caught:
        notify(ended())
    assert str(caught.value) == "$SAT_XCEPTION_WEBHOOK doesn't hold an http(s) address"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("code", [200, 500])
def test_no_part_of_the_address_but_its_host_is_ever_shown(webhook, caplog, code):
    webhook.codes = [code]
    with caplog.at_level(logging.DEBUG):
        try:
            shown = notify(ended()).summary()
        except ServiceError as error:
            shown = str(error)
    assert "T0000" not in shown + caplog.text
    assert "secret" not in shown + caplog.text


def test_a_process_that_shows_the_log_of_every_library_does_not_show_the_address(webhook):
    # kfp's executor does so, at this level and to stdout.
    code = (
        "import logging, sys; logging.basicConfig(stream=sys.stdout, level=logging.INFO)\n"
        "from sat_xception.steps import run_step\n"
        "run_step('notify', pipeline='training', state='SUCCEEDED', message='')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=os.environ
    )
    assert len(webhook.told) == 1
    assert "told 127.0.0.1" in finished.stdout
    assert "T0000" not in finished.stdout + finished.stderr
