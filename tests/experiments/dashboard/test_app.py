"""The served app: this machine only, one run only, the same pages, no complaint."""

import re
import socket
import urllib.error
import urllib.request

import pytest
from axe_playwright_python.sync_playwright import Axe
from dash import dcc, html

from experiments.dashboard.app import make_app, make_server, page_of, serve
from experiments.dashboard.components import first_state, table_body, table_state, to_dash
from experiments.dashboard.markup import element, page_elements
from experiments.dashboard.page import FeatureTable
from experiments.dashboard.site import SECTIONS
from mechinterp.errors import ConfigError

AXE = {"resultTypes": ["violations"], "preload": False}


@pytest.fixture(scope="session")
def client(run_dir, token):
    made = make_app(run_dir, token=token).server.test_client()
    assert made.get(f"/?token={token}").status_code == 302
    return made


@pytest.fixture(scope="session")
def index(pages):
    return next(block for block in pages["features"].blocks if isinstance(block, FeatureTable))


def components(root):
    found = [root]
    children = getattr(root, "children", None)
    for child in children if isinstance(children, list) else [children] if children is not None else []:
        found += components(child)
    return found


def test_only_pictures_of_the_run_are_served(client):
    assert client.get("/images/slice-001.png").status_code == 200
    for path in (
        "/images/../results.json",
        "/images/%2e%2e/results.json",
        "/results.json",
        "/images//etc/passwd",
        "/images/x.png",
    ):
        answer = client.get(path)
        assert answer.status_code == 404 or b"matched_probability" not in answer.data
        assert b'"question"' not in answer.data


def test_a_request_under_another_name_is_refused(client, token):
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    # this machine under its other name is let in, and asked for the token
    assert client.get(f"/?token={token}", headers={"Host": "[::1]:8050"}).status_code == 302


def test_any_name_is_answered_when_served_to_everyone(run_dir):
    client = make_app(run_dir, hosts=None, token="t").server.test_client()
    answer = client.get("/?token=t", headers={"Host": "ward-3"})
    assert answer.status_code == 302


def test_answers_forbid_the_browser_to_fetch_from_elsewhere(client):
    headers = client.get("/").headers
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    page = client.get("/").data.decode()
    assert '<html lang="en">' in page
    assert "://" not in page.replace('"http://127.0.0.1', "")


def test_a_taken_port_is_said_in_one_line(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*: choose another --port"):
            make_server(run_dir, port=port, token="t")


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused_before_anything_is_read(tmp_path, port):
    for start in (lambda: make_server(tmp_path, port=port, token="t"), lambda: serve(tmp_path, port=port)):
        with pytest.raises(ConfigError, match=f"--port is {port}: it must be 0 to 65535"):
            start()


def test_serving_says_its_address_and_stops_when_interrupted(run_dir, monkeypatch):
    from werkzeug.serving import BaseWSGIServer

    class Listening:
        notes = []

        def track(self, items, description, total=None):
            return items

        def note(self, text):
            self.notes.append(text)

    def interrupted(self, poll_interval=0.5):
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", interrupted)
    serve(run_dir, port=0, progress=Listening())
    assert re.match(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32} ", Listening.notes[-1])


def test_a_hash_leads_to_a_page_and_nothing_to_the_first(pages):
    assert page_of(pages, "#/feature/10").title == "Feature 10"
    assert page_of(pages, "").slug == page_of(pages, None).slug == "overview"
    assert page_of(pages, "#/feature/%3Cx%3E").title == "No such page"


def test_every_page_becomes_components_with_all_its_figures(pages):
    for slug in (*SECTIONS, "feature/3"):
        page = pages[slug]
        found = components(to_dash(page_elements(page)))
        assert sum(isinstance(c, dcc.Graph) for c in found) == len(page.figures())


def test_an_element_keeps_its_attributes_in_reacts_spelling():
    made = to_dash(element("div", "x", css="a", style="grid-template-columns: 1fr 2fr", aria_label="l", tabindex="0"))
    assert isinstance(made, html.Div)
    assert made.className == "a"
    assert made.style == {"gridTemplateColumns": "1fr 2fr"}
    assert getattr(made, "aria-label") == "l"
    assert made.tabIndex == "0"


def test_clicks_sort_filter_and_turn_pages(index):
    start = first_state(index)
    number = {"part": "table-sort", "column": 2}
    once = table_state(index, start, number)
    assert (once["sort"], once["descending"]) == (2, True)
    assert table_state(index, once, number)["descending"] is False
    assert table_state(index, start, {"part": "table-sort", "column": 1})["descending"] is False
    assert table_state(index, start, {"part": "table-page", "step": 1})["page"] == 1
    assert table_state(index, start, {"part": "table-page", "step": -1})["page"] == 0
    assert table_state(index, {**start, "page": 3}, "table-search")["page"] == 0
    filtered = table_state(index, start, {"part": "table-filter", "column": 1, "choice": 1})
    assert filtered["filters"] == {"1": index.choices(1)[0]}
    assert table_state(index, filtered, {"part": "table-filter", "column": 1, "choice": 0})["filters"] == {"1": ""}


def test_a_long_table_is_shown_page_by_page(index):
    long = FeatureTable(index.caption, index.columns, index.rows * 12, index.filters, page_rows=50)
    state = {**first_state(long), "page": 99}
    found = components(html.Div(table_body(long, "", state)))
    assert sum(isinstance(c, html.Tr) for c in found) == 1 + 144 - 100
    assert any(getattr(c, "children", None) == "144 of 144 · showing 101 to 144" for c in found)
    buttons = [c for c in found if isinstance(c, html.Button) and c.id.get("part") == "table-page"]
    assert [b.disabled for b in buttons] == [False, True]


def test_a_table_without_matches_says_zero(index):
    found = components(html.Div(table_body(index, "nothing like this", first_state(index))))
    assert any(str(getattr(c, "children", "")) == "0 of 12" for c in found)


@pytest.mark.browser
def test_served_pages_draw_every_figure_and_ask_this_machine_only(online_tab, served, pages):
    page, base = online_tab.page, served.partition("?")[0]
    page.goto(served)
    for slug in (*SECTIONS, "feature/10"):
        page.evaluate("slug => { location.hash = '#/' + slug; }", slug)
        page.wait_for_function(
            "title => (document.querySelector('h1') || {}).textContent === title", arg=pages[slug].title
        )
        wanted = len(pages[slug].figures())
        page.wait_for_function(
            "n => Array.from(document.querySelectorAll('.plot')).filter(p => p.querySelector('svg.main-svg')).length === n",
            arg=wanted,
        )
        found = Axe().run(page, options=AXE).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in {"serious", "critical"}] == []
    assert page.locator("a.current").count() == 1
    assert "Feature 10" in page.title()
    assert online_tab.problems == []
    assert all(url.startswith((base, "data:", "blob:")) for url in online_tab.requested)


