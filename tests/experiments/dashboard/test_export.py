"""The export: whole or not at all, opened from disk without any network, every figure drawn, overlays in register."""

import json

import numpy as np
import pytest
import synthetic_run
from axe_playwright_python.sync_playwright import Axe

from experiments.dashboard.export import MARKER, export_static
from experiments.dashboard.page import Column, FeatureTable, Link
from experiments.dashboard.site import SECTIONS
from mechinterp.errors import ConfigError, DiskError

AXE = {"resultTypes": ["violations"], "preload": False}
"""Axe would fetch the style sheet, which the page's own policy forbids."""

SLUGS = [*SECTIONS, "ablation/sae-zero", "feature/3", "feature/80"]


class Counting:
    def __init__(self):
        self.seen = []

    def track(self, items, description, total=None):
        for item in items:
            self.seen.append(item)
            yield item

    def note(self, text):
        pass


def test_the_export_holds_every_page_and_the_pictures_that_results_name(exported, pages):
    folder = exported.parent
    assert exported.name == "index.html"
    for slug in pages:
        assert (folder / "pages" / f"{slug}.js").is_file()
    assert len(list((folder / "images").iterdir())) == synthetic_run.N
    assert not (folder / "results.json").exists()


def test_no_address_stands_in_what_is_ours(exported):
    for file in exported.parent.rglob("*"):
        if file.suffix in {".html", ".css", ".js"} and file.name != "plotly.min.js":
            assert "://" not in file.read_text(encoding="utf-8"), file.name


def test_progress_is_told_of_every_page(run_dir, tmp_path, pages):
    progress = Counting()
    export_static(run_dir, tmp_path / "out", progress)
    assert progress.seen == list(pages)


