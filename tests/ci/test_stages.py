"""CI fails, with a line that can't be missed, when anything failed or wasn't run; each stage has its time.

The scripts are the real ones; the programs that they call are stood in for.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("lint", "type", "test-all", "compile")
IN_CONTAINERS = ("daemon", "base", "build", "unchanged", "check", "pipeline")
# Fails for the target that the file `fails` names; `make images` builds one image, the first time.
MAKE = """#!/bin/sh
echo "make $*" >> calls
[ "$1" != "$(cat fails 2>/dev/null)" ] || exit 2
[ "$1" = images ] || exit 0
if [ -e built ] && [ ! -e always ]; then how=unchanged; else how="1 m 00 s"; fi
touch built
echo "sat-xception/light:0123456789ab  600 MB  $how"
"""
PROGRAMS = {
    "make": MAKE,
    "docker": '#!/bin/sh\n[ "$1" != info ] || [ -e daemon ]\n',
    "dockerd": "#!/bin/sh\nexit 1\n",
    "df": '#!/bin/sh\necho Avail; echo "$(cat free_gb)000000"\n',
    **{name: "#!/bin/sh\n" for name in ("apt-get", "chromedriver", "docker-registry", "iptables", "promtool")},
}


@pytest.fixture
def ci(tmp_path):
    """A checkout with a Docker daemon and room, and a function that runs a script there: status, output."""
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (tmp_path / "components").mkdir()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in PROGRAMS.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (tmp_path / "daemon").touch()
    (tmp_path / "free_gb").write_text("40")

    def run(script="run"):
        environment = {key: value for key, value in os.environ.items() if key not in ("BASE_IMAGE", "CI_OUTCOMES")}
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        ended = subprocess.run(
            [tmp_path / ".ci" / script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return ended.returncode, ended.stdout

    return tmp_path, run


def summary(output):
    """Return the result of each stage in the summary, by name, in their order."""
    lines = output[output.index("ci        summary") :].splitlines()[1:]
    found = [re.match(r"ci        (\S+) +(\S+) +\d+ m \d\d s$", line) for line in lines]
    return {match[2]: match[1] for match in found if match}


def test_a_run_in_which_everything_ran_is_green_and_says_how_long_each_stage_took(ci):
    folder, run = ci
    status, output = run()
    assert status == 0, output
    containers = {f"containers/{name}": "ok" for name in IN_CONTAINERS}
    assert summary(output) == {"tools": "ok", **dict.fromkeys(TOOLS, "ok"), **containers, "containers": "ok"}
    for name in summary(output):
        assert re.search(rf"^ci        stage {name} took \d+ m \d\d s$", output, re.M)
    assert "CI FAILED" not in output
    assert [line.split()[1] for line in (folder / "calls").read_text().splitlines()][: len(TOOLS)] == list(TOOLS)


@pytest.mark.parametrize(
    ("fault", "line", "failed"),
    [
        ("no daemon", "NO DOCKER DAEMON CAN BE STARTED HERE: images are neither built nor run", "daemon"),
        ("no room", "ONLY 11 GB FREE IN /var/tmp, 20 ARE NEEDED: images are neither built nor run", "daemon"),
        ("out of time", "OUT OF TIME: images were not all built, checked and run", "build"),
        ("no build", "", "build"),
        ("built again", "", "unchanged"),
        ("no pipeline", "", "pipeline"),
    ],
)
def test_a_run_without_images_that_were_built_checked_and_run_is_red(ci, fault, line, failed):
    folder, run = ci
    if fault == "no daemon":
        (folder / "daemon").unlink()
    if fault == "no room":
        (folder / "free_gb").write_text("12")
    if fault == "out of time":
        slow = MAKE.replace('[ "$1" = images ] ||', '[ "$1" = images ] && sleep 60 ||')
        (folder / "programs" / "make").write_text(slow)
        script = folder / ".ci" / "run"
        script.write_text(script.read_text().replace('"$((left > 60 ? left : 60))"', "3"))
    if fault == "built again":
        (folder / "always").touch()
    if fault in ("no build", "no pipeline"):
        (folder / "fails").write_text({"no build": "images", "no pipeline": "run"}[fault])
    status, output = run()
    assert status != 0
    assert f"****************  {line}" in output
    results = summary(output)
    inner = [results[f"containers/{name}"] for name in IN_CONTAINERS]
    at = IN_CONTAINERS.index(failed)
    assert inner == ["ok"] * at + ["FAILED"] + ["NOT-RUN"] * (len(IN_CONTAINERS) - at - 1)
    assert results["containers"] == "FAILED"
    last = output.splitlines()[-1]
    assert last.startswith("ci        ****************  CI FAILED: ") and f"containers/{failed} " in last


@pytest.mark.parametrize("target", TOOLS)
def test_a_stage_that_fails_ends_the_run_and_what_did_not_run_is_named(ci, target):
    folder, run = ci
    (folder / "fails").write_text(target)
    status, output = run()
    assert status == 2
    at = TOOLS.index(target)
    later = [*TOOLS[at + 1 :], "containers"]
    expected = {"tools": "ok", **dict.fromkeys(TOOLS[:at], "ok"), target: "FAILED", **dict.fromkeys(later, "NOT-RUN")}
    assert summary(output) == expected
    assert output.endswith(f"CI FAILED: {' '.join([target, *later])}  ****************\n")


def test_the_containers_alone_sum_up_too(ci):
    folder, run = ci
    (folder / "daemon").unlink()
    status, output = run("containers")
    assert status == 1
    assert summary(output) == {f"containers/{name}": "NOT-RUN" for name in IN_CONTAINERS} | {
        "containers/daemon": "FAILED"
    }
