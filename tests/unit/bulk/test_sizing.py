"""What a plan takes, and runs that are played: the figures of docs/bulk.md among them."""

import math
import re
from pathlib import Path

import pytest

from sat_xception.bulk.measure import Probe
from sat_xception.bulk.sizing import Backend, estimate, read_backends
from sat_xception.errors import ConfigError

DOCS = Path(__file__).parents[3] / "docs" / "bulk.md"
BACKENDS = read_backends(None)
MEASURED = Probe(tiles=24, bytes_per_tile=10_000, fetched_per_s=500, scored_per_s=100, backbone="mobilenetv2")


def test_this_machine_is_reckoned_with_what_was_measured():
    found = estimate(360_000, MEASURED, BACKENDS["this-machine"], 1)
    assert (found.seconds, found.bytes, found.usd, found.mbit_per_s) == (3600, 3.6e9, 0, 8)
    assert found.lines()[0] == "time      1 h 00 m at 100.0 tiles/s (measured here)"
    assert "measured on 24" in found.lines()[1]


def test_slow_imagery_is_what_it_takes():
    found = estimate(1000, Probe(4, 1e4, 10.0, 100.0, "xception"), BACKENDS["this-machine"], 1)
    assert found.seconds == 100
    assert "reading the imagery is slower than scoring, which is 100.0" in found.lines()[0]


def test_machines_share_the_work_and_cost_what_they_cost():
    backend = Backend(tiles_per_s={"mobilenetv2": 1000}, usd_per_hour=0.5, source="a paper")
    found = estimate(36_000_000, MEASURED, backend, 10)
    assert (found.seconds, found.usd) == (3600, 5.0)
    assert "a paper, x 10" in found.lines()[0]


def test_what_was_not_measured_is_said():
    found = estimate(1000, Probe(), BACKENDS["this-machine"], 1)
    assert found.lines()[0].startswith("time      not known: give --model")
    assert "assumed" in found.lines()[1]
    assert "of Xception, as no --model was given" in estimate(1000, Probe(), BACKENDS["t4"], 1).lines()[0]


def test_prices_of_a_file_are_used_and_wrong_ones_are_told(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text("ours: {tiles_per_s: {xception: 7}, usd_per_hour: 2}\n")
    assert read_backends(path)["ours"] == Backend(
        tiles_per_s={"xception": 7}, usd_per_hour=2, source="prices.yaml", price_source="prices.yaml"
    )
    assert "t4" in read_backends(path)
    with pytest.raises(ConfigError, match="no rate of mobilenetv2 is known"):
        estimate(10, MEASURED, read_backends(path)["ours"], 1)
    for content, told in (
        ("ours: {usd: 2}\n", "usd: Extra inputs"),
        ("- a\n", "isn't a mapping"),
        ("a: 3\n", "mapping"),
    ):
        path.write_text(content)
        with pytest.raises(ConfigError, match=told):
            read_backends(path)


def rows_of_the_docs():
    """Return (backbone, backend, million tiles an hour, machines) of the table in the docs."""
    text = DOCS.read_text(encoding="utf-8").split("## Number of machines")[1].split("\n## ")[0]
    names = [name.strip(" `") for name in re.search(r"^\| model \|.*$", text, re.M)[0].split("|")[3:-1]]
    for line in re.findall(r"^\| (?:xception|mobilenetv2) \|.*$", text, re.M):
        backbone, millions, *machines = (cell.strip() for cell in line.split("|")[1:-1])
        for backend, number in zip(names, machines, strict=True):
            yield backbone, backend, int(millions), int(number.replace(",", ""))


@pytest.mark.parametrize(("backbone", "backend", "millions", "machines"), list(rows_of_the_docs()))
def test_the_machines_of_the_docs_follow_from_the_rates(backbone, backend, millions, machines):
    rate = BACKENDS[backend].tiles_per_s[backbone]
    assert math.ceil(millions * 1e6 / 3600 / rate) == machines
