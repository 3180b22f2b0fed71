"""The desk in a browser: served, a slider reruns the model; exported, it looks up what was computed and says so."""

import json
import time

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from experiments.dashboard.access import OWN_HEADER
from experiments.dashboard.api import cautions
from experiments.dashboard.app import make_app
from experiments.dashboard.desk.desk import Desk
from experiments.dashboard.desk.moves import Move
from experiments.dashboard.desk.opening import DeskOfRun, encoder_of_run
from experiments.dashboard.export import export_static
from experiments.dashboard.page import Text, Widget, walk
from experiments.dashboard.run_view import RunView
from experiments.dashboard.site import Pages, build_pages
from mechinterp.errors import ConfigError, HashMismatchError
from mechinterp.store.reader import ActivationStore

AXE = {"resultTypes": ["violations"], "preload": False}
ANSWERED = "() => document.querySelector('.widget.desk').dataset.state === 'answered'"


@pytest.fixture(scope="session")
def live(made_run):
    return Pages(RunView.read(made_run), live=True)


@pytest.fixture(scope="session")
def client(made_run, token):
    made = make_app(made_run, token=token).server.test_client()
    made.get(f"/?token={token}")
    return made


def post(client, name, **asked):
    return client.post(f"/api/{name}", json=asked, headers={OWN_HEADER: "1"})


def words(page):
    return "\n".join(line for b in walk(page.blocks) if isinstance(b, Text) for line in b.paragraphs)


def test_the_desk_of_a_run_answers_as_the_captured_model_did(live, made_run):
    desk = live.desk.open()
    stored = ActivationStore.open(made_run / "activations").logits().numpy()
    for image in (0, 5):
        np.testing.assert_allclose(desk.before(image).logits, stored[image], rtol=1e-3, atol=1e-3)


def test_every_image_has_a_live_desk_and_an_export_has_a_few(live, made_run):
    n = live.view.n_images
    assert sum(slug.startswith("desk/") for slug in live) == n
    still = Pages(RunView.read(made_run), stored_desks=2)
    assert sum(slug.startswith("desk/") for slug in still) == 2
    assert "Precomputed" in words(still["desk"])
    assert "runs the model again" in words(live["desk"])
    assert len(still) == len(list(still))


def test_the_page_says_why_there_is_no_desk(results, run_dir, own_run):
    for pages in (build_pages(results, run_dir), build_pages(results, run_dir, live=True)):
        assert "No desk: the run's folder holds no activation store" in words(pages["desk"])
        assert "desk/0" not in pages
    cfg = next((own_run / "saes").glob("*/cfg.json"))
    for folder in cfg.parent.parent.glob("seed-*"):
        (folder / "cfg.json").rename(folder / "kept.json")
    assert "holds no autoencoder" in words(Pages(RunView.read(own_run))["desk"])
    with pytest.raises(ConfigError, match="holds no autoencoder"):
        encoder_of_run(RunView.read(own_run))


def test_a_model_that_is_gone_is_said_once_and_not_tried_again(own_run, monkeypatch):
    manifest = own_run / "activations" / "manifest.json"
    content = json.loads(manifest.read_text())
    opened = DeskOfRun(RunView.read(own_run))
    tried = []

    def gone(view):
        tried.append(view)
        raise ConfigError(f"{content['model']['spec']} is gone")

    monkeypatch.setattr("experiments.dashboard.desk.opening.open_desk", gone)
    for _ in range(2):
        with pytest.raises(ConfigError, match="is gone"):
            opened.open()
    assert len(tried) == 1
    pages = Pages(RunView.read(own_run), live=True)
    assert "is gone" in words(pages["desk/0"])
    assert "is gone" in words(Pages(RunView.read(own_run))["desk"])


def test_another_autoencoder_than_the_results_is_refused(own_run):
    results = json.loads((own_run / "results.json").read_text())
    results["sae"]["weights_hash"] = "0" * 64
    with pytest.raises(HashMismatchError, match="none of the autoencoders"):
        encoder_of_run(RunView(results, own_run))


