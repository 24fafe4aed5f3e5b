"""The page of the validation: complete, self-contained, escaped, small."""

import re

import pytest

from sat_xception.examples.index import ExamplesIndex
from sat_xception.validation.findings import (
    Anomaly,
    Distance,
    FeatureStatistics,
    Findings,
    SliceStatistics,
    SplitStatistics,
)
from sat_xception.validation.report import bars, validation_page
from sat_xception.validation.validate import _say_uncompared

SCRIPT = "<script>alert(1)</script>"


def feature(name: str, **facts: object) -> FeatureStatistics:
    return FeatureStatistics(name=name, type="FLOAT", present=9, missing=1, **facts)


def anomaly(**changes: object) -> Anomaly:
    facts = {"split": "valid", "feature": "image/bytes", "kind": "K", "description": "too large", "severity": "ERROR"}
    return Anomaly(**(facts | changes))


def test_what_is_not_compared_is_named(caplog):
    sliced = [
        SliceStatistics(slice=name, data=data, examples=5, by_class={"a": 5}, mean_luma=1.0)
        for name, data in (("r=1", "train"), ("r=1", "valid"), ("r=2", "train"), ("r=3", "valid"))
    ]
    of_slice = Distance(
        split="valid", against="train", slice="r=1", feature="image/class/text", measure="L_INFTY", value=0.1, limit=1.0
    )
    whole = of_slice.model_copy(update={"slice": "", "limit": 0.3})
    with caplog.at_level("INFO"):
        _say_uncompared(findings(slices=tuple(sliced), distances=(of_slice, whole)), with_baseline=False)
    told = [line.split("not compared, valid with train: ")[1] for line in caplog.messages]
    assert [line.split(":")[-1] for line in told] == [" image/mean_luma", " r=2, r=3", " r=1"]
    assert [line.split()[0] for line in told] == ["1", "2", "1"]


def index(classes: tuple[str, ...] = ("a", "b"), synthetic: bool = False) -> ExamplesIndex:
    split = {"count": 10, "by_class": dict.fromkeys(classes, 5), "shards": []}
    return ExamplesIndex(
        classes=classes,
        dataset_digest="0123456789abcdef",
        slices=(),
        source="tiles",
        synthetic=synthetic,
        splits={"train": split, "valid": split},
    )


def findings(**changes: object) -> Findings:
    luma = feature(
        "image/mean_luma", minimum=0.0, mean=1.5, maximum=4321.2, histogram=((0.0, 2.0, 3.0), (2.0, 4.0, 6.0))
    )
    text = feature("image/class/text", unique=2, top_values=(("a", 6.0), ("b", 3.0)))
    facts = {
        "version": "1.2.3",
        "statistics": {
            "train": SplitStatistics(examples=10, features=(text, luma)),
            "valid": SplitStatistics(examples=10, features=(luma,)),
        },
        "distances": (
            Distance(split="valid", against="train", feature="image/x", measure="L_INFTY", value=0.4567, limit=0.3),
        ),
        "anomalies": (),
        "schema_text": 'feature { name: "image/x" }',
    }
    return Findings(**(facts | changes))


def test_the_page_shows_what_was_found() -> None:
    page = validation_page(index(), findings(), [anomaly(), anomaly(feature="meant", accepted=True)])
    assert "2 anomalies, 1 not accepted: the run stops here." in page
    assert re.search(r'<td>image/bytes</td>.*too large.*class="fail">no<', page)
    assert re.search(r'<td>meant</td>.*class="pass">yes<', page)
    assert "TensorFlow Data Validation 1.2.3" in page and "dataset 0123456789ab;" in page
    assert re.search(r"<td>a</td><td class=\"number\">5</td><td class=\"number\">5</td>", page)
    assert re.search(r'largest difference of a share</td><td class="number fail">0.457</td>.*0.300', page)
    assert "0 … 4,321, mean 1.5" in page
    assert "1 missing" in page
    assert "a 66.7 %" in page
    assert '<span class="fail">absent</span>' in page  # image/class/text in valid
    assert page.count('aria-label="histogram"') == 2
    assert "feature { name: &#34;image/x&#34; }" in page
    assert "synthetic" not in page.split("</style>")[1]


