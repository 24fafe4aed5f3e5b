"""The review page, used as a person does, in a browser that reaches this machine only."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from sat_xception.dataset.plan import plan_tiles
from sat_xception.dataset.settings import AssembleConfig
from sat_xception.review.page import read_data
from sat_xception.review.record import ReviewDecision, ReviewRecord
from tests.conftest import draw_tile, encode
from tests.review_pages import Z, publish_tiles, serving, singles, sites
from tests.tile_server import TileServer


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Thirty candidates with pictures; the second is of three tiles."""
    return publish_tiles(tmp_path_factory.mktemp("review"), singles(30) | {(5, 0): 0.7, (5, 1): 0.65})


@pytest.fixture(scope="module", params=[3_000, pytest.param(50_000, marks=pytest.mark.slow)])
def many(request, tmp_path_factory):
    """Many candidates, and how many they are."""
    count = request.param
    scores = {(2 * (i % 250), 2 * (i // 250)): 0.999 - i * 0.4 / count for i in range(count)}
    return publish_tiles(tmp_path_factory.mktemp("many"), scores, pictures=False), count


@pytest.fixture
def page(browser, visit):
    """Return a function that opens a page, from a disk or an address, as nobody has used it yet."""

    def go(place, width=1200, clear=True):
        visit_place = place / "review" / "index.html" if isinstance(place, Path) else place
        if clear and isinstance(visit_place, Path):
            browser.get(visit_place.as_uri())
            browser.execute_script("localStorage.clear()")
        asked = visit(visit_place, width) if isinstance(visit_place, Path) else visit_url(browser, visit_place, width)
        WebDriverWait(browser, 20).until(lambda b: b.execute_script("return document.documentElement.dataset.ready"))
        return asked

    return go


def visit_url(browser, url, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get("about:blank")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(url)
    return [], []


def press(browser, keys):
    browser.find_element(By.TAG_NAME, "body").send_keys(keys)


def text(browser, name):
    return browser.find_element(By.ID, name).text


def title(browser):
    return text(browser, "name")


def spoken(browser):
    return browser.execute_script("return document.getElementById('live').textContent")


def wait_for(browser, condition):
    return WebDriverWait(browser, 20).until(lambda _: condition())


def choose(browser, name, value):
    script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
    browser.execute_script(script + "e.dispatchEvent(new Event('input', {bubbles: true}))", name, value)


def press_button(browser, name):
    browser.execute_script("document.getElementById('more').open = true")
    browser.find_element(By.ID, name).click()


@pytest.fixture
def downloads(browser, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})

    def fetch(name):
        deadline = time.monotonic() + 20
        while not (tmp_path / name).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return tmp_path / name

    return fetch


@pytest.mark.parametrize("width", [1200, 390])
def test_from_a_disk_it_asks_for_nothing_but_its_own_files_and_complains_of_nothing(browser, page, out, width):
    asked, complaints = page(out, width)
    folder = (out / "review").as_uri()
    assert asked and all(url.startswith(f"{folder}/") for url in asked)
    assert complaints == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    loaded = "return [...document.querySelectorAll('#tiles img')].map(image => image.complete && image.naturalWidth)"
    wait_for(browser, lambda: browser.execute_script(loaded) == [48])
    assert "Maps & <Co>" in text(browser, "attribution")


def test_ten_candidates_by_keyboard_and_undo(browser, page, out):
    page(out)
    assert title(browser) == "Candidate 1 of 30"
    press(browser, "ynuyynnuyn")
    assert title(browser) == "Candidate 11 of 30"
    assert text(browser, "progress") == "10 of 30 reviewed: 4 yes, 4 no, 2 unsure"
    assert spoken(browser).startswith("no for candidate 10. 10 of 30 reviewed. Now candidate 11, score 0.8")
    press(browser, "z")
    assert title(browser) == "Candidate 10 of 30"
    assert text(browser, "progress") == "9 of 30 reviewed: 4 yes, 3 no, 2 unsure"
    press(browser, "zz")
    assert title(browser) == "Candidate 8 of 30"
    press(browser, Keys.ARROW_UP)
    assert title(browser) == "Candidate 7 of 30" and "Your verdict: no" in spoken(browser)
    press(browser, "y")
    # The eighth is the next without a verdict.
    assert title(browser) == "Candidate 8 of 30"
    press(browser, "z")
    assert text(browser, "progress") == "7 of 30 reviewed: 3 yes, 3 no, 1 unsure"
    page(out, clear=False)
    assert text(browser, "progress") == "7 of 30 reviewed: 3 yes, 3 no, 1 unsure"
    assert title(browser) == "Candidate 8 of 30"


def test_buttons_do_what_keys_do_and_say_what_is_chosen(browser, page, out):
    page(out)
    for verdict in ("yes", "no", "unsure"):
        browser.find_element(By.CSS_SELECTOR, f"[data-verdict={verdict}]").click()
    browser.find_element(By.ID, "previous").click()
    pressed = browser.find_elements(By.CSS_SELECTOR, "[data-verdict][aria-pressed=true]")
    assert [button.get_attribute("data-verdict") for button in pressed] == ["unsure"]
    browser.find_element(By.ID, "undo").click()
    assert text(browser, "progress") == "2 of 30 reviewed: 1 yes, 1 no, 0 unsure"


def test_keys_typed_into_a_note_decide_nothing_and_the_note_is_kept(browser, page, out):
    page(out)
    press(browser, "c")
    note = browser.find_element(By.ID, "note")
    note.send_keys('a funny "yard", unlike others', Keys.ESCAPE)
    assert text(browser, "progress").startswith("0 of 30")
    press(browser, "n")
    press(browser, Keys.ARROW_UP)
    assert note.get_property("value") == 'a funny "yard", unlike others'
    note.send_keys(" at all", Keys.ESCAPE)
    page(out, clear=False)
    press(browser, Keys.ARROW_UP)
    assert browser.find_element(By.ID, "note").get_property("value") == 'a funny "yard", unlike others at all'


def test_a_note_on_a_candidate_without_a_verdict_waits_for_it(browser, page, out):
    page(out)
    note = browser.find_element(By.ID, "note")
    note.send_keys("look again", Keys.ESCAPE)
    press(browser, Keys.ARROW_DOWN)
    assert note.get_property("value") == ""
    press(browser, Keys.ARROW_UP)
    assert note.get_property("value") == "look again"
    press(browser, "u" + Keys.ARROW_UP)
    assert note.get_property("value") == "look again"
    press(browser, "z")
    assert text(browser, "progress").startswith("0 of 30")
    assert note.get_property("value") == "look again"


def test_a_candidate_of_several_tiles_shows_all_of_them_with_the_best_outlined(browser, page, out):
    page(out)
    press(browser, Keys.ARROW_DOWN)
    kinds = [tile.get_attribute("class") for tile in browser.find_elements(By.CSS_SELECTOR, "#tiles .tile")]
    assert kinds[0] == "tile best" and kinds.count("tile member") == 2
    assert text(browser, "about-tiles") == f"Tile {sites(out)[1]}, outlined, and 2 beside it."


@pytest.mark.parametrize("kind", ["geojson", "csv"])
def test_what_is_exported_is_what_the_server_would_write_and_comes_back(browser, page, out, downloads, kind, tmp_path):
    page(out)
    browser.execute_script("document.getElementById('more').open = true")
    browser.find_element(By.ID, "reviewer").send_keys("Zoë, =1+1")
    browser.find_element(By.ID, "note").send_keys('=HYPERLINK(1)\n"two" lines', Keys.ESCAPE)
    press(browser, "ynu")
    press_button(browser, f"export-{kind}")
    exported = downloads(f"review.{kind}")
    features = read_export(exported)
    said = {row["site"]: row for row in features if row["tile_id"] == row["site"]}
    assert [said[site]["verdict"] for site in sites(out)[:3]] == ["yes", "no", "unsure"]
    record = ReviewRecord(tmp_path / "record.geojson", read_data(out))
    for site, row in said.items():
        note = row["note"].removeprefix("'")
        record.put(
            ReviewDecision(site=site, verdict=row["verdict"], note=note, reviewer=row["reviewer"], time=row["time"])
        )
    if kind == "geojson":
        expected = json.loads(record.text())["features"]
        assert json.loads(exported.read_text())["features"] == sorted(
            expected, key=lambda f: sites(out).index(f["properties"]["site"])
        )
    else:
        assert said[sites(out)[0]]["note"] == '\'=HYPERLINK(1)\n"two" lines'
    page(out)
    assert text(browser, "progress").startswith("0 of 30")
    browser.execute_script("document.getElementById('more').open = true")
    browser.find_element(By.ID, "import").send_keys(str(exported))
    wait_for(browser, lambda: text(browser, "alert") == f"review.{kind}: 3 added.")
    assert text(browser, "progress") == "3 of 30 reviewed: 1 yes, 1 no, 1 unsure"
    press(browser, Keys.ARROW_UP * 5)
    assert browser.find_element(By.ID, "note").get_property("value") == '=HYPERLINK(1)\n"two" lines'


def read_export(path):
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    return [feature["properties"] for feature in json.loads(path.read_text())["features"]]


@pytest.mark.parametrize("kind", ["geojson", "csv"])
def test_assemble_takes_what_is_exported(browser, page, out, downloads, kind, tmp_path):
    page(out)
    press(browser, "yny")
    press_button(browser, f"export-{kind}")
    labels = tmp_path / "labels.csv"
    labels.write_text("lon,lat\n23.0,45.9\n")
    config = AssembleConfig(
        labels=labels, label="school", imagery="unused", zoom=Z, out=tmp_path / "out",
        negatives_review=downloads(f"review.{kind}"), negatives_review_weight=2,
    )  # fmt: skip
    planned = {f"{Z}/{row['x']}/{row['y']}": row for row in plan_tiles(config).tiles.to_pylist()}
    first, second, third = sites(out)[:3]
    assert [planned[site]["label"] for site in (first, second, third)] == ["school", "not-school", "school"]
    assert planned[second]["weight"] == 2
    assert sum(row["label"] == "not-school" for row in planned.values()) == 3


def test_an_older_file_doesnt_overwrite_and_a_wrong_one_is_told(browser, page, out, tmp_path):
    page(out)
    press(browser, "y")
    older = ReviewRecord(tmp_path / "older.geojson", read_data(out))
    for site, verdict in zip(sites(out)[:2], ("no", "no"), strict=True):
        older.put(ReviewDecision(site=site, verdict=verdict, time="2020-01-01T00:00:00.000Z"))
    features = json.loads(older.text())
    features["features"].append({"properties": {"tile_id": "18/1/1", "site": "18/1/1", "verdict": "no"}})
    (tmp_path / "older.geojson").write_text(json.dumps(features))
    browser.execute_script("document.getElementById('more').open = true")
    browser.find_element(By.ID, "import").send_keys(str(tmp_path / "older.geojson"))
    wait_for(browser, lambda: "1 added" in text(browser, "alert"))
    told = text(browser, "alert")
    assert "1 are older than what is here, which is kept" in told and "1 are of tiles that are no candidates" in told
    assert text(browser, "progress") == "2 of 30 reviewed: 1 yes, 1 no, 0 unsure"
    (tmp_path / "wrong.csv").write_text("a,b\n1,2\n")
    browser.find_element(By.ID, "import").send_keys(str(tmp_path / "wrong.csv"))
    wait_for(browser, lambda: "wrong.csv can't be imported: it has no column tile_id" in text(browser, "alert"))


def test_filters_narrow_the_list_and_deciding_goes_on_inside_them(browser, page, out):
    page(out)
    press(browser, "yn")
    choose(browser, "by-verdict", "none")
    assert text(browser, "matching") == "28 of 30 candidates"
    press(browser, "u")
    assert text(browser, "matching") == "27 of 30 candidates" and title(browser) == "Candidate 4 of 30"
    choose(browser, "by-verdict", "no")
    assert text(browser, "matching") == "1 of 30 candidates" and title(browser) == "Candidate 2 of 30"
    choose(browser, "by-verdict", "")
    choose(browser, "from-score", "0.9")
    kept = sum(score >= 0.9 for score in read_data(out).score)
    assert text(browser, "matching") == f"{kept} of 30 candidates"
    choose(browser, "from-score", "0.999")
    assert title(browser) == "No candidate fits the filters"
    press(browser, "y")
    assert text(browser, "progress").startswith("3 of 30")


def test_thousands_of_candidates_keep_the_page_small(browser, page, many):
    folder, count = many
    page(folder)
    nodes = browser.execute_script("return document.querySelectorAll('*').length")
    assert nodes < 400
    assert text(browser, "matching") == f"{count:,} of {count:,} candidates"
    press(browser, "yn" + Keys.ARROW_DOWN)
    assert title(browser) == f"Candidate 4 of {count:,}"
    browser.execute_script("const l = document.getElementById('list'); l.scrollTop = l.scrollHeight")
    name = f"candidate-{count - 1}"
    wait_for(browser, lambda: browser.execute_script(f"return !!document.getElementById('{name}')"))
    last = browser.find_element(By.ID, name)
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == str(count)
    last.click()
    assert title(browser) == f"Candidate {count:,} of {count:,}"
    assert browser.find_element(By.ID, "list").get_attribute("aria-activedescendant") == name
    assert browser.execute_script("return document.querySelectorAll('*').length") < 400
    # The map is one canvas, on which candidates that fall together are drawn once.
    assert len(browser.find_elements(By.CSS_SELECTOR, "#map canvas")) == 1
    choose(browser, "from-score", "0.9")
    assert text(browser, "matching").endswith(f"of {count:,} candidates")


def test_a_click_on_the_map_chooses_what_is_there(browser, page, out):
    page(out)
    script = """
      const canvas = document.querySelector('#map canvas');
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const found = [];
      for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at] === 11 && pixels[at + 1] === 99 && pixels[at + 2] === 176 && pixels[at + 3] === 255)
          found.push([(at / 4) % canvas.width, Math.floor(at / 4 / canvas.width)]);
      const box = canvas.getBoundingClientRect();
      return found.map(([x, y]) => [x + box.left, y + box.top])"""
    blue = np.array(browser.execute_script(script))
    assert len(blue) > 100
    lowest = blue[blue[:, 1].argmax()]
    click = """
      const [clientX, clientY] = arguments;
      const target = document.elementFromPoint(clientX, clientY);
      for (const type of ['mousedown', 'mouseup', 'click'])
        target.dispatchEvent(new MouseEvent(type, {bubbles: true, clientX, clientY}));"""
    browser.execute_script(click, *lowest.tolist())
    chosen = int(title(browser).split()[1]) - 1
    data = read_data(out)
    assert data.y[chosen] == max(data.y)


def test_on_a_phone_one_part_is_shown_at_a_time_and_buttons_are_in_reach(browser, page, out):
    page(out, 390)
    parts = {name: browser.find_element(By.CSS_SELECTOR, f".{name}-pane") for name in ("candidate", "list", "map")}
    for name in ("list", "map", "candidate"):
        browser.find_element(By.CSS_SELECTOR, f"[data-show={name}]").click()
        assert [part for part, element in parts.items() if element.is_displayed()] == [name]
    for verdict in ("yes", "no", "unsure"):
        button = browser.find_element(By.CSS_SELECTOR, f"[data-verdict={verdict}]")
        box = button.rect
        assert box["height"] >= 44 and box["y"] + box["height"] <= 900
        button.click()
    assert text(browser, "progress") == "3 of 30 reviewed: 1 yes, 1 no, 1 unsure"


def test_everything_that_is_operated_has_a_name_and_shows_its_focus(browser, page, out):
    page(out)
    browser.execute_script("document.getElementById('more').open = true")
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    operated = {"button", "combobox", "textbox", "spinbutton", "listbox", "option", "link", "progressbar", "image"}
    nodes = [node for node in tree if not node["ignored"] and node.get("role", {}).get("value") in operated]
    nameless = [node["role"]["value"] for node in nodes if not node.get("name", {}).get("value", "").strip()]
    assert len(nodes) > 25 and nameless == []
    browser.find_element(By.CSS_SELECTOR, ".skip").send_keys(Keys.TAB)
    outline = "return getComputedStyle(document.activeElement).outlineWidth"
    assert browser.execute_script(outline) == "3px"


def test_texts_have_the_contrast_that_wcag_asks_for(browser, page, out):
    page(out)
    press(browser, "ynu")
    # Of WCAG 2.2: relative luminance and contrast ratio.
    script = """
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const back = (e) => {
        for (; e; e = e.parentElement) {
          const colour = rgb(getComputedStyle(e).backgroundColor);
          if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
      };
      const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
      const poor = [];
      let seen = 0;
      for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.checkVisibility() || e.matches(':disabled, :disabled *, option, script')) continue;
        seen++;
        const [one, other] = [light(rgb(getComputedStyle(e).color)), light(back(e))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) poor.push([e.outerHTML.slice(0, 80), ratio]);
      }
      return [seen, poor]"""
    seen, poor = browser.execute_script(script)
    assert seen > 50 and poor == []


def test_names_from_the_data_are_shown_and_never_run(browser, page, tmp_path):
    from sat_xception.publish.publish import publish
    from sat_xception.publish.settings import PublishConfig
    from tests.scores import write_scores

    nasty = '<img src=x onerror="document.title=1"></script><script>document.title=1</script>'
    tiles = {(148_000, 93_000, Z): 0.9}
    write_scores(tmp_path / "scores", tiles, classes=("no", nasty), imagery={"url": "", "attribution": nasty})
    published = publish(PublishConfig(scores=tmp_path / "scores", out=tmp_path / "out")).out
    _, complaints = page(published)
    assert complaints == []
    assert browser.title == f"Review candidates for {nasty}"
    assert browser.find_element(By.TAG_NAME, "h1").text == f"Candidates for {nasty}"
    assert text(browser, "attribution") == f"Imagery: {nasty}"


def in_file(out):
    features = json.loads((out / "review.geojson").read_text())["features"]
    return {row["tile_id"]: row["verdict"] for row in (each["properties"] for each in features)}


@pytest.fixture
def server(out):
    (out / "review.geojson").unlink(missing_ok=True)
    with serving(out) as address:
        yield address


def test_the_server_has_every_decision_as_it_is_made(browser, page, out, server):
    page(server)
    press(browser, "yn")
    wait_for(browser, lambda: text(browser, "saved") == "Saved to review.geojson")
    first, second = sites(out)[:2]
    said = in_file(out)
    assert (said[first], said[second], len(said)) == ("yes", "no", 4)
    press(browser, "z")
    wait_for(browser, lambda: in_file(out) == {first: "yes"})
    browser.execute_script("localStorage.clear()")
    page(server)
    wait_for(browser, lambda: text(browser, "progress") == "1 of 30 reviewed: 1 yes, 0 no, 0 unsure")


def test_what_somebody_else_decided_is_told_and_not_overwritten(browser, page, out, server):
    page(server)
    site = sites(out)[0]
    wait_for(browser, lambda: text(browser, "saved") == "Saved to review.geojson")
    # Another browser, which this one doesn't hear from.
    other = {"site": site, "verdict": "no", "reviewer": "Ana", "base": ""}
    send = """
      const headers = {'Content-Type': 'application/json'};
      return fetch('api/decisions', {method: 'POST', headers, body: arguments[0]}).then((answer) => answer.status)"""
    assert browser.execute_script(send, json.dumps({"decisions": [other]})) == 200
    press(browser, "y")
    wait_for(browser, lambda: "it is “no” by Ana. Your “yes” wasn't saved" in text(browser, "alert"))
    assert in_file(out) == {site: "no"}
    press(browser, Keys.ARROW_UP)
    press(browser, "y")
    wait_for(browser, lambda: in_file(out) == {site: "yes"})


def test_a_second_tab_shows_what_the_first_decides(browser, page, out, server):
    page(server)
    first = browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        page(server)
        second = browser.current_window_handle
        browser.switch_to.window(first)
        press(browser, "y")
        wait_for(browser, lambda: text(browser, "saved") == "Saved to review.geojson")
        browser.switch_to.window(second)
        wait_for(browser, lambda: text(browser, "progress").startswith("1 of 30"))
        press(browser, Keys.ARROW_UP)
        press(browser, "n")
        wait_for(browser, lambda: in_file(out) == {sites(out)[0]: "no"})
        assert not browser.find_element(By.ID, "alert").is_displayed()
    finally:
        browser.close()
        browser.switch_to.window(first)


def test_without_the_server_decisions_wait_in_the_browser_and_are_sent_when_it_is_back(browser, page, out):
    (out / "review.geojson").unlink(missing_ok=True)
    with serving(out) as address:
        page(address)
        wait_for(browser, lambda: text(browser, "saved") == "Saved to review.geojson")
    press(browser, "y")
    wait_for(browser, lambda: "1 kept here; trying again" in text(browser, "saved"))
    assert text(browser, "progress").startswith("1 of 30")
    with serving(out, int(address.rstrip("/").rpartition(":")[2])):
        wait_for(browser, lambda: text(browser, "saved") == "Saved to review.geojson")
        assert in_file(out) == {sites(out)[0]: "yes"}


def test_pictures_and_a_map_of_a_server_are_allowed_and_named(browser, page, tmp_path):
    with TileServer([encode(draw_tile("school", 1))]) as tiles:
        settings = {"imagery": tiles.template, "basemap": tiles.template, "basemap_attribution": "Map <makers>"}
        published = publish_tiles(tmp_path, singles(3), pictures=False, **settings)
        with serving(published) as address:
            page(address)
            loaded = "return [...document.querySelectorAll('#tiles img')].map(image => image.naturalWidth)"
            wait_for(browser, lambda: browser.execute_script(loaded) == [48])
            on_map = "return [...document.querySelectorAll('.leaflet-tile')].some(image => image.naturalWidth)"
            wait_for(browser, lambda: browser.execute_script(on_map))
            assert "Map <makers>" in browser.find_element(By.CSS_SELECTOR, ".leaflet-control-attribution").text
            assert "Map: Map <makers>" in text(browser, "attribution")
            browser.get("about:blank")
