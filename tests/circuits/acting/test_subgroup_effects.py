"""Effects by subgroup, on a model whose effects are known."""

from __future__ import annotations

import numpy as np
import pytest
from shortcut_model import MARK, paired, shortcut_model

from circuits import effects, neurons
from circuits.acting.subgroup_effects import subgroups
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
