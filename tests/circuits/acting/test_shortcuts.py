"""The planted mark is found by its use, honest evidence is not, and what cannot be tested is refused in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from shortcut_model import LESION, MARK, pictures, shortcut_model

from circuits import find_shortcuts, neurons
from circuits.acting.decision import Decision, true_labels
from circuits.acting.figures import use_figure
from circuits.acting.use_differences import PatientMeans
from mechinterp.errors import ConfigError, ImagesError, LeakageError, ShapeError


def two_hospitals(rho_first=0.9, n=80, seed=0):
    random = np.random.default_rng(seed)
    labels = np.tile([False, True], n)
    hospital = np.repeat(["north", "south"], n)
    agrees = random.random(2 * n) < np.where(hospital == "north", (1 + rho_first) / 2, 0.5)
    marks = np.where(agrees, labels, ~labels)
    return pictures(labels, marks.astype(float), seed), labels, hospital


def searched(rho=0.9, **settings):
    x, labels, hospital = two_hospitals(rho)
    model = settings.pop("model", None) or shortcut_model()
    return find_shortcuts(
        model, neurons(model, "stage"), x, environments=hospital, target="ill", labels=labels,
        **{"n_permutations": 499, "placebos": 20, **settings},
    )  # fmt: skip


@pytest.mark.parametrize("method", ["exact", "attribution"])
def test_the_mark_is_ranked_first_and_the_lesion_is_not_found(method):
    search = searched(method=method)
    (top,) = search.found
    assert (top.node.index, top.rank) == (MARK, 1)
    # removing half a mark of weight 4 costs 2 where mark and label agree, and gives 2 where they do not
    assert top.first == pytest.approx(-1.8, abs=0.4)
    assert top.second == pytest.approx(0, abs=0.5)
    assert search.differences.p[LESION] > 0.05
    assert search.claim.verdict == "met"
    assert "north" in search.claim.statement
    assert top.p <= 0.05
    low, high = search.claim.interval
    assert low < top.difference < high < 0


def test_patients_are_counted_where_somebody_named_them():
    assert searched(n_permutations=19, placebos=0, groups=np.arange(160)).to_json()["patients"] == [80, 80]
    assert searched(n_permutations=19, placebos=0).to_json()["patients"] is None
    blocks = searched(n_permutations=19, placebos=0, groups=np.arange(160), units_are_patients=False)
    assert blocks.to_json()["patients"] is None
    assert blocks.claim.interval is None


def test_an_interval_is_of_patients_however_many_images_each_has():
    search = searched()
    # patients on whom the feature does more have nine images, the others one
    busy = np.random.default_rng(0).random(160) < 0.5
    patient = np.repeat(np.arange(160), np.where(busy, 9, 1))
    values = np.where(busy & ~search.second, 1.0, 0.0)[patient, None]
    labels, second = search.labels[patient], search.second[patient]
    differences = PatientMeans.of(values, second, labels, patient).test(19)
    effects = replace(search.effects, nodes=search.effects.nodes[:1], values=values[..., None])
    many = replace(search, effects=effects, differences=differences, second=second, labels=labels, groups=patient)
    interval = many.interval(0)
    assert differences.difference[0] == pytest.approx(busy[~search.second].mean(), abs=0.05)
    assert interval.low < differences.difference[0] < interval.high


def test_without_a_difference_there_is_no_alarm_and_the_claim_is_not_met():
    search = searched(rho=0.0)
    assert not search.alarm
    assert search.found == ()
    assert search.claim.verdict == "not met"
    assert search.placebo_alarms <= search.placebo_bound == 3


def test_an_untrained_model_has_no_shortcut_to_claim():
    assert searched(model=replace(shortcut_model(), trained=False)).claim.verdict == "not met"


def test_json_and_figure_show_both_environments():
    search = searched()
    made = search.to_json(2)
    assert made["environments"] == ["north", "south"]
    assert len(made["ranked"]) == 2
    assert made["ranked"][0]["interval"]["n"] == 160
    figure = use_figure(search, 3)
    assert {t.name for t in figure.data if t.name} == {"north", "south"}
    assert search.figure(1).layout.xaxis.title.text.startswith("change of the log-odds of the truth")


def test_what_cannot_be_searched_is_refused():
    x, labels, hospital = two_hospitals(n=10)
    model = shortcut_model()

    def search(**changed):
        settings = {"environments": hospital, "target": "ill", "labels": labels, **changed}
        return find_shortcuts(model, neurons(model, "stage"), x, **settings)

    with pytest.raises(ConfigError, match="1 environments"):
        search(environments=np.zeros(20))
    with pytest.raises(ShapeError, match="environments have shape"):
        search(environments=hospital[:-1])
    with pytest.raises(ImagesError, match="have no labels"):
        search(labels=None)
    with pytest.raises(ImagesError, match="all 20 images are labelled 'ill'"):
        search(labels=np.ones(20, dtype=bool))
    with pytest.raises(ShapeError, match="labels have shape"):
        search(labels=labels[:-1])
    with pytest.raises(ImagesError, match="1 of 20 images have no label: leave them out"):
        search(labels=[None, *("ill" if label else "well" for label in labels[1:])])
    with pytest.raises(ConfigError, match="numbers besides 0 and 1"):
        search(labels=labels * 2)
    with pytest.raises(ShapeError, match="groups have shape"):
        search(groups=[1])
    with pytest.raises(LeakageError, match="both environments"):
        search(groups=np.arange(20) % 10)
    with pytest.raises(ConfigError, match="no class 'sick'"):
        search(target="sick")
    with pytest.raises(ConfigError, match="has outputs 0 to 1, not 5"):
        search(target=5)


def test_an_image_with_several_findings_shows_each_of_them():
    labels = np.array(["mass|edema", "edema", " mass ", "No Finding"])
    images = torch.zeros(4, 3, 4, 4)
    several = Decision(0, "mass", "sigmoid")
    assert true_labels(images, several, labels).tolist() == [True, False, True, False]
    one_of = Decision(0, "mass|edema", "softmax")  # where classes exclude one another, the bar is part of a name
    assert true_labels(images, one_of, labels).tolist() == [True, False, False, False]