@pytest.mark.browser
def test_the_served_index_searches_filters_and_sorts(online_tab, served, index):
    page = online_tab.page
    page.goto(f"{served}#/features")
    page.wait_for_selector(".feature-table tbody tr")

    def wait_for(**selection):
        texts = [row[0].text for row in index.select(**selection)]
        page.wait_for_function(
            "texts => JSON.stringify(Array.from(document.querySelectorAll('.feature-table tbody th'))"
            ".map(th => th.textContent)) === JSON.stringify(texts)",
            arg=texts,
        )

    wait_for()
    page.get_by_role("button", name="ρ discovery").click()
    wait_for(sort=2, descending=True)
    page.get_by_role("button", name="grey matter").click()
    wait_for(sort=2, descending=True, filters={1: "grey matter"})
    page.get_by_label("Search").fill("does not")
    wait_for(search="does not", sort=2, descending=True, filters={1: "grey matter"})
    page.locator(".feature-table tbody a").first.click()
    page.wait_for_function("() => document.activeElement.id === 'title'")
    assert online_tab.problems == []


@pytest.mark.browser
def test_the_served_slider_shows_the_picture_under_every_overlay(online_tab, served):
    page = online_tab.page
    page.goto(f"{served}#/feature/3")
    page.wait_for_function("() => document.querySelectorAll('.heatmaplayer image').length === 6")
    page.get_by_label("Overlay opacity").press("Home")
    page.wait_for_function(
        "() => Array.from(document.querySelectorAll('.js-plotly-plot')).filter(p => p.data[0].type === 'heatmap')"
        ".every(p => p.data[0].opacity === 0)"
    )
    assert online_tab.problems == []


@pytest.mark.browser
def test_a_served_address_that_leads_nowhere_is_friendly(online_tab, served):
    page = online_tab.page
    page.goto(f"{served}#/feature/<img src=x onerror=alert(1)>")
    page.wait_for_selector("h1")
    assert page.locator("h1").inner_text() == "No such page"
    assert "<img src=x onerror=alert(1)>" in page.locator("main").inner_text()
    assert online_tab.problems == []


def test_the_server_answers_on_loopback_only(served):
    with_cookies = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with with_cookies.open(served, timeout=20) as answer:
        assert answer.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(served, headers={"Host": "elsewhere.example"}), timeout=20)
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(served.partition("?")[0], timeout=20)
