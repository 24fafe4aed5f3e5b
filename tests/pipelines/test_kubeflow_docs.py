"""docs/kubeflow.md: its commands run as they are written, against the strict server."""

import contextlib
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner
from kfp.cli.cli import cli

from tests.kfp_server import Look

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "kubeflow.md"
NEED_A_CLUSTER = ("kubectl", "helm", "make")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```$", DOCUMENT.read_text(), flags=re.MULTILINE | re.DOTALL)


def test_what_needs_a_cluster_or_a_registry_is_marked_and_nothing_else_is():
    assert {language for language in re.findall(r"^```(\w+)$", DOCUMENT.read_text(), re.MULTILINE)} == {"sh", "console"}
    marked = [line for block in blocks("console") for line in block.splitlines() if not line.startswith("    ")]
    assert all(line.startswith(("$ export ", *(f"$ {word} " for word in NEED_A_CLUSTER))) for line in marked)
    for block in blocks("sh"):
        assert not re.search(rf"^\s*({'|'.join(NEED_A_CLUSTER)})\b", block, re.MULTILINE)


def run_script(folder, environment):
    """Run every command of the document in bash, and return what it prints."""
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    script = "\n".join(["set -euxo pipefail", *blocks("sh")])
    finished = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout


def check_ours(server, shown):
    """Check what `sat_xception` did: three runs, a version each content, a schedule that came and went."""
    parameters = [run["runtime_config"]["parameters"] for run in server.all("runs")]
    assert parameters[0] == {"data": "sample", "mobilenetv2_alpha": 0.35, "deploy_target": "none"}
    assert parameters[1] == {}  # the defaults
    assert type(parameters[2]["mobilenetv2_alpha"]) is float
    assert "created   school-classifier-nightly\n" in shown
    assert "deleted   school-classifier-nightly" in shown
    return parameters


# Writes down how it was called, and answers what the document reads from kfp's answers.
RECORDER = """#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" END >> "$RECORD"
echo '[{"pipeline_id": "p", "pipeline_version_id": "v", "run_id": "r", "recurring_run_id": "s"}]'
"""


@pytest.fixture
def recorded(environment, tmp_path):
    """The words of each command of the document, as bash passes them."""
    for name in ("sat_xception", "kfp"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(RECORDER)
        program.chmod(0o755)
    record = tmp_path / "record"
    path = f"{tmp_path / 'bin'}{os.pathsep}{environment['PATH']}"
    run_script(tmp_path, {**environment, "PATH": path, "RECORD": str(record)})
    commands = record.read_text().removesuffix("END\0").split("END\0")
    return [command.removesuffix("\0").split("\0") for command in commands]


def test_every_command_of_ours_works_as_it_is_written(server, recorded, command, tmp_path):
    server.timeline = (Look("SUCCEEDED", {"assemble": "SUCCEEDED", "train": "SUCCEEDED"}),)
    done = [command(*words, cwd=tmp_path) for program, *words in recorded if program == "sat_xception"]
    assert len(done) == 10
    assert [ended.returncode for ended in done] == [0] * 10
    check_ours(server, "".join(ended.stdout for ended in done))
    assert not server.all("recurring_runs")


def test_every_command_of_kfp_has_the_flags_that_it_is_given(recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("build/training.yaml").touch()
    checked = 0
    for words in (words for program, *words in recorded if program == "kfp"):
        group, context = cli, cli.make_context("kfp", list(words))
        while hasattr(group, "resolve_command"):
            name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
            context = group.make_context(name, rest, parent=context)
        checked += 1
    assert checked == 18


# Passes its words on to the kfp that `warm_kfp` has imported, and ends as that does.
CALLER = """#!{python} -IS
import json, os, socket, stat, sys
given = sys.stdin.read() if stat.S_ISFIFO(os.fstat(0).st_mode) else ""
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    connection.sendall(json.dumps([sys.argv[1:], os.getcwd(), given]).encode() + b"\\n")
    code, out, err = json.loads(connection.makefile().read())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


@pytest.fixture
def warm_kfp(environment, tmp_path):
    """The environment with a `kfp` that is imported once for all of its commands, which takes longer than they do."""

    class Answer(socketserver.StreamRequestHandler):
        def handle(self):
            words, folder, given = json.loads(self.rfile.readline())
            with contextlib.chdir(folder), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # kfp's own, which are no errors for a user
                ended = CliRunner().invoke(
                    cli, words, input=given, env=environment, prog_name="kfp", obj={}, auto_envvar_prefix="KFP"
                )
            why = f"{ended.exception!r}" if ended.exit_code else ""
            self.wfile.write(json.dumps([ended.exit_code, ended.stdout, why]).encode())

    address, programs = str(tmp_path / "kfp.socket"), tmp_path / "bin"
    programs.mkdir()
    (programs / "kfp").write_text(CALLER.format(python=sys.executable, address=address))
    (programs / "kfp").chmod(0o755)
    with socketserver.UnixStreamServer(address, Answer) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield {**environment, "PATH": f"{programs}{os.pathsep}{environment['PATH']}"}
        running.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_works_in_a_shell(server, warm_kfp, tmp_path):
    server.timeline = (Look("SUCCEEDED", {"assemble": "SUCCEEDED", "train": "SUCCEEDED"}),)
    parameters = check_ours(server, run_script(tmp_path, warm_kfp))
    # kfp's: a pipeline of two versions, a run, a schedule that was enabled at once and is gone.
    names = {item["pipeline_id"]: item["display_name"] for item in server.all("pipelines")}
    versions = [(names[version["pipeline_id"]], version["display_name"]) for version in server.all("pipeline_versions")]
    assert len(versions) == 3
    assert versions[1:] == [("training-by-hand", "training-by-hand"), ("training-by-hand", "v2")]
    assert parameters[3] == parameters[0]
    created = [request.body for request in server.requests if request.path == "/recurringruns" and request.body]
    assert [(body["display_name"], body["mode"]) for body in created] == [
        ("school-classifier-nightly", "ENABLE"),
        ("by-hand", "ENABLE"),
    ]
    assert not server.all("recurring_runs")


def test_kfp_sends_schedule_parameters_as_texts_as_the_document_says(server, command, environment):
    assert command("submit", "--no-run").returncode == 0
    (version,) = server.all("pipeline_versions")
    kfp = ["kfp", "recurring-run", "create", "--enabled", "--job-name", "j", "--experiment-name", "e"]
    which = ["--pipeline-id", version["pipeline_id"], "--version-id", version["pipeline_version_id"]]
    finished = subprocess.run(
        [*kfp, *which, "--cron-expression", "0 0 8 * * 1", "mobilenetv2_alpha=0.35"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode != 0
    body = server.requests[-1].body
    assert body["runtime_config"]["parameters"] == {"mobilenetv2_alpha": "0.35"}


def test_every_flag_and_key_that_the_document_names_exists():
    from sat_xception.kubeflow.schedule_file import Schedule
    from sat_xception.kubeflow.settings import SubmitConfig

    text = DOCUMENT.read_text()
    section = text[text.index("## 5.") : text.index("## 7.")]
    flags = {flag.removeprefix("no-").replace("-", "_") for flag in re.findall(r"`--([a-z][a-z-]+)", section)}
    assert flags <= set(SubmitConfig.model_fields) | {"help"}
    schedules = text[text.index("## 6.") : text.index("## 7.")]
    keys = {
        key for row in re.findall(r"^\| (`[a-z_`, ]+) \|", schedules, re.MULTILINE) for key in re.findall(r"\w+", row)
    }
    assert keys == set(Schedule.model_fields)
