"""Every page is built from any results: whole, spoiled in any place, hostile, untrained."""

import copy
import json
import time
from pathlib import Path

import plotly.graph_objects as go
import pytest
import synthetic_run
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.dashboard.export import payload
from experiments.dashboard.markup import draw, page_elements
from experiments.dashboard.page import (
    ClaimCard,
    Facts,
    FeatureTable,
    FigureBlock,
    Link,
    Links,
    Table,
    Text,
    Thumbnails,
    Verdict,
    walk,
)
from experiments.dashboard.pages.features import COLUMNS
from experiments.dashboard.pages.model import build as build_model_page
from experiments.dashboard.run_view import RunView, is_picture_of_run
from experiments.dashboard.site import SECTIONS, build_pages, missing_page
from mechinterp.errors import ConfigError, DamagedFileError

RUN_OF_NOTHING = Path("no such run")
SMALL = synthetic_run.results(n_features=2)


def words(page):
    """All text of a page, markup removed."""

    def texts(node):
        if isinstance(node, str):
            return [node]
        if isinstance(node, FigureBlock):
            return [node.alt]
        if isinstance(node, FeatureTable):
            return [c.text(cell) for row in node.rows for c, cell in zip(node.columns, row, strict=True)]
        return [t for child in node.children for t in texts(child)]

    return " ".join(texts(page_elements(page)))


def every_path(value, path=()):
    """Every place in a JSON value; of long lists the first two entries stand for all."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from every_path(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:2]):
            yield from every_path(inner, (*path, i))


def spoiled(value, path, replacement):
    made = copy.deepcopy(value)
    inner = made
    for step in path[:-1]:
        inner = inner[step]
    if replacement is KeyError:
        del inner[path[-1]]
    else:
        inner[path[-1]] = replacement
    return made


PATHS = list(every_path(SMALL))


def test_all_pages_are_there_and_built_only_when_asked(pages):
    assert list(pages)[: len(SECTIONS)] == list(SECTIONS)
    groups = ["ablation/neurons-reference", "ablation/sae-zero"]
    assert list(pages)[len(SECTIONS) :][:2] == groups
    assert len(pages) == len(SECTIONS) + 2 + 12 == len(list(pages))
    assert "feature/10" in pages
    assert "feature/11" not in pages
    with pytest.raises(KeyError):
        pages["feature/11"]


def test_ten_thousand_features_do_not_freeze_the_mapping(results, run_dir):
    many = {**results, "features": [{**results["features"][i % 12], "id": i} for i in range(10_000)]}
    start = time.perf_counter()
    pages = build_pages(many, run_dir)
    pages["feature/9999"]
    assert len(pages) == 10_000 + 2 + len(SECTIONS)
    assert time.perf_counter() - start < 2
    assert len(next(b for b in pages["features"].blocks if isinstance(b, FeatureTable)).rows) == 10_000


def test_plotly_accepts_every_figure(pages):
    """Figures are made without Plotly's checks; here they are run, over every page."""
    figures = [(slug, block.figure) for slug, page in pages.items() for block in page.figures()]
    assert len(figures) > 60
    for _slug, figure in figures[:70]:
        checked = go.Figure(figure.to_dict())
        assert checked.layout.template.layout.font.size == 13
        json.dumps(checked.to_plotly_json(), default=str)


def test_every_figure_has_words_that_stand_for_it(pages):
    for page in pages.values():
        for block in page.figures():
            assert len(block.alt) > 20
            assert block.caption


@pytest.mark.parametrize("slug", [*SECTIONS, "feature/10"])
def test_every_page_names_its_use_and_its_model(pages, slug):
    text = words(pages[slug])
    assert "Research use only" in text
    assert "onnx:brain_tumor.onnx" in text
    assert "UNTRAINED" not in text


