"""What raters see: galleries of one feature with one right candidate, controls without any, nothing that tells them apart."""

import copy
import json

import numpy as np
import pytest
import synthetic_run
from PIL import Image

from experiments.dashboard.rating.items import RatingConfig, Shown, make_plan
from experiments.dashboard.rating.pictures import OUTLINE, marked_picture
from experiments.dashboard.rating.rating_page import rating_html, write_rating
from experiments.dashboard.run_view import RunView
from mechinterp.errors import ConfigError

SMALL = RatingConfig(features=6, controls=3, gallery=3, candidates=3)


@pytest.fixture(scope="module")
def view(run_dir, results):
    return RunView(results, run_dir)


@pytest.fixture(scope="module")
def plan(view):
    return make_plan(view, SMALL)


def _strongest(view, feature):
    return [Shown(entry["image"].integer()) for entry in feature["top"].entries()]


def test_a_gallery_and_its_right_candidate_are_of_one_feature(plan, view):
    by_id = {f["id"].integer(): f for f in view.features}
    for item in plan.items:
        assert len(item.gallery) == len(item.candidates) == 3
        images = [shown.image for shown in (*item.gallery, *item.candidates)]
        assert len(set(images)) == len(images)
        if item.kind == "feature":
            own = {e["image"].integer() for e in by_id[item.feature]["top"].entries()}
            assert {shown.image for shown in item.gallery} <= own
            assert [shown.image in own for shown in item.candidates].index(True) == item.right
            assert sum(shown.image in own for shown in item.candidates) == 1
        else:
            assert item.feature is None


def test_no_candidate_is_of_a_patient_in_the_gallery(view):
    groups = view["images"]["groups"].texts()
    kinds = set()
    for seed in range(4):
        settings = RatingConfig(features=6, controls=3, gallery=3, candidates=3, seed=seed)
        frozen = [_strongest(view, f) for f in view.features]
        for item in make_plan(view, settings, frozen).items:
            kinds.add(item.kind)
            shown = {groups[one.image] for one in item.gallery}
            assert not shown & {groups[one.image] for one in item.candidates}
    assert kinds == {"feature", "random images", "frozen-random feature"}


def test_a_feature_of_one_patients_images_cannot_be_asked_about(view, results):
    one = copy.deepcopy(results)
    one["images"]["groups"] = ["somebody"] * view.n_images
    with pytest.raises(ConfigError, match="another patient than the gallery's"):
        make_plan(RunView(one, view.run_dir), SMALL)


def test_controls_are_planted_in_any_place_and_every_candidate_can_be_right(view):
    places, rights = set(), set()
    for seed in range(6):
        plan = make_plan(view, RatingConfig(features=6, controls=3, gallery=3, candidates=3, seed=seed))
        kinds = [item.kind for item in plan.items]
        assert kinds.count("random images") == 3
        places |= {i for i, kind in enumerate(kinds) if kind == "random images"}
        rights |= {item.right for item in plan.items}
    assert len(places) > 5
    assert rights == {0, 1, 2}


def test_the_same_seed_gives_the_same_plan_and_another_another(view, plan):
    assert make_plan(view, SMALL) == plan
    assert make_plan(view, RatingConfig(features=6, controls=3, gallery=3, candidates=3, seed=1)).name != plan.name


@pytest.mark.parametrize("wrong", [{"features": 3}, {"gallery": 1}, {"candidates": 1}, {"controls": -1}])
def test_numbers_that_cannot_be_meant_are_refused(view, wrong):
    with pytest.raises(ConfigError, match="a rating has at least 4 features"):
        make_plan(view, RatingConfig(**wrong))


def test_a_run_with_too_few_examples_is_refused(tmp_path, view):
    with pytest.raises(ConfigError, match="keep more than 6 images"):
        make_plan(view, RatingConfig(gallery=6))


def test_a_mark_lies_around_the_strongest_cell(view):
    feature = view.features[0]
    top = feature["top"][0]
    values = tuple(tuple(row) for row in top["map"].grid())
    made = marked_picture(view, Shown(top["image"].integer(), values))
    import base64
    import io

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.partition(",")[2]))).convert("RGB")).astype(int)
    assert max(pixels.shape[:2]) == 220
    yellow = (np.abs(pixels - OUTLINE).sum(-1) < 150).nonzero()
    px_per_mm = pixels.shape[0] / synthetic_run.HEIGHT_MM
    strong = np.argwhere(np.array(values) >= 0.5 * np.max(values))
    for axis in (0, 1):
        ends = [
            (synthetic_run.CENTRE_MM[axis] + (at - 0.5 + far) * synthetic_run.STEP_MM[axis]) * px_per_mm
            for at, far in ((strong[:, axis].min(), 0), (strong[:, axis].max(), 1))
        ]
        assert yellow[axis].min() == pytest.approx(ends[0], abs=3)
        assert yellow[axis].max() == pytest.approx(ends[1], abs=3)


def test_the_page_holds_no_name_no_number_and_no_key(view, plan, tmp_path, run_dir):
    page, key = write_rating(view, plan, tmp_path)
    text = page.read_text()
    content = json.loads(text.partition('id="content">')[2].partition("</script>")[0])
    assert set(content) == {"plan", "items"}
    assert all(set(item) == {"item", "gallery", "candidates"} for item in content["items"])
    for secret in ("slice-0", "brain_area", "meningioma", "random images", '"right"', '"kind"', str(run_dir)):
        assert secret not in text
    assert key.parent == run_dir / "ratings"
    kept = json.loads(key.read_text())
    assert {i["kind"] for i in kept["items"].values()} == {"feature", "random images"}
    assert "://" not in text


def test_nothing_in_the_content_ends_its_script():
    assert "</script><b>" not in rating_html({"plan": "</script><b>", "items": []})
