"""The page of a dataset: what is in it, what was left out and why, some tiles; however much of it there is."""

import pytest

from sat_xception.dataset.manifest import DatasetSummary, ManifestRow
from sat_xception.dataset.record import DatasetRecord
from sat_xception.dataset.report import DatasetPage
from tests.conftest import draw_tile, encode

HOSTILE = "<script>alert(1)</script>"


def row(index, label="school", **changes):
    return ManifestRow(**{"id": f"{label}/{index}.jpg", "label": label, "split": "train", "status": "ok", **changes})


@pytest.fixture
def page():
    def make(rows, classes=("not-school", "school"), image=None, **changes):
        page = DatasetPage(classes, block_zoom=12)
        drawn = {label: encode(draw_tile(label, 0)) for label in {item.label for item in rows}}
        for item in rows:
            page.offer(item)
            if item.status == "ok":
                page.offer_image(item, image or drawn[item.label])
        summary = DatasetSummary()
        for item in rows:
            summary.add(item)
        description = {
            "name": "tiles",
            "synthetic": False,
            "classes": classes,
            "positive_label": "school",
            "attribution": "",
            "counts": summary.counts(),
            "digest": "d" * 64,
            "shards": {},
            **changes,
        }
        return page.render(DatasetRecord(**description))

    return make


def test_it_counts_tiles_by_split_and_class(page):
    rows = [row(index) for index in range(1200)] + [row(0, "not-school"), row(1, "not-school", split="valid")]
    text = page([*rows, row(2, split="test")])
    assert "1,203 tiles considered" in text
    assert text.index(">train<") < text.index(">valid<") < text.index(">test<")
    cells = ['<td>school</td><td class="number">1,200</td><td class="number">0</td><td class="number">1</td>']
    cells.append('<td>not-school</td><td class="number">1</td><td class="number">1</td><td class="number">0</td>')
    assert all(cell in text for cell in cells)
    assert "every tile is used" in text


def test_it_says_what_was_left_out_and_why_with_failures_first(page):
    copies = [row(index, status="duplicate", reason="same bytes as a") for index in range(60)]
    text = page(
        [row(0), *copies, row(70, status="failed", reason="cut short"), row(71, status="failed", reason="empty")]
    )
    assert text.index("school/70.jpg") < text.index("school/1.jpg")
    assert '<td class="fail">failed</td><td>cut short</td><td class="number">1</td></tr>' in text
    assert '<td>duplicate</td><td></td><td class="number">60</td></tr>' in text
    assert "and 12 more, in manifest.parquet" in text
    assert '<span class="fail">2 failed</span>' in text


def test_it_shows_a_few_tiles_of_each_class(page):
    rows = [row(index) for index in range(20)] + [row(index, "not-school") for index in range(2)]
    text = page(rows)
    assert text.count('<img src="data:image/jpeg;base64,') == 6 + 2
    assert "Of the other classes none are shown" not in text


def test_no_name_is_markup(page):
    rows = [row(0, HOSTILE), row(1, HOSTILE, status="failed", reason=HOSTILE)]
    text = page(rows, classes=(HOSTILE, "school"), name=HOSTILE, positive_label=HOSTILE)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;/1.jpg" in text


def test_only_a_synthetic_sample_is_called_one(page):
    assert "synthetic sample" not in page([row(0)])
    assert "synthetic sample" in page([row(0)], synthetic=True)


def test_it_stays_small_however_much_there_is(page):
    classes = [f"class-{index:04d}-{'x' * 60}" for index in range(500)]
    rows = [row(index, label) for label in classes for index in range(10)]
    rows += [row(index, status="failed", reason="y" * 5000 + str(index)) for index in range(2000)]
    noise = encode(draw_tile("school", 0, size=400).effect_spread(20), quality=100)
    text = page(rows, classes=classes, image=noise)
    assert len(text.encode()) < 1_000_000
    assert "and 400 more classes" in text
    assert "and 1,950 more, in manifest.parquet" in text
    assert "Of the other classes none are shown" in text


def test_the_map_of_many_tiles_stays_small(page):
    rows = [
        row(index, x=140_000 + index % 300, y=93_000 + index // 300, z=18, lon=0.0, lat=0.0) for index in range(60_000)
    ]
    text = page(rows)
    assert len(text.encode()) < 3_000_000
    assert "map of 60,000 tiles" in text
    assert "A mark stands for all tiles of a split and class in a square of the grid at zoom 16" in text


@pytest.mark.parametrize(("x", "y", "z"), [(0, 0, 0), (0, 131_072, 18), (2**18 - 1, 2**18 - 1, 18)])
def test_the_map_of_one_tile_is_drawn_wherever_it_is(page, x, y, z):
    assert "map of 1 tiles" in page([row(0, x=x, y=y, z=z, lon=0.0, lat=0.0)])