def test_an_earlier_export_is_replaced_and_anything_else_is_not(run_dir, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    export_static(run_dir, out)
    (out / "pages" / "stale.js").write_text("old")
    export_static(run_dir, out)
    assert not (out / "pages" / "stale.js").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is no export of pages"):
        export_static(run_dir, foreign)
    assert (foreign / "thesis.txt").read_text() == "precious"


def test_a_failed_export_leaves_the_earlier_one_whole(run_dir, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export_static(run_dir, out)
    before = (out / MARKER).read_text()

    def full(*_args, **_keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("experiments.dashboard.export.shutil.copyfile", full)
    with pytest.raises(DiskError, match="No space left"):
        export_static(run_dir, out)
    assert (out / MARKER).read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_without_results_makes_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r"has no results\.json"):
        export_static(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.browser
def test_every_page_opens_from_disk_with_every_figure_and_no_complaint(tab, exported, pages):
    tab.page.goto(exported.as_uri())
    for slug in SLUGS:
        tab.go(slug)
        assert tab.page.locator("h1").inner_text() == pages[slug].title
        assert tab.page.locator("[data-figure]").count() == len(pages[slug].figures())
        for place in tab.page.locator("[data-figure]").all():
            assert place.locator("svg.main-svg").count() >= 1
        assert "Research use only" in tab.page.locator("main").inner_text()
        assert tab.page.evaluate("Array.from(document.images).every(i => i.complete ? i.naturalWidth > 0 : true)")
        found = Axe().run(tab.page, options=AXE).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in {"serious", "critical"}] == []
    assert tab.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.requested)


@pytest.mark.browser
def test_the_first_text_is_there_before_plotly(tab, exported):
    tab.page.goto(exported.as_uri())
    tab.page.wait_for_selector("h1")
    assert tab.page.evaluate("document.documentElement.lang") == "en"
    assert tab.page.title() == "Why a healthy brain is called “meningioma”"
    text, drawn = tab.page.evaluate(
        """() => new Promise(done => {
            const wait = () => document.body.dataset.drawn ? done([
                performance.getEntriesByName('first-contentful-paint')[0].startTime, performance.now()]) : setTimeout(wait, 20);
            wait(); })"""
    )
    assert text < drawn


@pytest.mark.browser
def test_the_overlay_lies_on_the_picture_to_a_pixel(tab, exported, results):
    """A cell's rectangle on the screen, read from the drawn elements, against the millimetres it was measured in."""
    tab.page.goto(exported.as_uri())
    tab.go("feature/3")
    top = results["features"][0]["top"][0]
    measured = tab.page.evaluate(
        """() => {
            const plot = document.querySelector('[data-figure]');
            const box = node => { const b = node.getBoundingClientRect(); return [b.top, b.left, b.height, b.width]; };
            const heat = plot.querySelector('.heatmaplayer image');
            return {picture: box(plot.querySelector('.imagelayer image')), heat: box(heat),
                    source: heat.getAttribute('href') || heat.getAttribute('xlink:href'),
                    bar: box(plot.querySelector('.shapelayer path:last-child'))};
        }"""
    )
    row0, column0, height, width = measured["picture"]
    mm = height / synthetic_run.HEIGHT_MM
    assert width / synthetic_run.WIDTH_MM == pytest.approx(mm, rel=0.005)  # one aspect
    first, step = np.array(synthetic_run.CENTRE_MM), np.array(synthetic_run.STEP_MM)
    expected = np.array([row0, column0]) + (first - step / 2) * mm
    np.testing.assert_allclose(measured["heat"][:2], expected, atol=1.5)
    np.testing.assert_allclose(measured["heat"][2:], 15 * step * mm, atol=2)
    assert measured["bar"][3] / mm == pytest.approx(50, abs=50 * 0.02 + 4 / mm)

    # The drawn pixels themselves: where the heatmap's picture is brightest is the cell with the highest value.
    peak = np.unravel_index(np.argmax(np.array(top["map"])), (15, 15))
    painted = tab.page.evaluate(
        """source => new Promise(done => { const image = new Image(); image.onload = () => {
            const canvas = document.createElement('canvas'); canvas.width = image.width; canvas.height = image.height;
            const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
            done([image.height, image.width, Array.from(context.getImageData(0, 0, image.width, image.height).data)]);
        }; image.src = source; })""",
        measured["source"],
    )
    rows, columns, data = painted
    pixels = np.array(data, dtype=float).reshape(rows, columns, 4)
    alpha, green = pixels[..., 3], pixels[..., 1]
    brightest = np.argwhere((alpha > 0) & (green > green[alpha > 0].max() - 1))
    cell = np.floor(np.median(brightest, axis=0) / [rows / 15, columns / 15]).astype(int)
    assert tuple(cell) == tuple(peak)
    shown = np.unique(np.floor(np.argwhere(alpha > 0) / [rows / 15, columns / 15]).astype(int), axis=0)
    assert len(shown) == np.count_nonzero(top["map"])


@pytest.mark.browser
def test_the_slider_shows_the_picture_under_every_overlay(tab, exported):
    tab.page.goto(exported.as_uri())
    tab.go("feature/3")
    slider = tab.page.get_by_label("Overlay opacity")
    slider.focus()
    slider.press("Home")
    shown = "() => Array.from(document.querySelectorAll('.heatmaplayer image')).map(i => i.style.opacity || i.getAttribute('opacity'))"
    assert set(
        tab.page.evaluate(
            "() => Array.from(document.querySelectorAll('.js-plotly-plot'))"
            ".filter(p => p.data[0].type === 'heatmap').map(p => p.data[0].opacity)"
        )
    ) == {0}
    assert set(tab.page.evaluate(shown)) <= {"0", None}
    assert tab.problems == []


@pytest.mark.browser
def test_the_index_searches_filters_sorts_and_leads_to_a_feature(tab, exported, pages):
    tab.page.goto(exported.as_uri() + "#/features")
    table = next(b for b in pages["features"].blocks if isinstance(b, FeatureTable))
    page = tab.page
    page.wait_for_selector(".feature-table tbody tr")

    def shown():
        return page.locator(".feature-table tbody th").all_inner_texts()

    def expected(**selection):
        return [row[0].text for row in table.select(**selection)]

    assert shown() == expected()
    page.get_by_role("button", name="ρ discovery").click()
    assert shown() == expected(sort=2, descending=True)
    page.get_by_role("button", name="ρ discovery").press("Enter")
    assert shown() == expected(sort=2, descending=False)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.get_by_label("Search").fill("GREY")
    assert shown() == expected(search="grey", sort=2, descending=False)
    page.get_by_label("Search").fill("")
    page.get_by_label("best attribute").select_option("brain area")
    assert shown() == expected(filters={1: "brain area"}, sort=2, descending=False)
    page.locator(".feature-table tbody a").first.click()
    page.wait_for_function("() => (document.body.dataset.drawn || '').startsWith('feature/')")
    assert page.evaluate("document.activeElement.id") == "title"
    page.go_back()
    page.wait_for_selector(".feature-table tbody tr")
    assert shown() == expected(filters={1: "brain area"}, sort=2, descending=False)
    assert tab.problems == []


@pytest.mark.browser
def test_an_unknown_address_gets_a_friendly_page(tab, exported):
    tab.page.goto(exported.as_uri() + "#/feature/<img src=x onerror=alert(1)>")
    tab.page.wait_for_selector("h1")
    assert tab.page.locator("h1").inner_text() == "No such page"
    assert "<img src=x onerror=alert(1)>" in tab.page.locator("main").inner_text()
    tab.page.get_by_role("link", name="All features").click()
    tab.page.wait_for_selector(".feature-table")
    assert tab.problems == []


@pytest.mark.browser
def test_markup_from_results_is_shown_as_text(tab, tmp_path):
    attack = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    made = synthetic_run.results(n_features=1)
    made["title"] += attack
    made["images"]["ids"] = [attack] * synthetic_run.N
    made["model"]["class_names"][0] = attack
    made["images"]["attributes"][2]["name"] = made["features"][0]["best"]["attribute"] = attack
    made["claims"][0]["statement"] = attack
    out = export_static(synthetic_run.write_run(tmp_path / "run", made), tmp_path / "out")
    tab.page.goto(out.as_uri())
    for slug in ("overview", "features", "feature/3"):
        tab.go(slug)
        assert attack in tab.page.locator("main").inner_text()
    assert tab.page.evaluate("window.hacked === undefined")
    assert tab.problems == []


@pytest.mark.browser
def test_an_untrained_run_carries_its_banner_on_every_page(tab, tmp_path):
    run = synthetic_run.write_run(tmp_path / "run", synthetic_run.results(n_features=1, trained=False))
    tab.page.goto(export_static(run, tmp_path / "out").as_uri())
    for slug in (*SECTIONS, "feature/3"):
        tab.go(slug)
        assert "UNTRAINED" in tab.page.locator(".banner").inner_text()


@pytest.mark.browser
def test_pages_fit_a_narrow_screen_and_print_without_navigation(tab, exported):
    tab.page.set_viewport_size({"width": 420, "height": 800})
    tab.page.goto(exported.as_uri())
    tab.go("feature/3")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tab.page.emulate_media(media="print")
    assert not tab.page.locator("header nav").is_visible()
    assert tab.page.locator("h1").is_visible()


def test_a_feature_tables_json_holds_texts_and_keys():
    from experiments.dashboard.export import table_json

    table = FeatureTable(
        "t", (Column("f"), Column("p", form="p")), ((Link("feature 2", "feature/2"), 0.01), ("x", None))
    )
    made = table_json(table)
    assert made["rows"] == [["feature/2", ["feature 2", "0.010"], [2.0, 0.01]], ["", ["x", "–"], ["x", None]]]
    assert json.dumps(made)