def test_an_untrained_model_is_stamped_on_every_page_and_no_claim_is_met(run_dir):
    pages = build_pages(synthetic_run.results(n_features=1, trained=False), run_dir)
    for page in pages.values():
        assert "UNTRAINED" in words(page)
    cards = [block for block in walk(pages["overview"].blocks) if isinstance(block, ClaimCard)]
    assert cards
    assert all(card.verdict.word == "not met" for card in cards)


def test_results_that_do_not_say_whether_the_model_was_trained_say_so(run_dir):
    assert "not recorded" in words(build_pages({}, run_dir)["overview"])


def test_empty_results_read_not_run_on_every_page(tmp_path):
    pages = build_pages({}, tmp_path)
    assert list(pages) == list(SECTIONS)
    for page in pages.values():
        assert any(said in words(page) for said in ("not run", "No desk", "No note"))
        assert not page.figures()


@settings(max_examples=40, deadline=None)
@given(
    path=st.sampled_from(PATHS),
    replacement=st.sampled_from([KeyError, None, [], {}, "<b>text</b>", 7, -1.5, True, [[1], 2]]),
)
def test_a_spoiled_place_never_breaks_a_page(path, replacement):
    pages = build_pages(spoiled(SMALL, path, replacement), RUN_OF_NOTHING)
    for page in pages.values():
        assert payload(page)["html"]


