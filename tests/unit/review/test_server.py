"""The review server keeps every decision, for this machine's page only."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from sat_xception.errors import DataError
from sat_xception.review.server import review
from sat_xception.review.settings import ReviewConfig
from tests.review_pages import publish_tiles, serving, singles, sites


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return publish_tiles(tmp_path_factory.mktemp("review"), singles(30))


@pytest.fixture
def address(out):
    (out / "review.geojson").unlink(missing_ok=True)
    with serving(out) as found:
        yield found


def ask(url, body=None, **headers):
    """Return status, headers and content of an answer."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def decide(address, *decisions, **headers):
    headers = {"Content-Type": "application/json", "Origin": address.rstrip("/"), **headers}
    status, _, body = ask(f"{address}api/decisions", {"decisions": decisions}, **headers)
    return status, json.loads(body)


def decision(site, verdict, base="", **facts):
    return {"site": site, "verdict": verdict, "base": base, **facts}


def in_file(out):
    features = json.loads((out / "review.geojson").read_text())["features"]
    return {feature["properties"]["site"]: feature["properties"]["verdict"] for feature in features}


def test_the_page_and_its_files_are_served_and_nothing_else(address):
    assert json.loads(ask(f"{address}api/decisions")[2]) == {"decisions": []}
    status, headers, page = ask(address)
    assert status == 200 and b"Candidates for school" in page
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(f"{address}server.js")[2] == b"window.REVIEW_SERVER = true;\n"
    assert ask(f"{address}candidates.js")[0] == 200
    for path in ("../publication.json", "%2e%2e/publication.json", "..%2freview.geojson", "/etc/passwd", "nothing.js"):
        assert ask(f"{address}{path}")[0] in (403, 404)


def test_a_decision_is_in_the_file_when_the_page_is_told_so(address, out):
    first, second = sites(out)[:2]
    status, told = decide(address, decision(first, "yes", note="U-shaped", reviewer="Ana", time="2026-11-28T10:00:00Z"))
    assert status == 200 and not told["conflicts"]
    assert in_file(out) == {first: "yes"}
    decide(address, decision(second, "no"))
    assert in_file(out) == {first: "yes", second: "no"}
    [kept] = [item for item in json.loads(ask(f"{address}api/decisions")[2])["decisions"] if item["site"] == first]
    assert (kept["verdict"], kept["note"], kept["reviewer"]) == ("yes", "U-shaped", "Ana")
    assert kept["version"] == told["saved"][0]["version"]


def test_a_change_that_replaces_what_is_there_is_taken_and_any_other_is_told(address, out):
    site = sites(out)[0]
    _, told = decide(address, decision(site, "yes", reviewer="Ana"))
    version = told["saved"][0]["version"]
    # Somebody who hasn't seen Ana's decision.
    _, told = decide(address, decision(site, "no", reviewer="Ben"))
    assert told["saved"] == []
    assert (told["conflicts"][0]["verdict"], told["conflicts"][0]["reviewer"]) == ("yes", "Ana")
    assert in_file(out) == {site: "yes"}
    _, told = decide(address, decision(site, "no", base=version, reviewer="Ben"))
    assert told["conflicts"] == [] and in_file(out) == {site: "no"}
    _, told = decide(address, decision(site, "", base=told["saved"][0]["version"]))
    assert told["saved"][0]["version"] == "" and in_file(out) == {}


def test_the_same_change_sent_twice_is_no_conflict(address, out):
    site = sites(out)[0]
    change = decision(site, "yes", time="2026-11-28T10:00:00Z")
    assert decide(address, change) == decide(address, change)


def test_versions_outlive_the_server(out):
    site = sites(out)[0]
    (out / "review.geojson").unlink(missing_ok=True)
    with serving(out) as address:
        version = decide(address, decision(site, "yes"))[1]["saved"][0]["version"]
    with serving(out) as address:
        assert decide(address, decision(site, "no"))[1]["conflicts"]
        assert decide(address, decision(site, "no", base=version))[1]["saved"]


