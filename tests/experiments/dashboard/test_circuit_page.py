"""The circuit's page in a real browser, from disk and without any network: text first, found by name, walked by keyboard."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from circuits.graph import Effect, FeatureGraph, GraphEdge, GraphNode
from experiments.dashboard.circuit_page import NodePicture, page_data, write_circuit_page

DOT = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EVIL = "<img src=x onerror=alert(1)>"


def node(site, index, kind="feature", effect=0.5, **more):
    name = f"{site} {kind} {index}"
    return GraphNode(
        f"{site}:{index}",
        site,
        index,
        kind,
        name,
        effect=Effect(effect, abs(effect), effect - 0.1, effect + 0.1),
        **more,
    )


def edge(source, target, size, slope=1.0):
    return GraphEdge(
        source,
        target,
        Effect(-size, size, -2 * size, 0.0),
        Effect(size / 2, size / 2, note="not estimable (n = 1)"),
        slope,
    )


@pytest.fixture(scope="module")
def graph():
    nodes = (
        node("early", 0, attribute="lesion area", unit="mm²"),
        node("early", 1, effect=-0.2),
        node("early", 2, attribute=EVIL),
        node("late", 0, self_repair=True),
        node("late", 1, "error"),
        GraphNode("metric", "metric", 0, "metric", "logit of tumour"),
    )
    edges = (
        edge("early:0", "late:0", 1.0), edge("early:1", "late:0", 0.5, -1.0), edge("early:2", "late:1", 0.05),
        edge("late:0", "metric", 0.9), edge("late:1", "metric", 0.2),
    )  # fmt: skip
    return FeatureGraph(nodes, edges, "logit of tumour", 2.0, {"trained": False})


@pytest.fixture(scope="module")
def path(graph, tmp_path_factory):
    pictures = {"early:0": [NodePicture(DOT, "image 3, value 2.1", (0.25, 0.5, 0.5, 0.75))]}
    words = {("early:0", "late:0"): "only in A"}
    return write_circuit_page(
        tmp_path_factory.mktemp("page") / "circuit.html", "A circuit", ["What can be said."], graph,
        pictures=pictures, columns_named={"early": "first layer"}, edge_words=words,
    )  # fmt: skip


def test_words_stand_in_the_file_before_any_script(path):
    page = path.read_text()
    text = page[: page.index("<script>")]
    assert text.index("UNTRAINED MODEL") < text.index("What can be said.") < text.index("lesion area [mm²]")
    assert "+0.5, size 0.5 (95 %: +0.4 to +0.6)" in text
    assert "not estimable (n = 1)" in text
    assert EVIL not in page
    assert 'src="http' not in page


def test_every_picture_is_held_once(graph):
    shown = {i: [NodePicture(DOT, "a"), NodePicture(DOT, "b")] for i in ("early:0", "early:1")}
    data = page_data(graph, shown, {}, {})
    assert data["pictures"] == [DOT]
    assert [p[1] for p in data["nodes"][1]["pictures"]] == ["a", "b"]
    assert [e["share"] for e in data["edges"]][:2] == [1.0, 0.9]


def test_names_are_whole_and_features_that_follow_one_quantity_told_apart(tab, tmp_path):
    long = "logit malignant − logit benign"
    follow = {"attribute": "area of all haemorrhages and exudates", "unit": "mm²"}
    nodes = (node("early", 3, **follow), node("early", 14, **follow), GraphNode("metric", "metric", 0, "metric", long))
    found = FeatureGraph(nodes, (edge("early:3", "metric", 1.0), edge("early:14", "metric", 0.5)), long, 2.0, {})
    tab.page.set_viewport_size({"width": 1280, "height": 900})
    tab.page.goto(write_circuit_page(tmp_path / "circuit.html", "A circuit", ["x"], found).as_uri())
    tab.page.wait_for_selector("g.node")
    cards = tab.page.eval_on_selector_all(
        "g.node", "all => all.map(g => [...g.querySelectorAll('text')].map(t => t.textContent).join(' '))"
    )
    assert any(long in card for card in cards)
    assert all("…" not in card for card in cards)
    assert [sum(f"feature {i} ·" in card and "exudates [mm²]" in card for card in cards) for i in (3, 14)] == [1, 1]
    # no text leaves its card
    assert tab.page.eval_on_selector_all(
        "g.node", "all => all.every(g => { const box = g.querySelector('.card').getBoundingClientRect();"
        " return [...g.querySelectorAll('text')].every(t => { const b = t.getBoundingClientRect();"
        " return b.right <= box.right && b.bottom <= box.bottom && b.top >= box.top; }); })"
    )  # fmt: skip


def test_effects_that_cancel_over_images_are_drawn_by_their_size(tmp_path):
    cancelled = tuple(
        GraphNode(f"a:{i}", "a", i, "feature", f"a feature {i}", effect=Effect(1e-9, 1.0 + i)) for i in range(2)
    )
    metric = GraphNode("metric", "metric", 0, "metric", "logit of x")
    found = FeatureGraph((*cancelled, metric), (edge("a:0", "metric", 1.0),), "logit of x", 2.0, {})
    page = write_circuit_page(tmp_path / "circuit.html", "A circuit", ["x"], found).read_text()
    assert "size of the effect on logit of x, mean over images" in page
    assert "the mean of them all has no sign" in page
    assert "waterfall" not in page[page.rindex("<script>") :].lower()


@pytest.fixture
def open_page(tab, path):
    tab.page.goto(path.as_uri())
    tab.page.wait_for_selector("#figure-0 .main-svg")
    yield tab.page
    assert tab.problems == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.requested)


def shown(page):
    return sorted(page.eval_on_selector_all("g.node", "all => all.map(n => n.dataset.id)"))


def test_nodes_are_searched_and_filtered(open_page):
    page = open_page
    assert len(shown(page)) == 6
    assert page.locator(".edge").count() == 5
    page.fill("#circuit-search", "lesion")
    assert shown(page) == ["early:0", "late:0"]  # with its neighbour, paler
    assert page.locator("g.node.context").count() == 1
    assert "1 of 6 nodes and 1 of 5 edges" in page.inner_text("#circuit-count")
    page.fill("#circuit-search", "")
    page.select_option("#circuit-layer", label="first layer")
    assert page.locator("g.node:not(.context)").count() == 3
    page.select_option("#circuit-layer", value="")
    page.fill("#circuit-least", "0.4")
    assert page.locator(".edge").count() == 3
    assert "early:2" not in shown(page)
    page.fill("#circuit-least", "0")
    page.select_option("#circuit-word", label="only in A")
    assert shown(page) == ["early:0", "late:0", "metric"]


def test_the_keyboard_walks_along_the_strongest_edges(open_page):
    page = open_page
    page.focus("g.node[tabindex='0']")
    assert "early feature 0" in page.inner_text("#circuit-details")
    assert page.locator("#circuit-details .picture .place").count() == 1
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") == "late:0"
    assert "self-repair" in page.inner_text("#circuit-details")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.id") == "metric"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.id") == "late:1"
    assert page.locator(".edge.dim").count() == 3
    page.keyboard.press("Escape")
    assert page.locator(".edge.dim").count() == 0
    assert page.locator("g.node[tabindex='0']").count() == 1  # one stop for Tab
    page.click("g.node[data-id='late:0']")
    page.click("#circuit-details button >> text=early feature 1")
    assert page.evaluate("document.activeElement.dataset.id") == "early:1"


def test_the_page_has_no_serious_fault_for_readers_who_cannot_see_it(open_page):
    open_page.click("g.node[data-id='early:0']")
    found = Axe().run(open_page, options={"resultTypes": ["violations"], "preload": False})
    serious = [v for v in found.response["violations"] if v["impact"] in {"serious", "critical"}]
    assert serious == [], [n["html"] for v in serious for n in v["nodes"]]
