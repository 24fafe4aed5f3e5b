"""The pages that steps write, looked at in a browser that has no network."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from sat_xception.dataset.assemble import assemble
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.evaluate.gate import gate
from sat_xception.evaluate.settings import GateConfig
from tests.conftest import draw_tile, encode

X, Y, ZOOM = 148_000, 93_000, 18


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Tiles in twelve blocks whose names say where they are; one can't be read."""
    folder = tmp_path_factory.mktemp("map")
    for block in range(12):
        for index in range(16):
            x, y = X + block * 64 + index // 4, Y + index % 4
            label = "school" if (index + index // 4) % 2 else "not-school"
            path = folder / "data" / label / f"{x}-{y}-{ZOOM}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(draw_tile(label, 16 * block + index), quality=90))
    (folder / "data" / "school" / f"{X}-{Y + 1}-{ZOOM}.jpg").write_bytes(b"<html>")
    # Drawings of 48 pixels hold too little to be told apart.
    assemble(AssembleConfig(data=str(folder / "data"), out=folder / "out", near_duplicate_bits=0))
    return folder / "out"


@pytest.fixture(scope="module")
def no_places(class_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "out"
    assemble(AssembleConfig(data=str(class_folders), out=folder))
    return folder


@pytest.fixture(scope="module")
def run_page(evaluated, tmp_path_factory, charts_drawn_once):
    """The page of a run that what is serving was held against."""
    folder = tmp_path_factory.mktemp("run")
    now = shutil.copytree(evaluated, folder / "now")
    described = json.loads((now / "evaluation.json").read_text())
    serving = {"state": "scored", "reason": "", "place": "models/serving", "name": "schools", "version": 7}
    (now / "evaluation.json").write_text(json.dumps({**described, "serving": serving, "training": None}))
    gate(GateConfig(evaluations=(evaluated,), serving=now, out=folder / "decision", min_slice_recall=0.5))
    return folder / "decision" / "report.html"


@pytest.fixture(scope="module")
def pages(dataset, no_places, trained, evaluated, run_page):
    reports = [folder / "report.html" for folder in (dataset, no_places, evaluated)]
    return [*reports, trained / "curves.html", run_page]


def fits(browser) -> bool:
    return browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("width", [1200, 390])
def test_pages_ask_for_nothing_complain_of_nothing_and_fit_the_screen(browser, visit, pages, width):
    for page in pages:
        asked, complaints = visit(page, width)
        assert asked == [page.as_uri()]
        assert complaints == []
        assert fits(browser), page
        images = "return [...document.images].every(image => image.complete && image.naturalWidth > 0)"
        assert browser.execute_script(images), page


def shown(browser) -> int:
    return browser.execute_script(
        "return [...document.querySelectorAll('.mark')].filter(mark => getComputedStyle(mark).display != 'none').length"
    )


def test_the_map_has_a_mark_for_every_tile(browser, visit, dataset):
    visit(dataset / "report.html")
    assert shown(browser) == 191
    titles = browser.execute_script(
        "return [...document.querySelectorAll('.mark title')].map(each => each.textContent)"
    )
    assert set(titles) == {
        f"{label}, {split}" for label in ("school", "not-school") for split in ("train", "valid", "test")
    }
    drawing = browser.find_element(By.CSS_SELECTOR, ".map > svg")
    assert drawing.get_attribute("aria-label").startswith("map of 191 tiles, 23.")
    pixels = np.asarray(Image.open(io.BytesIO(drawing.screenshot_as_png)).convert("RGB")).reshape(-1, 3)
    for colour in ((0, 114, 178), (230, 159, 0), (0, 158, 115)):
        assert (np.abs(pixels.astype(int) - colour).sum(axis=1) < 90).sum() > 50


def test_splits_and_classes_are_switched_off_by_mouse_and_keyboard(browser, visit, dataset):
    visit(dataset / "report.html")
    everything = shown(browser)
    boxes = browser.find_elements(By.CSS_SELECTOR, ".map input")
    assert len(boxes) == 5
    boxes[0].click()
    without_training = shown(browser)
    assert 0 < without_training < everything
    boxes[3].send_keys(Keys.SPACE)
    assert 0 < shown(browser) < without_training
    boxes[4].send_keys(Keys.SPACE)
    assert shown(browser) == 0
    for box in (boxes[0], boxes[3], boxes[4]):
        box.send_keys(Keys.SPACE)
    assert shown(browser) == everything


def test_the_page_works_in_the_sandbox_of_the_kubeflow_ui(browser, visit, dataset, tmp_path):
    frame = tmp_path / "ui.html"
    text = (dataset / "report.html").read_text().replace("&", "&amp;").replace('"', "&quot;")
    frame.write_text(f'<meta charset="utf-8"><iframe sandbox width="1000" height="2000" srcdoc="{text}"></iframe>')
    _, complaints = visit(frame)
    assert complaints == []
    browser.switch_to.frame(0)
    try:
        marks = browser.find_elements(By.CSS_SELECTOR, ".mark")
        assert len(marks) == 191
        assert marks[0].is_displayed()
    finally:
        browser.switch_to.default_content()


def test_without_places_the_page_says_why_there_is_no_map(browser, visit, no_places):
    visit(no_places / "report.html")
    assert "There is no map" in browser.find_element(By.TAG_NAME, "body").text
    assert browser.find_elements(By.CSS_SELECTOR, ".map") == []


def test_what_was_lost_is_told(browser, visit, dataset):
    visit(dataset / "report.html")
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "192 tiles considered: 1 failed, 191 ok." in text
    assert "not an image" in text


def test_the_page_of_a_run_shows_every_check_and_what_is_serving_beside_the_candidates(browser, visit, run_page):
    visit(run_page)
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "version 7 at models/serving" in text
    assert "the data has no slices" in text
    drawings = browser.find_elements(By.TAG_NAME, "svg")
    labels = {drawing.get_attribute("aria-label") for drawing in drawings}
    assert labels == {
        "learning curves",
        "confusion matrix",
        "ROC curve",
        "precision-recall curve",
        "reliability diagram",
    }
    assert all(drawing.is_displayed() and drawing.size["width"] > 100 for drawing in drawings)
