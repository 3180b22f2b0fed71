"""Reports side by side: each run keeps its own verdicts, every number has its place, what is not shared is said."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import made_report as made
import pytest
from axe_playwright_python.sync_playwright import Axe

from experiments.cli import entry
from experiments.dashboard.formatting import format_value
from experiments.report import Plan, PlanRecord, write_report
from experiments.report.side_by_side import run_names, side_by_side
from experiments.report.side_by_side_page import side_by_side_page
from mechinterp.errors import ConfigError

EVIL = "<script>alert(1)</script>"


class Texts(HTMLParser):
    """Every text of the page, with the nearest element that says where in the JSON it stands."""

    def __init__(self):
        super().__init__()
        self.stack, self.found = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in {"meta", "link"}:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if not any(tag in {"style", "title"} for tag, _ in self.stack):
            self.found.append((data, next((a for _, a in reversed(self.stack) if "data-path" in a), {})))


def at(record, pointer):
    for part in pointer.strip("/").split("/"):
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


IMAGES = {"name": "fundus phantom", "confirmation_hash": "a" * 64}


def good_and_bad():
    good = made.report(provenance={"model": {"spec": "cnn"}, "images": IMAGES, "config": {"condition": "as-it-is"}})
    weak = made.claim(made.TESTS[0], interval=(0.1, 0.2), numbers={})
    bad = made.report(
        {"localization": (weak,)},
        provenance={"model": {"spec": "vit"}, "images": IMAGES, "config": {"condition": "shortcut"}},
    )
    return {"right": good, "wrong": bad}


def test_each_run_keeps_its_own_verdicts():
    record = side_by_side(good_and_bad())
    words = {part["element"]: [cell["word"] for cell in part["cells"]] for part in record["elements"]}
    assert words["localization"] == ["met", "not met"]
    assert words["actionability"] == ["met", "not addressed"]
    assert [run["n_needed_met"] for run in record["runs"]] == [5, 0]
    assert [run["model"] for run in record["runs"]] == ["cnn", "vit"]


def test_a_test_that_a_run_planned_and_did_not_run_is_told_from_one_it_did_not_plan():
    fewer = Plan("made", made.TESTS[:1], "d" * 64, "c" * 64)
    runs = good_and_bad()
    runs["small"] = dataclasses.replace(runs["wrong"], plan=PlanRecord(fewer, registered="2026-01-01T00:00:00+00:00"))
    record = side_by_side(runs)
    last = next(test for test in record["tests"] if test["name"] == "test of actionability")
    assert [cell and cell["word"] for cell in last["cells"]] == ["met", "not run", None]


def test_what_the_runs_share_is_said():
    runs = good_and_bad()
    assert "confirmed on the same images" in side_by_side(runs)["shared"][0]
    assert "planted wrong" in side_by_side(runs)["shared"][0]
    other = Plan("made", made.TESTS, "d" * 64, "e" * 64)
    runs["other"] = dataclasses.replace(
        runs["right"], plan=PlanRecord(other), use_case=made.use_case(name="another study"),
        provenance={"images": {"name": "fundus phantom", "confirmation_hash": "b" * 64}},
    )  # fmt: skip
    said = " ".join(side_by_side(runs)["shared"])
    assert "different studies" in said
    assert "not confirmed on the same patients" in said


def test_patients_of_the_same_names_in_other_images_are_not_the_same() -> None:
    images = [{"images": {"name": name}} for name in ("fundus phantom", "mammogram phantom")]
    runs = {str(i): made.report(provenance=source) for i, source in enumerate(images)}
    assert "not confirmed on the same patients" in side_by_side(runs)["shared"][0]


def test_what_stands_for_patients_in_a_study_is_named_as_it_is() -> None:
    images = [{"images": {"name": name}} for name in ("stimuli", "other stimuli")]
    exemplars = made.use_case(units="exemplars")
    runs = {str(i): made.report(provenance=source, case=exemplars) for i, source in enumerate(images)}
    assert "not confirmed on the same exemplars" in side_by_side(runs)["shared"][0]
    runs["patients"] = made.report(provenance=images[0])
    assert "not confirmed on the same patients" in side_by_side(runs)["shared"][0]


def test_two_models_of_one_architecture_are_told_apart_by_their_weights() -> None:
    runs = {
        name: made.report(provenance={"model": {"spec": "cnn", "weights_hash": digest * 64}})
        for name, digest in (("good", "a"), ("marked", "b"))
    }
    page = side_by_side_page(side_by_side(runs))
    assert "aaaaaaaa" in page
    assert "bbbbbbbb" in page
    assert "a" * 9 not in page


def test_the_same_patients_photographed_otherwise_are_not_the_same_images() -> None:
    runs = {
        str(i): made.report(provenance={"images": {**IMAGES, "confirmation_hash": digest}})
        for i, digest in enumerate(("a" * 64, "b" * 64))
    }
    assert "other images of patients of the same names" in side_by_side(runs)["shared"][0]


def test_the_same_pixels_are_the_same_images_whatever_their_folder_is_called() -> None:
    runs = {name: made.report(provenance={"images": {**IMAGES, "name": name}}) for name in ("eyes", "copy of eyes")}
    assert "confirmed on the same images" in side_by_side(runs)["shared"][0]


def test_a_run_that_kept_no_hash_of_its_images_is_judged_by_names_and_says_so() -> None:
    runs = {
        "old": made.report(provenance={"images": {"name": IMAGES["name"]}}),
        "new": made.report(provenance={"images": IMAGES}),
    }
    said = side_by_side(runs)["shared"][0]
    assert "patients of the same names" in said
    assert "Not every run says which pixels" in said


def test_every_number_on_the_page_has_a_path_in_the_json():
    record = json.loads(json.dumps(side_by_side(good_and_bad())))
    parser = Texts()
    parser.feed(side_by_side_page(record))
    shown = [(t, a) for t, a in parser.found if re.search(r"\d", t) and "95 % interval" not in t]
    assert len(shown) > 30
    for text, attributes in shown:
        value = at(record, attributes["data-path"])
        assert text == (format_value(value, attributes["data-form"]) if "data-form" in attributes else value)


def test_markup_in_names_is_text():
    run = made.report(case=made.use_case(title=EVIL, name=EVIL), provenance={"model": {"spec": EVIL}})
    page = side_by_side_page(side_by_side({EVIL: run, "b": run}))
    assert EVIL not in page
    assert page.count("&lt;script&gt;") > 5


def test_runs_of_one_name_are_shown_with_their_parents():
    assert run_names([Path("a/run"), Path("b/run")]) == ("a/run", "b/run")
    assert run_names([Path("a/run"), Path("b/other")]) == ("run", "other")


@pytest.mark.parametrize(("folders", "said"), [(["a"], "at least two"), (["a", "b", "a"], "given twice")])
def test_what_cannot_be_compared_is_refused(folders, said):
    with pytest.raises(ConfigError, match=said):
        run_names([Path(folder) for folder in folders])


def test_the_command_writes_both_files_and_prints_the_words(tmp_path, capsys):
    for name, report in good_and_bad().items():
        write_report(tmp_path / name, report)
    runs = [str(tmp_path / name) for name in ("right", "wrong")]
    assert entry.run(["compare", *runs, "--out", str(tmp_path / "both")]) == 0
    assert "not met" in capsys.readouterr().out
    assert json.loads((tmp_path / "both" / "compare.json").read_text())["runs"][0]["name"] == "right"
    assert entry.run(["compare", *runs, "--out", str(tmp_path / "both"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"].endswith("compare.html")
    assert entry.run(["compare", runs[0], str(tmp_path / "none")]) == 2
    assert "has no report.json" in capsys.readouterr().err


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser_without_network_it_has_no_fault_that_axe_calls_serious(tab, tmp_path):
    page = tmp_path / "compare.html"
    page.write_text(side_by_side_page(side_by_side(good_and_bad())), encoding="utf-8")
    tab.page.goto(page.as_uri())
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(tab.page, options=options).response["violations"]
    assert [v for v in found if v["impact"] in {"serious", "critical"}] == []
    assert tab.problems == []