def test_many_at_once_are_all_in_the_file(address, out):
    every = sites(out)
    threads = [threading.Thread(target=decide, args=(address, decision(site, "no"))) for site in every]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert in_file(out) == dict.fromkeys(every, "no")


def test_other_sites_are_refused(address, out):
    change = decision(sites(out)[0], "yes")
    assert decide(address, change, Origin="https://evil.example")[0] == 403
    assert decide(address, change, Origin="null")[0] == 403
    assert decide(address, change, Host="evil.example")[0] == 403
    assert ask(address, Host="evil.example:80")[0] == 403
    body = json.dumps({"decisions": [change]}).encode()
    assert ask(f"{address}api/decisions", body, **{"Content-Type": "application/json"})[0] == 403
    origin = address.rstrip("/")
    assert ask(f"{address}api/decisions", body, Origin=origin, **{"Content-Type": "text/plain"})[0] == 415
    assert not (out / "review.geojson").exists()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"verdict": "perhaps"}, 400),
        ({"note": "x" * 2001}, 400),
        ({"colour": "red"}, 400),
        ({"site": "18/1/1"}, 409),
        ({"verdict": True}, 400),
    ],
)
def test_what_is_no_decision_is_refused(address, out, change, status):
    good, bad = decision(sites(out)[0], "yes"), decision(sites(out)[1], "no") | change
    code, told = decide(address, good, bad)
    assert code == status and told["error"]
    assert not (out / "review.geojson").exists()


def test_what_is_too_large_or_no_json_is_refused(address):
    headers = {"Content-Type": "application/json", "Origin": address.rstrip("/")}
    assert ask(f"{address}api/decisions", b"x" * (4 * 2**20 + 1), **headers)[0] == 413
    assert ask(f"{address}api/decisions", b"{", **headers)[0] == 400
    assert ask(f"{address}api/decisions", {"decisions": [decision("1/1/1", "no")] * 201}, **headers)[0] == 400


def test_when_the_file_cant_be_written_the_page_is_told_and_may_try_again(out, monkeypatch):
    (out / "review.geojson").unlink(missing_ok=True)
    site = sites(out)[0]
    with serving(out) as address:
        (out / "review.geojson").mkdir()
        try:
            status, told = decide(address, decision(site, "yes"))
            assert status == 507 and "can't write" in told["error"]
        finally:
            (out / "review.geojson").rmdir()
        assert decide(address, decision(site, "yes"))[0] == 200
        assert in_file(out) == {site: "yes"}


@pytest.fixture
def start(out):
    """Return a function that starts the command, and gives the process and the address that it names."""
    running = []

    def run(*flags):
        command = [sys.executable, "-m", "sat_xception", "review", str(out), "--no-browser", *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        line = process.stderr.readline()
        return process, line.split()[-1] if line.startswith("review ") else line + process.stderr.read()

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_command_says_where_it_is_and_ends_with_the_counts(out, start):
    (out / "review.geojson").unlink(missing_ok=True)
    process, address = start("--port", "0")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    assert decide(address, decision(sites(out)[0], "yes"))[0] == 200
    _, problem = start("--port", "0")
    assert "is being reviewed" in problem
    os.kill(process.pid, signal.SIGINT)
    shown, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert shown.startswith("reviewed  1 of 30 candidates | yes 1  no 0  unsure 0")
    assert "--negatives-review" in shown


def test_a_port_that_is_taken_is_told(out, start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process, problem = start("--port", str(taken.getsockname()[1]))
        assert process.wait(20) == 2
    assert "in use by another program. Choose another with --port (0 picks a free one)\n" in problem


def test_a_folder_of_something_else_is_told(tmp_path):
    with pytest.raises(DataError, match="bulk publish"):
        review(ReviewConfig(out=tmp_path))
