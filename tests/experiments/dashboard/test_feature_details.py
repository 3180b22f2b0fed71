"""Further galleries, neighbours and seeds: against the obvious computation, kept until their parts change, shown or said to be absent."""

import json

import numpy as np
import pytest
import torch

from experiments.dashboard.desk.opening import DeskOfRun, encoder_of_run
from experiments.dashboard.feature_details import FILE, FORMAT, FeatureDetails, ensure_details
from experiments.dashboard.page import Details, FeatureTable, FigureBlock, Links, Table, Text, walk
from experiments.dashboard.run_view import RunView
from experiments.dashboard.site import Pages, build_pages
from mechinterp.store.reader import ActivationStore
from sparse_autoencoders import SparseAutoencoder
from sparse_autoencoders.stability import stability


@pytest.fixture(scope="session")
def detailed(made_run):
    view = RunView.read(made_run)
    return view, ensure_details(view, DeskOfRun(view))


def test_neighbours_are_the_nearest_directions(detailed):
    view, details = detailed
    directions = torch.nn.functional.normalize(encoder_of_run(view).directions, dim=1)
    cosine = (directions @ directions.T).fill_diagonal_(-2)
    for feature in (0, 7, len(directions) - 1):
        near = [pair.numbers() for pair in details[feature]["neighbours"].entries()]
        assert [n[0] for n in near] == cosine[feature].topk(6).indices.tolist()
        np.testing.assert_allclose([n[1] for n in near], cosine[feature].topk(6).values.detach(), atol=6e-4)


def test_recurrence_is_that_of_the_other_seed(detailed, made_run):
    view, details = detailed
    mine = encoder_of_run(view)
    every = [SparseAutoencoder.load(p.parent) for p in sorted((made_run / "saes").glob("*/cfg.json"))]
    (other,) = (sae for sae in every if sae.weights_hash != mine.weights_hash)
    expected = stability(mine, [other]).recurs_in
    assert details.others == 1
    assert [details[i]["recurs"].integer() for i in range(mine.width)] == expected.tolist()
    assert details.recurs(0) in {"0 of 1", "1 of 1"}


def test_relevance_orders_images_by_code_times_gradient(detailed, made_run):
    view, details = detailed
    desk, encoder = DeskOfRun(view).open(), encoder_of_run(view)
    store = ActivationStore.open(made_run / "activations")
    acts = store.read(encoder.site)
    gradient = desk.gradients(acts)
    with torch.no_grad():
        relevance = (encoder.encode(acts) * (gradient @ encoder.directions.T)).sum(1)
    assert details.objective == desk.objective.name
    seen = 0
    for feature in range(encoder.width):
        examples = details[feature]["relevance"].entries()
        values = [e["value"].number() for e in examples]
        assert values == sorted(values, reverse=True)
        for example in examples:
            assert example["value"].number() == pytest.approx(
                float(relevance[example["image"].integer(), feature]), rel=2e-2
            )
            seen += 1
    assert seen > 0


def test_details_are_kept_until_an_autoencoder_changes(own_run):
    view = RunView.read(own_run)
    (own_run / FILE).unlink(missing_ok=True)
    ensure_details(view, DeskOfRun(view))
    first = (own_run / FILE).stat().st_mtime_ns
    ensure_details(view, DeskOfRun(view))
    assert (own_run / FILE).stat().st_mtime_ns == first
    used = encoder_of_run(view).weights_hash
    for path in (own_run / "saes").glob("seed-*"):
        if SparseAutoencoder.load(path).weights_hash != used:
            (path / "cfg.json").unlink()
    details = ensure_details(view, DeskOfRun(view))
    assert details.others == 0
    assert details.recurs(0) is None


def test_a_run_without_parts_keeps_its_pages_and_says_what_was_not_run(results, run_dir):
    view = RunView(results, run_dir)
    details = ensure_details(view, DeskOfRun(view))
    assert not details[0]
    assert details.objective == ""
    said = [line for b in Pages(view)["feature/3"].blocks if isinstance(b, Text) for line in b.paragraphs]
    assert any("galleries by relevance and at random" in line for line in said)


def test_a_model_that_is_gone_costs_the_relevance_gallery_alone(own_run, monkeypatch):
    (own_run / FILE).unlink(missing_ok=True)
    from mechinterp.errors import ConfigError

    def gone(view):
        raise ConfigError("the model is gone")

    monkeypatch.setattr("experiments.dashboard.desk.opening.open_desk", gone)
    view = RunView.read(own_run)
    details = ensure_details(view, DeskOfRun(view))
    feature = next(i for i in range(40) if details[i]["random"].entries())
    assert details[feature]["relevance"].entries() == []
    assert details.objective == ""


