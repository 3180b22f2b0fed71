"""Raters of known skill get the verdict they deserve; files that are not theirs are refused."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from experiments.cli import entry
from experiments.dashboard.rating.answers import COLUMNS, read_ratings
from experiments.dashboard.rating.frozen import frozen_random_examples
from experiments.dashboard.rating.items import RatingConfig, make_plan
from experiments.dashboard.rating.rating_page import write_rating
from experiments.dashboard.rating.results import FILE, rated_claim, with_ratings
from experiments.dashboard.rating.scoring import accuracy_interval, read_key, score_ratings
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView
from mechinterp.errors import ConfigError, DamagedFileError

FEATURES, CONTROLS, FROZEN = 24, 12, 10


@pytest.fixture(scope="module")
def key():
    """A key of features and controls, whose right candidates are known."""
    rng = np.random.default_rng(0)
    kinds = ["feature"] * FEATURES + ["random images"] * CONTROLS + ["frozen-random feature"] * FROZEN
    items = {
        f"i{n}": {"kind": kind, "feature": n if kind == "feature" else None, "right": int(rng.integers(4))}
        for n, kind in enumerate(kinds)
    }
    return {"format": 1, "plan": "p1", "config": {"candidates": 4}, "items": items}


def rater(key, name, skill, sees, seed):
    """Return a rater's file: right on features with probability `skill`, guessing on controls; sees what `sees` says."""
    rng = np.random.default_rng(seed)
    rows = []
    for item, known in key["items"].items():
        is_feature = known["kind"] == "feature"
        right = is_feature and rng.random() < skill
        match = known["right"] if right else int(rng.integers(4))
        seen = "yes" if rng.random() < sees[not is_feature] else "no"
        rows.append({"item": item, "position": 0, "seen": seen, "name": "vessel", "match": match, "seconds": 3.2})
    return {"format": 1, "plan": "p1", "rater": name, "answers": rows}


def scored(key, tmp_path, raters):
    files = []
    for made in raters:
        files.append(tmp_path / f"{made['rater']}.json")
        files[-1].write_text(json.dumps(made))
    return score_ratings(read_ratings(files), Record(key))


def test_raters_who_see_features_are_believed(key, tmp_path):
    scores = scored(key, tmp_path, [rater(key, n, 1.0, (0.9, 0.1), s) for n, s in (("a", 1), ("b", 2))])
    claim = scores.claim(trained=True)
    assert scores.accuracy["feature"] == 1.0
    assert scores.accuracy["random images"] < 0.6
    # both guess on the planted galleries, where nothing is right; that is no disagreement about features
    assert scores.alpha_match == 1.0
    assert scores.kappa == {("a", "b"): 1.0}
    assert scores.interval == pytest.approx((0.025 ** (1 / FEATURES), 1.0))
    assert {c.name: c.passed for c in claim.controls}["galleries of random images"] is True
    assert {c.name: c.passed for c in claim.controls}["features of a frozen-random autoencoder"] is True
    assert {c.name: c.passed for c in claim.controls}["something seen in galleries of random images"] is True
    assert "100 % of 24 features; chance gives 25 %." in claim.statement
    assert claim.verdict == "met"


def test_raters_who_guess_are_not(key, tmp_path):
    scores = scored(key, tmp_path, [rater(key, n, 0.0, (0.5, 0.5), s) for n, s in (("a", 1), ("b", 2), ("c", 3))])
    claim = scores.claim(trained=True)
    assert claim.verdict != "met"
    assert abs(scores.alpha_match) < 0.2
    assert {c.name: c.passed for c in claim.controls}["agreement of raters"] is False


def test_features_known_no_better_than_frozen_random_ones_are_not_met(key, tmp_path):
    raters = [rater(key, n, 1.0, (1.0, 0.0), s) for n, s in (("a", 1), ("b", 2))]
    for made in raters:
        for row in made["answers"]:
            if key["items"][row["item"]]["kind"] == "frozen-random feature":
                row["match"] = key["items"][row["item"]]["right"]
    claim = scored(key, tmp_path, raters).claim(trained=True)
    assert claim.verdict == "not met"
    assert any("frozen-random" in reason for reason in claim.reasons)


def test_one_rater_leaves_the_claim_open(key, tmp_path):
    claim = scored(key, tmp_path, [rater(key, "a", 1.0, (1.0, 0.0), 1)]).claim(trained=True)
    assert claim.verdict == "inconclusive"
    assert any("two raters" in reason for reason in claim.reasons)