@pytest.mark.parametrize(
    ("anomalies", "verdict"),
    [((), "Passed; no anomalies."), ((anomaly(accepted=True),), "Passed; 1 anomaly, all accepted.")],
)
def test_the_page_says_that_the_examples_pass(anomalies: tuple[Anomaly, ...], verdict: str) -> None:
    page = validation_page(index(), findings(), anomalies)
    assert f'<p class="pass">{verdict}</p>' in page


def test_a_synthetic_sample_is_called_one() -> None:
    assert "synthetic sample" in validation_page(index(synthetic=True), findings(), [])


def test_nothing_compared_is_said() -> None:
    assert "Nothing was compared" in validation_page(index(), findings(distances=()), [])


def test_the_page_is_self_contained_and_escaped() -> None:
    text = feature(SCRIPT, unique=1, top_values=((SCRIPT, 9.0),))
    found = findings(
        statistics={split: SplitStatistics(examples=10, features=(text,)) for split in ("train", "valid")},
        schema_text=SCRIPT,
        distances=(Distance(split="valid", against="train", feature=SCRIPT, measure=SCRIPT, value=0, limit=1),),
    )
    page = validation_page(index((SCRIPT, "b")), found, [anomaly(feature=SCRIPT, description=SCRIPT, kind=SCRIPT)])
    assert page.count("&lt;script&gt;alert(1)") >= 8
    assert "<script" not in page
    assert not re.search(r"https?:|//|\bsrc=|\bhref=|@import|url\(", page)


def test_the_page_stays_small_whatever_the_data() -> None:
    long = "é<" * 2000
    many = tuple(
        feature(f"{number}{long}"[:300], unique=9999, top_values=tuple((f"{value}{long}", 1.0) for value in range(20)))
        for number in range(400)
    )
    splits = {split: SplitStatistics(examples=10, features=many) for split in ("train", "valid", "test")}
    distance = Distance(split="valid", against="train", feature="image/x", measure="L_INFTY", value=0.1, limit=0.3)
    found = findings(statistics=splits, schema_text="x" * 5_000_000, distances=(distance,) * 5000)
    names = tuple(f"{number} {long}" for number in range(3000))
    page = validation_page(index(names), found, [anomaly(description=long)] * 5000)
    assert len(page.encode()) < 1_000_000
    assert "and 2,900 more classes" in page
    assert "and 4,900 more, in anomalies.json" in page
    assert "and 9,993 other values" in page
    assert "Cut here; all of it is in schema.pbtxt." in page


def test_anomalies_that_stop_the_run_are_listed_first() -> None:
    accepted = [anomaly(feature=f"meant {number}", accepted=True) for number in range(150)]
    page = validation_page(index(), findings(), [*accepted, anomaly(feature="the one")])
    assert "<td>the one</td>" in page


def test_bars_have_areas_in_proportion_to_their_counts_on_the_shared_scale() -> None:
    wide, narrow = bars([(0.0, 4.0, 8.0), (4.0, 5.0, 2.0)], (0.0, 10.0))
    assert (wide.x, wide.width, wide.y, wide.height) == (0.0, 64.0, 0.0, 48.0)
    assert (narrow.x, narrow.width, narrow.y, narrow.height) == (64.0, 16.0, 0.0, 48.0)


def test_a_bucket_of_one_value_is_a_thin_bar_inside_the_drawing() -> None:
    (middle,) = bars([(256.0, 256.0, 9.0)], (256.0, 256.0))
    assert (middle.x, middle.height) == (80.0, 48.0)
    *_, last = bars([(0.0, 5.0, 1.0), (10.0, 10.0, 1.0)], (0.0, 10.0))
    assert last.x + last.width <= 160.0


def test_no_counts_make_no_bars() -> None:
    assert bars([], (0.0, 0.0)) == []
    assert bars([(0.0, 1.0, 0.0)], (0.0, 1.0)) == []