def test_markup_in_any_text_stays_text(run_dir):
    attack = "<script>alert(1)</script>"

    def poison(value):
        if isinstance(value, dict):
            return {key: poison(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poison(inner) for inner in value]
        return value + attack if isinstance(value, str) and not value.startswith("images/") else value

    pages = build_pages(poison(SMALL), run_dir)
    for page in pages.values():
        made = payload(page)
        assert "<script" not in made["html"]
        figures = json.dumps(made["figures"], default=str)
        assert "<script" not in figures
    assert "&lt;script&gt;" in payload(pages["overview"])["html"]


def test_a_features_address_holds_only_safe_characters(run_dir):
    features = [{"id": "../../<x>"}, {"id": "<x>"}, {"id": None}, {"id": 5}, {"id": 5}]
    pages = build_pages({"features": features}, run_dir)
    slugs = [slug for slug in pages if slug.startswith("feature/")]
    assert slugs == ["feature/x", "feature/x-again", "feature/unnamed-2", "feature/5", "feature/5-again"]
    assert all(pages[slug].slug == slug for slug in slugs)


def test_a_page_shows_every_attribute_not_only_the_best(pages):
    table = next(b for b in walk(pages["feature/10"].blocks) if isinstance(b, Table) and "Every attribute" in b.caption)
    assert len(table.rows) == 3
    assert sum("(best)" in str(row[0]) for row in table.rows) == 1


def test_a_p_is_said_to_be_corrected_for_what_was_tested(results, run_dir):
    """Over patients only each feature's chosen attribute is tested: nothing was corrected for the other pairs."""
    of_patients = copy.deepcopy(results)
    for feature in of_patients["features"]:
        for record in feature["attributes"]:
            if record["attribute"] != feature["best"]["attribute"]:
                record["p_corrected"] = None
    pages = build_pages(of_patients, run_dir)
    (table,) = tables(pages["feature/10"], "Every attribute")
    assert [row[3] is not None for row in table.rows] == ["(best)" in str(row[0]) for row in table.rows]
    assert "p, of those that were tested, is corrected over all tested pairs" in table.caption
    assert "that were tested" in next(c.explanation for c in COLUMNS if c.heading == "p")


def tables(page, caption):
    return [block for block in walk(page.blocks) if isinstance(block, Table) and caption in block.caption]


def test_every_ablation_stands_beside_its_controls(pages, results):
    directions = results["experiment"]["directions"]
    for slug, of_page in [
        ("ablation", directions[:2]), ("ablation/neurons-reference", directions[2:3]), ("ablation/sae-zero", directions[3:])
    ]:  # fmt: skip
        made = tables(pages[slug], "tested size")
        assert len(made) == len(of_page)
        for table, direction in zip(made, of_page, strict=True):
            assert [row[0] for row in table.rows] == ["zero", "mean", "resample", "towards"]
            for row, curve in zip(table.rows, direction["curves"], strict=True):
                at = curve["sizes"].index(20)
                assert row[2] == curve["flipped"][at]
                assert "to" in row[3]
                assert row[7] == curve["notumor_delta"][at]


def test_all_sets_stand_in_one_table_with_ways_to_their_pages(pages):
    (glance,) = tables(pages["ablation"], "turned by the tested set")
    assert [row[0] for row in glance.rows] == [
        "SAE features",
        "SAE features",
        Link("raw channels", "ablation/neurons-reference"),
        Link("SAE features, ranked by zeroing", "ablation/sae-zero"),
    ]
    assert glance.rows[0][3] == "95 % (7.7 %)"
    assert "no small set does" in words(pages["ablation/neurons-reference"])


def test_quantities_that_a_study_records_besides_are_shown_at_every_size(pages):
    more = tables(pages["ablation"], "further numbers")[0]
    assert [column.label for column in more.columns[2:]] == ["notumor answers kept", "distance from usual tokens"]
    assert len(more.rows) == 4 * 7


def test_two_groups_that_read_alike_have_addresses_of_their_own(run_dir):
    made = copy.deepcopy(SMALL)
    for direction, kind in zip(made["experiment"]["directions"], ["sae", "a b", "a-b", ""], strict=True):
        direction["kind"] = kind
    pages = build_pages(made, run_dir)
    slugs = [slug for slug in pages if slug.startswith("ablation/")]
    assert len(slugs) == len(set(slugs)) == 3
    assert all(pages[slug].slug == slug for slug in slugs)


def test_findings_of_the_matrix_lead_to_their_features(pages):
    (found,) = tables(pages["attributes"], "after correction")
    assert found.rows[0][:2] == (Link("feature 10", "feature/10"), "slice position [mm]")
    assert tables(pages["attributes"], "Controls of the matrix")


def test_the_second_head_shows_its_sets_and_its_skull(pages):
    assert "called meningioma, with skull 4 of 80" in words(pages["preparation"])
    assert len(tables(pages["preparation"], "second head")[0].rows) == 2


def test_pictures_without_spacing_are_measured_in_pixels(run_dir):
    made = copy.deepcopy(SMALL)
    made["images"]["length_unit"] = "px"
    figure = build_pages(made, run_dir)["feature/3"].figures()[0]
    assert figure.figure.layout.annotations[0].text == "50 px"
    assert " px from the top" in figure.alt


@pytest.mark.parametrize(("word", "tone"), [("drives", "good"), ("no small set does", "bad"), ("not run", "caution")])
def test_the_verdict_is_the_results_own(run_dir, word, tone):
    made = copy.deepcopy(SMALL)
    made["experiment"]["verdict"]["word"] = word
    verdict = next(b for b in build_pages(made, run_dir)["ablation"].blocks if isinstance(b, Verdict))
    assert (verdict.word, verdict.tone) == (word, tone)


def test_an_unknown_verdict_of_a_claim_is_never_drawn_as_met(run_dir):
    made = copy.deepcopy(SMALL)
    made["claims"][1]["verdict"] = "probably"
    cards = [b for b in walk(build_pages(made, run_dir)["overview"].blocks) if isinstance(b, ClaimCard)]
    assert cards[1].verdict.tone == "caution"


def test_chosen_features_lead_to_their_pages_and_channels_do_not(pages):
    links = [b for b in walk(pages["ablation"].blocks) if isinstance(b, Links)]
    assert [link.slug for link in links[0].links][:2] == ["feature/3", "feature/10"]
    channels = [b for b in walk(pages["ablation/neurons-reference"].blocks) if isinstance(b, Links)]
    assert [link.slug for links in channels for link in links.links] == ["ablation", "ablation/sae-zero"]


def test_pictures_above_the_threshold_are_marked_with_their_band(pages, results):
    wall = next(b for b in walk(pages["overview"].blocks) if isinstance(b, Thumbnails))
    marked = [i for i, item in enumerate(wall.items) if item.mark]
    assert marked == results["target"]["positive"]
    assert {item.mark for item in wall.items} == {"", "lower", "upper"}


def test_images_without_position_are_sorted_by_the_class_in_question(run_dir):
    made = copy.deepcopy(SMALL)
    made["images"]["position"] = None
    block = build_pages(made, run_dir)["overview"].figures()[0]
    target = next(t for t in block.figure.data if "meningioma" in str(t.name))
    assert list(target.x) == list(range(1, len(target.x) + 1))
    assert list(target.y) == sorted(target.y)
    assert "sorted by the answer for meningioma" in block.alt
    assert not block.figure.layout.shapes or all(s.type != "rect" for s in block.figure.layout.shapes), "no bands"


def test_a_thousand_classes_leave_the_target_and_the_highest(run_dir):
    made = copy.deepcopy(SMALL)
    n = len(made["images"]["probabilities"])
    made["model"]["class_names"] = [f"class {i}" for i in range(1000)]
    made["images"]["probabilities"] = [[0.9 if i == 700 else 0.0001 for i in range(1000)] for _ in range(n)]
    made["target"] |= {"class": "class 5", "reference": "class 900"}
    names = [trace.name for trace in build_pages(made, run_dir)["overview"].figures()[0].figure.data]
    assert len(names) == 6
    assert {"class 5", "class 900", "class 700"} <= set(names)


def test_a_replication_that_is_not_installed_says_so(run_dir):
    made = {**SMALL, "replication": {"name": "ch2", "present": False}}
    assert "ch2 is not installed" in words(build_pages(made, run_dir)["preparation"])


def test_a_matrix_may_be_written_either_way_round(run_dir):
    made = copy.deepcopy(SMALL)
    straight = build_pages(made, run_dir)["attributes"].figures()[-1].figure.data[0].z
    made["matrix"]["rho"] = [list(row) for row in zip(*made["matrix"]["rho"], strict=True)]
    turned = build_pages(made, run_dir)["attributes"].figures()[-1].figure.data[0].z
    assert straight == turned
    assert len(straight) == 3


def test_a_feature_without_picture_or_map_says_so(tmp_path, run_dir):
    assert "was not kept" in words(build_pages(SMALL, tmp_path)["feature/3"])
    made = copy.deepcopy(SMALL)
    made["features"][0]["top"][0]["map"] = None
    assert "no map was kept" in words(build_pages(made, run_dir)["feature/3"])


def test_each_image_may_have_its_own_grid(run_dir):
    made = copy.deepcopy(SMALL)
    one = {"centre_mm_first": [1.0, 2.0], "step_mm": [3.0, 4.0]}
    made["grid"] = {"rows": 15, "columns": 15, "per_image": [one] * synthetic_run.N}
    heat = build_pages(made, run_dir)["feature/3"].figures()[0].figure.data[0]
    assert (heat.y0, heat.x0, heat.dy, heat.dx) == (1, 2, 3, 4)


def test_a_dead_feature_says_so(run_dir):
    made = copy.deepcopy(SMALL)
    made["features"][0]["alive"] = False
    pages = build_pages(made, run_dir)
    assert "is dead" in words(pages["feature/3"])
    table = next(b for b in pages["features"].blocks if isinstance(b, FeatureTable))
    assert table.choices(8) == ("alive", "dead")


def test_without_effects_the_index_has_no_effect_column(run_dir):
    made = copy.deepcopy(SMALL)
    for feature in made["features"]:
        feature["effects"] = {}
    table = next(b for b in build_pages(made, run_dir)["features"].blocks if isinstance(b, FeatureTable))
    assert table.columns[-1].label == "recurs"


def test_only_pictures_inside_the_runs_folder_are_shown(run_dir, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    (run_dir / "images" / "link.png").symlink_to(secret)
    assert is_picture_of_run(run_dir, "images/slice-001.png")
    for name in (
        "images/../results.json",
        "/etc/passwd",
        "results.json",
        "images/link.png",
        "images/no.png",
        "../a.png",
    ):
        assert not is_picture_of_run(run_dir, name)


def test_a_run_without_results_names_the_command_that_makes_them(tmp_path):
    with pytest.raises(ConfigError, match=r"has no results\.json: make it with 'mechinterp study brain-mri"):
        RunView.read(tmp_path)


def test_results_of_another_format_or_kind_are_refused(tmp_path):
    file = tmp_path / "results.json"
    file.write_text('{"format": 99}')
    with pytest.raises(ConfigError, match="format 99"):
        RunView.read(tmp_path)
    file.write_text("[1]")
    with pytest.raises(DamagedFileError, match="holds no results"):
        RunView.read(tmp_path)
    file.write_text('{"format"')
    with pytest.raises(DamagedFileError):
        RunView.read(tmp_path)


def test_an_unknown_address_gets_a_page_with_ways_on():
    page = missing_page("<script>" + "x" * 100)
    assert "…" in words(page)
    assert "&lt;script&gt;" in payload(page)["html"]
    assert any(isinstance(b, Links) and Link("Overview", "overview") in b.links for b in page.blocks)


def test_a_block_without_markup_is_an_error_of_ours():
    with pytest.raises(TypeError, match="no markup for a int"):
        draw(3)
    assert draw(Text(("a",))).tag == "div"


def test_the_packages_public_names_load_when_they_are_used():
    from experiments import dashboard

    assert dashboard.build_pages is build_pages
    assert set(dashboard.__all__) == {"build_pages", "export_static", "make_app", "serve"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = dashboard.nothing


def test_images_of_several_volumes_are_sorted_since_a_line_would_run_between_patients(run_dir):
    made = copy.deepcopy(SMALL)
    made["images"]["position"] = [3.0 * (i % 2) for i in range(len(made["images"]["ids"]))]
    assert "sorted by the answer" in build_pages(made, run_dir)["overview"].figures()[0].alt
    assert "sorted by the answer" not in build_pages(SMALL, run_dir)["overview"].figures()[0].alt


@pytest.mark.parametrize(
    ("activation", "probabilities", "answer"),
    [
        ("sigmoid", [0.3], "not mass"),
        ("sigmoid", [0.6], "mass"),
        ("sigmoid", [0.4, 0.2], "none of the findings"),
        ("sigmoid", [0.6, 0.9], "edema"),
        ("softmax", [0.4, 0.3, 0.3], "mass"),
    ],
)
def test_the_answer_of_findings_may_be_none_of_them(tmp_path, activation, probabilities, answer):
    model = {"activation": activation, "class_names": ["mass", "edema", "other"][: len(probabilities)]}
    view = RunView({"model": model, "images": {"probabilities": [probabilities]}}, tmp_path)
    assert view.answer(0) == answer


@pytest.mark.parametrize(("groups", "said"), [(None, "nobody said whose"), (["a", "a"], "patients")])
def test_images_that_name_no_patient_are_not_said_to_be_patients(tmp_path, groups, said):
    images = {"n": 2, "name": "x", "ids": ["1", "2"], "units_are_patients": True, "groups": groups}
    page = build_model_page(RunView({"images": images}, tmp_path))
    facts = dict(next(b for b in page.blocks if isinstance(b, Facts) and b.items[0][0] == "images").items)
    assert facts["units"].startswith(said)
    assert facts["groups"] == ("–" if groups is None else "1")