def test_an_untrained_model_is_never_met(key, tmp_path):
    scores = scored(key, tmp_path, [rater(key, n, 1.0, (1.0, 0.0), s) for n, s in (("a", 1), ("b", 2))])
    assert scores.claim(trained=False).verdict == "not met"


def test_a_rating_without_controls_cannot_be_met(key, tmp_path):
    only = {**key, "items": {k: v for k, v in key["items"].items() if v["kind"] == "feature"}}
    claim = scored(only, tmp_path, [rater(only, n, 1.0, (1.0, 0.0), s) for n, s in (("a", 1), ("b", 2))]).claim(
        trained=True
    )
    assert claim.verdict == "inconclusive"
    assert sum("no such gallery was rated" in reason for reason in claim.reasons) == 3


def test_csv_and_json_of_the_same_rater_say_the_same(key, tmp_path):
    made = rater(key, "a", 0.7, (0.8, 0.2), 1)
    (tmp_path / "a.json").write_text(json.dumps(made))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({"plan": "p1", "rater": "a", **row} for row in made["answers"])
    assert read_ratings([tmp_path / "a.csv"]) == read_ratings([tmp_path / "a.json"])


def test_unanswered_items_are_left_out(key, tmp_path):
    made = rater(key, "a", 1.0, (1.0, 0.0), 1)
    made["answers"][0]["match"] = None
    made["answers"][1]["seen"] = None
    (tmp_path / "a.json").write_text(json.dumps(made))
    assert len(read_ratings([tmp_path / "a.json"])[0].answers) == FEATURES + CONTROLS + FROZEN - 2


def test_answers_that_are_missing_are_told(key, tmp_path):
    made = [rater(key, n, 1.0, (1.0, 0.0), s) for n, s in (("a", 1), ("b", 2))]
    for row in made[0]["answers"][:5]:
        row["match"] = None
    scores = scored(key, tmp_path, made)
    assert scores.unanswered == 5
    assert "5 answers to features are missing and were left out." in scores.claim(trained=True).statement
    assert scores.to_json(trained=True)["claim"]["numbers"]["missing answers"] == 5


@pytest.mark.parametrize(("right", "n"), [(0, 12), (3, 4), (9, 20), (20, 20)])
def test_the_interval_holds_the_shares_that_a_binomial_test_does_not_refuse(right, n):
    low, high = accuracy_interval([1.0] * right + [0.0] * (n - right))
    if right:
        assert binomtest(right, n, low, alternative="greater").pvalue == pytest.approx(0.025)
    if right < n:
        assert binomtest(right, n, high, alternative="less").pvalue == pytest.approx(0.025)
    assert (low == 0) == (right == 0)
    assert (high == 1) == (right == n)


def test_raters_who_guess_are_called_better_than_chance_at_most_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    above = [accuracy_interval(rng.random(20) < 0.25)[0] >= 0.25 for _ in range(2000)]
    assert np.mean(above) <= 0.025


def test_files_that_are_no_ratings_are_refused(key, tmp_path):
    good = rater(key, "a", 1.0, (1.0, 0.0), 1)
    (tmp_path / "a.json").write_text(json.dumps(good))
    (tmp_path / "other.json").write_text(json.dumps({**good, "rater": "b", "plan": "p2"}))
    (tmp_path / "twice.json").write_text(json.dumps({**good, "answers": good["answers"] + good["answers"][:1]}))
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "cut.csv").write_text("plan,rater\np1,a\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no file of ratings"):
        read_ratings([])
    with pytest.raises(ConfigError, match="is no file"):
        read_ratings([tmp_path / "absent.json"])
    with pytest.raises(ConfigError, match="two files are by the rater 'a'"):
        read_ratings([tmp_path / "a.json", tmp_path / "a.json"])
    with pytest.raises(ConfigError, match=r"different plans \(p1, p2\)"):
        read_ratings([tmp_path / "a.json", tmp_path / "other.json"])
    for name in ("empty.json", "cut.csv"):
        with pytest.raises(DamagedFileError, match="holds no ratings"):
            read_ratings([tmp_path / name])
    with pytest.raises(DamagedFileError, match="answers an item twice"):
        read_ratings([tmp_path / "twice.json"])
    with pytest.raises(DamagedFileError, match="no CSV in UTF-8"):
        read_ratings([tmp_path / "bytes.csv"])


def test_answers_to_another_page_are_refused(key, tmp_path):
    made = rater(key, "a", 1.0, (1.0, 0.0), 1)
    made["answers"][0]["item"] = "unknown"
    with pytest.raises(ConfigError, match="an item that the key does not hold"):
        scored(key, tmp_path, [made])
    made["answers"] = [
        row for row in made["answers"] if key["items"].get(row["item"], {}).get("kind") == "random images"
    ]
    with pytest.raises(ConfigError, match="no gallery of a feature was answered"):
        scored(key, tmp_path, [made])
    with pytest.raises(ConfigError, match="has no key of the plan p1"):
        read_key(tmp_path, "p1")


