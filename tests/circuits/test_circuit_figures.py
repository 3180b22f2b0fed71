import numpy as np
import pytest
from planted_answers import experiment_on, two_drivers

from circuits.figures import ablations_figure, before_after_figure, class_effects_figure, set_size_figure


@pytest.fixture(scope="module")
def found():
    return experiment_on(two_drivers(), sizes=(1, 2, 3), n_controls=60)


def test_the_curve_shows_every_size_with_its_ribbon(found):
    curve = found.select("neurons", "reference")[0].curve("mean")
    figure = set_size_figure(curve, target="meningioma", share=3)
    chosen = figure.data[-1]
    assert list(chosen.x) == [1, 2, 3]
    assert list(chosen.y) == [r.flipped for r in curve.results]
    assert "95 %" in figure.data[1].name
    assert "meningioma" in figure.layout.yaxis.title.text
    assert figure.layout.template.layout.font.size  # the one theme


def test_without_controls_there_is_no_ribbon(found):
    curve = found.select("neurons", "zero")[0].curve("zero")
    figure = set_size_figure(curve)
    assert len(figure.data) == 1
    assert figure.data[0].customdata[0][0] == "not tested"


def test_the_logit_difference_has_its_own_axis(found):
    figure = set_size_figure(found.directions[0].curve("towards"), what="delta", target="t")
    assert figure.layout.yaxis.title.text == "change of the logit difference"


def test_ablations_of_target_images_stand_beside_each_other(found):
    figure = ablations_figure(found.directions[0])
    assert [t.name for t in figure.data] == ["zero", "mean", "resample"]
    assert len({t.line.dash for t in figure.data}) == 3  # colour alone carries no meaning


def test_every_image_has_its_line_from_before_to_after(found):
    pairs = found.directions[0].before_after
    figure = before_after_figure(pairs)
    assert len(figure.data) == 4
    y = np.asarray(figure.data[1].y).reshape(-1, 3)
    assert y[:, 0] == pytest.approx(pairs[1].before)
    assert y[:, 1] == pytest.approx(pairs[1].after)
    assert np.isnan(y[:, 2]).all()


def test_bars_are_means_and_whiskers_percentiles():
    effects = np.linspace(0, 1, 101, dtype=np.float32)[:, None] * np.asarray([1.0, -2.0], dtype=np.float32)
    bar = class_effects_figure(effects, ["a", "b"], ablation="mean").data[0]
    assert list(bar.y) == pytest.approx([0.5, -1.0])
    assert list(bar.error_y.array) == pytest.approx([0.475, 0.95])
    assert list(bar.error_y.arrayminus) == pytest.approx([0.475, 0.95])