def test_the_server_reruns_the_model_at_every_move(client, live, monkeypatch):
    desk = live.desk.open()
    unit = desk.proposals(3)[0]
    ran = []
    real = Desk.after

    def after(self, *args, **keywords):
        ran.append(args)
        return real(self, *args, **keywords)

    monkeypatch.setattr(Desk, "after", after)
    for value in (0.0, 2.5):
        answer = post(client, "desk", image=3, moves=[{"unit": unit.name, "how": "scale", "value": value}])
        assert answer.status_code == 200
        expected = real(desk, 3, [Move(unit.kind, unit.index, "scale", value)])
        np.testing.assert_allclose(answer.json["logits"], expected.logits, rtol=1e-3)
        assert answer.json["words"].startswith("The answer")
        assert answer.json["seconds"] < 1
    assert len(ran) == 2


@pytest.mark.parametrize(
    ("name", "asked", "says"),
    [
        ("desk", {"image": 0, "moves": [{"unit": "feature 99999", "how": "scale", "value": 1}]}, "there is no feature 99999"),
        ("desk", {"image": 999, "moves": []}, "there is no image 999"),
        ("desk", {"image": True, "moves": []}, "named by its number"),
        ("desk", {"image": "../../x", "moves": []}, "named by its number"),
        ("unit", {"image": 0, "unit": "<script>"}, "names no unit"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_said_in_one_line(client, name, asked, says):
    answer = post(client, name, **asked)
    assert answer.status_code == 400
    assert says in answer.json["error"]


def test_any_feature_can_be_taken_to_the_desk(client, live):
    answer = post(client, "unit", image=1, unit="channel 2").json
    assert answer["unit"] == "channel 2"
    assert answer["largest"] == pytest.approx(live.desk.open().unit(1, "channel", 2).largest, rel=1e-3)


def test_values_off_the_data_are_said_to_be_so(live):
    desk, view = live.desk.open(), live.view
    feature = next(u for u in desk.proposals(0) if u.kind == "feature")
    in_run = view.features[feature.index]["max"].number()
    above, inside = (Move("feature", feature.index, "set", share * in_run) for share in (2.0, 0.5))
    assert "off the data" in cautions(view, (above,), desk.after(0, [above]))[0]
    assert cautions(view, (inside,), desk.before(0)) == []
    times = Move("feature", above.index, "scale", 3.0)
    half_of_most = {times.unit: above.value / 2}
    assert "off the data" in cautions(view, (times,), desk.before(0), half_of_most)[0]
    assert cautions(view, (Move("feature", above.index, "scale", 1.0),), desk.before(0), half_of_most) == []
    huge = Move("channel", 0, "set", 1e6)
    assert cautions(view, (huge,), desk.after(0, [huge])) == [
        "The change is larger than the activation itself: off the data."
    ]


def test_stored_moves_stand_in_the_exported_page(made_run):
    pages = Pages(RunView.read(made_run), stored_desks=1)
    (slug,) = (s for s in pages if s.startswith("desk/"))
    (widget,) = (b for b in pages[slug].blocks if isinstance(b, Widget) and b.name == "desk")
    assert widget.config["live"] is False
    assert {u for entry in widget.config["stored"] for u in [entry["unit"]]} <= {
        u["unit"] for u in widget.config["units"]
    }
    assert "Precomputed" in words(pages[slug])


def bars(page):
    return page.evaluate("() => Array.from(mechinterpWidgets.plot('desk-answer').data[1].y)")


@pytest.mark.browser
def test_a_served_slider_moves_logits_words_and_map(online_tab, served_made):
    page = online_tab.page
    page.goto(f"{served_made}#/desk/0")
    page.wait_for_function("() => window.mechinterpWidgets && mechinterpWidgets.plot('desk-moved')")
    page.wait_for_function(ANSWERED)
    before = bars(page)
    row = page.locator(".desk-row").first
    slider = row.locator("input[type=range]")
    slider.focus()
    started = time.perf_counter()
    slider.press("Home")
    page.wait_for_function("() => document.querySelector('.desk-words').textContent.startsWith('The answer')")
    assert time.perf_counter() - started < 1.0
    assert bars(page) != before
    assert page.evaluate("() => mechinterpWidgets.plot('desk-moved').data[0].z.flat().some(v => v > 0)")
    assert "The model ran again" in page.locator(".desk-cautions").inner_text()
    page.get_by_role("button", name="Put everything back").click()
    page.wait_for_function("() => document.querySelector('.desk-words').textContent === 'Nothing is moved.'")
    np.testing.assert_allclose(bars(page), before, rtol=1e-3)
    row.locator("select").select_option("set")
    page.wait_for_function(ANSWERED)
    row.locator("input[type=number]").fill("1e6")
    row.locator("input[type=number]").press("Enter")
    page.wait_for_function("() => document.querySelector('.desk-cautions').textContent.includes('off the data')")
    found = Axe().run(page, options=AXE).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in {"serious", "critical"}] == []
    assert online_tab.problems == []


@pytest.mark.browser
def test_a_feature_is_added_by_its_number_and_another_image_gets_its_own_desk(online_tab, served_made):
    page = online_tab.page
    page.goto(f"{served_made}#/desk")
    page.locator(".thumbnails a").nth(1).click()
    page.wait_for_selector(".desk-row")
    rows = page.locator(".desk-row").count()
    page.get_by_label("Take to the desk").select_option("channel")
    number = page.locator("#desk-number")
    taken = {text.split(" largest")[0] for text in page.locator(".desk-row legend").all_text_contents()}
    free = next(i for i in range(16) if f"channel {i}" not in taken)
    number.fill(str(free))
    number.press("Enter")
    page.wait_for_function("n => document.querySelectorAll('.desk-row').length === n + 1", arg=rows)
    assert page.evaluate("document.activeElement.closest('.desk-row') !== null")
    first = page.locator("h1").inner_text()
    page.get_by_role("link", name="→").click()
    page.wait_for_function("was => document.querySelector('h1').textContent !== was", arg=first)
    page.wait_for_function("n => document.querySelectorAll('.desk-row').length <= n", arg=rows)
    assert online_tab.problems == []


@pytest.mark.browser
def test_an_exported_desk_looks_moves_up_and_says_that_they_are_precomputed(tab, exported_made):
    page = tab.page
    page.goto(exported_made.as_uri())
    tab.go("desk")
    assert "Precomputed" in page.locator("main").inner_text()
    page.locator(".thumbnails a").first.click()
    page.wait_for_function("() => (document.body.dataset.drawn || '').startsWith('desk/')")
    assert "Precomputed" in page.locator("main").inner_text()
    before = bars(page)
    sliders = page.locator(".desk-row input[type=range]")
    sliders.first.focus()
    sliders.first.press("Home")
    page.wait_for_function("() => document.querySelector('.desk-words').textContent.startsWith('The answer')")
    page.wait_for_function(ANSWERED)
    after = bars(page)
    assert after != before
    stored = json.loads(page.locator(".widget.desk").get_attribute("data-config"))
    first = next(e for e in stored["stored"] if e["how"] == "scale")
    assert first["values"][0] == 0
    assert after == pytest.approx([first["outcomes"][0]["logits"][c] for c in stored["outputs"]])
    sliders.nth(1).focus()
    sliders.nth(1).press("End")
    page.wait_for_function(ANSWERED)
    assert page.locator(".desk-row input[type=number]").first.input_value() == "1"  # one unit at a time
    found = Axe().run(page, options=AXE).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in {"serious", "critical"}] == []
    assert tab.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.requested)


def test_an_export_without_desks_loads_no_model(own_run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "experiments.dashboard.desk.opening.open_desk", lambda view: pytest.fail("the model was loaded")
    )
    out = export_static(own_run, tmp_path / "out", stored_desks=0)
    assert not (out.parent / "pages" / "desk").exists()
