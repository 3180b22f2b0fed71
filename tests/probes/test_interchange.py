"""What goes through a direction of a true effect: known for models wired by hand, and against a plain loop of forward hooks."""

import numpy as np
import pytest
import torch
from scipy.stats import linregress
from wired_models import BRIGHT, SITE, TAG, WIDTH, eyes, wired

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions
from mechinterp.images.image_set import MedicalImage
from mechinterp.objectives import logit_difference
from probes import swap_along

STEPS = (0.4, 0.8)
ILL = logit_difference("ill", "healthy")


@pytest.fixture(scope="module")
def patients():
    return eyes(12, 3)


def along(vector):
    return Directions(SITE, (vector / vector.norm())[None].clone(), torch.zeros(WIDTH))


def swapped(model, vector, patients, **settings):
    settings = {"parameter": "exudate_area_mm2", "steps": STEPS, "objective": ILL, "n_random": 20, **settings}
    return swap_along(model, along(vector), 0, patients, **settings)


def channel(model, which):
    return model.module.evidence.rotation[:, which]


@pytest.mark.parametrize("bend", [0.0, 6.0])
def test_all_of_the_effect_goes_through_the_channel_that_the_model_reads(patients, bend):
    model = wired(BRIGHT, 3.0, bend)
    found = swapped(model, channel(model, BRIGHT), patients)
    np.testing.assert_allclose(found.swapped, found.true, rtol=1e-3, atol=1e-4)
    assert found.share == pytest.approx(1, abs=1e-3)
    assert found.p_random == pytest.approx(1 / 21)
    # what is orthogonal to the only channel that is read carries nothing at all
    np.testing.assert_allclose(found.random, 0, atol=1e-3)


def test_nothing_goes_through_a_channel_that_the_model_ignores(patients):
    model = wired(BRIGHT, 3.0)
    found = swapped(model, channel(model, TAG), patients)
    assert found.share == pytest.approx(0, abs=1e-3)
    # random directions hold some of the channel that is read
    assert found.p_random > 0.5


def test_of_two_halves_of_a_change_a_linear_head_carries_what_their_cosine_says(patients):
    model = wired(BRIGHT, 3.0)
    read, other = channel(model, BRIGHT), channel(model, TAG)  # the tag does not change
    found = swapped(model, read + other, patients)
    assert found.share == pytest.approx(0.5, abs=1e-3)


def test_a_plain_loop_of_forward_hooks_swaps_the_same(patients):
    model, vector = wired(BRIGHT, 3.0, bend=6.0), torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    unit = vector / vector.norm()
    found = swapped(model, vector, patients)

    def answer(x, hook=None):
        handle = None if hook is None else model.module.evidence.register_forward_hook(hook)
        with torch.no_grad():
            healthy, ill = model.module(x)[0].double()
        if handle is not None:
            handle.remove()
        return float(ill - healthy)

    def prepared(phantom):
        return model.prepare([MedicalImage("eye", phantom.pixels, spacing_mm=phantom.spacing_mm)])

    true, through = np.empty((len(patients), 2)), np.empty((len(patients), 2))
    for i, eye in enumerate(patients):
        x = prepared(eye)
        for k, step in enumerate(STEPS):
            more = prepared(eye.counterfactual(exudate_area_mm2=eye.parameters.exudate_area_mm2 + step))
            with torch.no_grad():
                held = model.module.evidence(more)

            def taken_over(_module, _inputs, out, held=held):
                part = torch.einsum("bdhw,d->bhw", held - out, unit)
                return out + part[:, None] * unit[None, :, None, None]

            true[i, k] = answer(more) - answer(x)
            through[i, k] = answer(x, taken_over) - answer(x)
    np.testing.assert_allclose(found.true, true, atol=1e-3)
    np.testing.assert_allclose(found.swapped, through, atol=1e-3)
    # the slope through the origin, by a library: the points mirrored at the origin have no intercept
    both = [np.concatenate([np.tile(STEPS, len(true)), -np.tile(STEPS, len(true))])]
    slopes = [linregress(both[0], np.concatenate([e.ravel(), -e.ravel()])).slope for e in (through, true)]
    assert found.share == pytest.approx(slopes[0] / slopes[1], rel=1e-3)
    low, high = found.interval.ends
    assert low < found.share < high


def test_too_few_random_directions_and_no_step_are_refused(patients):
    model = wired(BRIGHT, 3.0)
    with pytest.raises(ConfigError, match="n_random is 5: fewer than 20"):
        swapped(model, channel(model, BRIGHT), patients, n_random=5)
    with pytest.raises(ConfigError, match="12 phantoms and 0 steps"):
        swapped(model, channel(model, BRIGHT), patients, steps=())