def test_the_feature_page_shows_them_and_the_index_filters_by_them(detailed, made_run):
    view, details = detailed
    pages = Pages(view, stored_desks=0)
    feature = next(
        i for i in range(len(view.features)) if details[i]["random"].entries() and details[i]["relevance"].entries()
    )
    page = pages[view.feature_slugs[feature]]
    folded = [b for b in page.blocks if isinstance(b, Details)]
    assert [b.summary for b in folded] == ["Where it matters most", "Where it is merely active"]
    assert all(isinstance(b, FigureBlock) for b in walk(folded[0].blocks) if hasattr(b, "figure"))
    assert any(isinstance(b, Table) and b.caption.startswith("Nearest by direction") for b in page.blocks)
    table = next(b for b in pages["features"].blocks if isinstance(b, FeatureTable))
    names = [column.label for column in table.columns]
    offered = {"best attribute", "survives", "state", "strongest class", "recurs"}
    several = {name for i, name in enumerate(names) if len({row[i] for row in table.rows}) > 1}
    assert {names[i] for i in table.filters} == offered & several
    assert {"recurs", "strongest class"} <= set(names)
    recurring = table.select(filters={names.index("recurs"): "1 of 1"})
    assert len(recurring) == sum(details[i]["recurs"].integer() == 1 for i in range(len(view.features)))


def test_a_feature_leads_to_the_desk_of_its_strongest_image(made_run, results, run_dir):
    pages = Pages(RunView.read(made_run), live=True)
    index = next(i for i, f in enumerate(pages.view.features) if f["top"].entries())
    strongest = pages.view.features[index]["top"][0]["image"].integer()
    links = [link for b in pages[pages.view.feature_slugs[index]].blocks if isinstance(b, Links) for link in b.links]
    assert f"desk/{strongest}" in {link.slug for link in links}
    without = [
        link for b in build_pages(results, run_dir)["feature/3"].blocks if isinstance(b, Links) for link in b.links
    ]
    assert not any(link.slug.startswith("desk") for link in without)


def test_galleries_of_a_large_run_are_chosen_from_some_of_its_images(own_run, monkeypatch):
    (own_run / FILE).unlink(missing_ok=True)
    monkeypatch.setattr("experiments.dashboard.feature_details.MOST_IMAGES", 5)
    view = RunView.read(own_run)
    details = ensure_details(view, DeskOfRun(view))
    assert details.images == 5
    shown = {e["image"].integer() for i in range(40) for e in details[i]["random"].entries()}
    assert len(shown) <= 5
    feature = next(i for i in range(40) if details[i]["random"].entries())
    blocks = walk(Pages(view, stored_desks=0)[view.feature_slugs[feature]].blocks)
    said = [line for b in blocks if isinstance(b, Text) for line in b.paragraphs]
    assert any(line.startswith("Chosen from 5 of ") for line in said)


@pytest.mark.parametrize("changed", [{"format": 99}, {"store": "older"}, {"sae": "older"}])
def test_details_of_another_format_store_or_autoencoder_are_not_shown(run_dir, results, tmp_path, changed):
    made = {"format": FORMAT, "store": "s", "sae": "w", "features": [{"recurs": 1}], "others": 1}
    view = RunView({**results, "sae": {"weights_hash": "w"}, "provenance": {"store_hash": "s"}}, tmp_path)
    (tmp_path / FILE).write_text(json.dumps(made))
    assert FeatureDetails.read(view).others == 1
    (tmp_path / FILE).write_text(json.dumps({**made, **changed}))
    assert FeatureDetails.read(view).others == 0


@pytest.mark.browser
def test_folded_galleries_are_drawn_when_they_are_opened(tab, exported_made, detailed):
    view, details = detailed
    feature = next(i for i in range(len(view.features)) if details[i]["random"].entries())
    tab.page.goto(exported_made.as_uri())
    tab.go(view.feature_slugs[feature])
    fold = tab.page.locator("details", has_text="Where it is merely active")
    assert fold.locator("svg.main-svg").count() == 0
    fold.locator("summary").press("Enter")
    tab.page.wait_for_function(
        "n => document.querySelectorAll('details[open] .heatmaplayer').length === n",
        arg=len(details[feature]["random"].entries()),
    )
    assert fold.locator(".plot").first.bounding_box()["width"] > 150
    assert tab.problems == []


@pytest.mark.browser
def test_the_window_changes_the_pictures_greys_and_nothing_else(tab, exported_made, detailed):
    view, _ = detailed
    alive = next(slug for slug, f in zip(view.feature_slugs, view.features, strict=True) if f["alive"].flag())
    tab.page.goto(exported_made.as_uri())
    tab.go(alive)
    white = tab.page.get_by_label("White above")
    for _ in range(50):
        white.press("ArrowLeft")
    state = tab.page.evaluate(
        """() => { const f = document.querySelector('#picture-window feFuncR');
            const filter = node => getComputedStyle(node).filter;
            return [Number(f.getAttribute('slope')), Number(f.getAttribute('intercept')),
                filter(document.querySelector('.imagelayer image')), filter(document.querySelector('.heatmaplayer image'))]; }"""
    )
    assert state[:2] == [2.0, 0.0]
    assert "picture-window" in state[2]
    assert state[3] == "none"
    black = tab.page.get_by_label("Black below")
    black.press("End")
    assert int(white.input_value()) > int(black.input_value())
    tab.page.get_by_role("button", name="Whole range").click()
    assert white.input_value() == "100"
    assert tab.problems == []
