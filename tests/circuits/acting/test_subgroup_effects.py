"""Effects by subgroup, on a model whose effects are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, ttest_ind
from shortcut_model import MARK, paired, shortcut_model

from circuits import effects, mean, neurons
from circuits.acting.subgroup_effects import subgroup_differences, subgroups
from circuits.inputs import Batch
from circuits.node_results import Effects, NodeName
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.objectives import logit_difference


def found_effects(groups=True):
    x, _, marks, patients = paired(20)
    model = shortcut_model()
    made = effects(
        logit_difference("ill", "well"), neurons(model, "stage"), model=model, images=x,
        groups=patients if groups else None,
    )  # fmt: skip
    return made, np.where(marks, "marked", "unmarked")


def test_removing_the_mark_costs_marked_images_and_gives_to_the_others():
    made, names = found_effects()
    rows = {r.subgroup: r for r in subgroups(made, names, n=1, n_boot=100)}
    assert rows["marked"].node.index == MARK
    assert rows["marked"].mean == pytest.approx(-2, abs=0.05)
    assert rows["unmarked"].mean == pytest.approx(2, abs=0.05)
    assert rows["marked"].interval.n == 20
    assert rows["marked"].to_json()["images"] == 20


def test_without_patients_there_is_no_interval():
    made, names = found_effects(groups=False)
    assert not subgroups(made, names, n=1)[0].interval.estimable


def test_what_cannot_be_divided_is_refused():
    made, names = found_effects()
    with pytest.raises(ShapeError, match="subgroups have shape"):
        subgroups(made, names[:-1])
    with pytest.raises(ConfigError, match="n is 0"):
        subgroups(made, names, n=0)


def made_effects(values, patients, *, units_are_patients=True):
    names = tuple(NodeName("stage", k, "channel", f"channel {k}") for k in range(values.shape[1]))
    n = len(values)
    batch = Batch(torch.zeros(n, 1), patients, units_are_patients)
    plain = np.zeros((n, values.shape[1]), np.float32)
    return Effects(
        "m", "exact", mean(), "image", names, values[:, :, None].astype(np.float32), np.zeros(n, np.float32), plain,
        np.zeros(values.shape[1]), {}, batch,
    )  # fmt: skip


def test_only_a_true_difference_survives_the_correction_for_all_pairs_and_nodes():
    rng = np.random.default_rng(0)
    names = np.repeat(["a", "b", "c", "d"], 40)
    values = rng.normal(size=(160, 6))
    values[names == "c", 2] += 3
    found = subgroup_differences(made_effects(values, np.arange(160)), names, n=6)
    assert len(found) == 6 * 6
    differing = [d for d in found if d.p <= 0.05]
    assert {(d.node.index, d.first, d.second) for d in differing} == {(2, "a", "c"), (2, "b", "c"), (2, "c", "d")}
    first = next(d for d in differing if (d.first, d.second) == ("a", "c"))
    means = [values[names == name, 2].mean() for name in "ac"]
    assert first.difference == pytest.approx(means[0] - means[1], abs=1e-5)
    raw = ttest_ind(values[names == "a", 2], values[names == "c", 2], equal_var=False).pvalue
    assert first.p >= raw
    assert first.to_json()["p_corrected"] == first.p


def test_where_nothing_differs_an_alarm_is_as_rare_as_its_level():
    rng = np.random.default_rng(1)
    names = np.repeat(["a", "b", "c", "d", "e"], 20)
    alarms = [
        any(d.p <= 0.05 for d in subgroup_differences(made_effects(rng.normal(size=(100, 4)), np.arange(100)), names))
        for _ in range(200)
    ]
    assert sum(alarms) <= binom.ppf(0.999, 200, 0.05)


def test_images_of_one_patient_are_one_value():
    rng = np.random.default_rng(2)
    patients, names = np.repeat(np.arange(12), 20), np.repeat(["a", "b"], 120)
    values = np.repeat(rng.normal(size=(12, 1)), 20, axis=0) + 0.01 * rng.normal(size=(240, 1))
    by_patient = ttest_ind(*values[:, 0].reshape(2, 6, 20).mean(2), equal_var=False).pvalue
    (found,) = subgroup_differences(made_effects(values, patients), names)
    assert found.p == pytest.approx(by_patient, rel=1e-4)
    assert subgroup_differences(made_effects(values, patients, units_are_patients=False), names) == ()