@pytest.fixture
def rated_run(made_run, tmp_path):
    """A copy of a run with a plan made of it."""
    import shutil

    run = shutil.copytree(made_run, tmp_path / "run")
    view = RunView.read(run)
    frozen = frozen_random_examples(view, 12)
    plan = make_plan(view, RatingConfig(features=8, controls=3, frozen=3, gallery=2, candidates=2), frozen)
    write_rating(view, plan, tmp_path / "out")
    return run, plan


def test_from_the_command_line_to_the_report(rated_run, tmp_path, capsys):
    run, plan = rated_run
    files = []
    for name in ("a", "b"):
        rows = [
            {
                "item": i.name,
                "seen": "yes" if i.kind == "feature" else "no",
                "name": "=HYPERLINK(<script>)",
                "match": i.right,
            }
            for i in plan.items
        ]
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({"format": 1, "plan": plan.name, "rater": name, "answers": rows}))
    capsys.readouterr()
    assert entry.run(["ratings", str(run), *map(str, files), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["accuracy"]["feature"] == 1.0
    assert {c["name"] for c in said["claim"]["controls"]} >= {"galleries of random images", "agreement of raters"}
    assert said["alpha_match"] == 1.0
    folder = run / "ratings"
    assert {p.name for p in folder.iterdir()} >= {FILE, "ratings.csv", "ratings.html"}
    assert "<script>)" not in (folder / "ratings.html").read_text()
    assert (
        "'=HYPERLINK" in (folder / "ratings.csv").read_text() or "a: =HYPERLINK" in (folder / "ratings.csv").read_text()
    )
    assert rated_claim(run).statement == said["claim"]["statement"]
    assert entry.run(["report", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    element = next(e for e in report["elements"] if e["element"] == "visual recognizability")
    assert said["claim"]["statement"] in json.dumps(element, ensure_ascii=False)
    assert any("does not count towards" in " ".join(line.split()) for line in element["limits"])


def test_a_page_is_made_from_the_command_line(made_run, tmp_path, capsys):
    capsys.readouterr()
    sizes = ["--features", 4, "--controls", 1, "--frozen", 2, "--gallery", 2, "--candidates", 2]
    argv = ["rate", made_run, "--out", tmp_path / "r", *sizes, "--json"]
    assert entry.run([str(a) for a in argv]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["items"] == 7
    assert (tmp_path / "r" / "rating.html").stat().st_size > 10_000


def test_a_run_that_nobody_rated_keeps_its_report(tmp_path):
    report = object()
    assert rated_claim(tmp_path) is None
    assert with_ratings(report, tmp_path) is report


@pytest.mark.browser
def test_a_rater_works_through_the_page_by_keyboard_and_saves_both_files(tab, rated_run, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    run, plan = rated_run
    page = tab.page
    page.goto((tmp_path / "out" / "rating.html").as_uri())
    page.get_by_label("Your initials or a code").fill("<b>AB</b>")
    page.get_by_label("Your initials or a code").press("Enter")
    for n in range(len(plan.items)):
        page.wait_for_function(
            "text => document.querySelector('[role=status]').textContent === text",
            arg=f"Gallery {n + 1} of {len(plan.items)}",
        )
        assert page.evaluate("Array.from(document.images).every(i => i.complete && i.naturalWidth > 0)")
        if n == 0:
            page.get_by_role("button", name="Next").press("Enter")
            assert "Answer both questions first" in page.get_by_role("status").inner_text()
            found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
            assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in {"serious", "critical"}] == []
        page.get_by_label("Yes, I see it").press(" ")
        page.get_by_label("What is it?").fill('a "vessel", =1+1')
        page.locator("#match-1").press(" ")
        page.get_by_role("button", name="Next").press("Enter")
    saved = []
    for name in ("Save as JSON", "Save as CSV"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        saved.append(tmp_path / download.value.suggested_filename)
        download.value.save_as(saved[-1])
    first, second = (read_ratings([file])[0] for file in saved)
    assert first == second
    assert first.rater == "<b>AB</b>"
    assert len(first.answers) == len(plan.items)
    assert {a.match for a in first.answers} == {1}
    scores = score_ratings([first], read_key(run, plan.name))
    assert scores.accuracy["feature"] == np.mean([i.right == 1 for i in plan.items if i.kind == "feature"])
    assert tab.problems == []
