"""Concept vectors, sensitivities and TCAV: by hand, against autograd, scikit-learn and captum, and on nothing."""

import gc

import numpy as np
import pytest
import torch
from captum.concept import TCAV, Classifier, Concept
from scipy.stats import binom
from torch import nn
from torch.utils.data import DataLoader

from mechinterp.errors import AttributeTableError, ConfigError, ShapeError
from mechinterp.images.image_set import ImageSet
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit, logit_difference
from mechinterp.sites import Site
from probes import (
    activation_gradients,
    concept_directions,
    concept_quality,
    fit_concept_vector,
    gradients_of_images,
    in_form,
    random_sets,
    regression_concept,
    tcav,
)
from probes.sensitivities import sensitivities


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).square().mean((2, 3)))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sites = {"conv": Site("conv", "conv", "output", "map", 6, 64)}
    contract = InputContract(8, 8, 1, mean=(0.0,), std=(1.0,))
    return VisionModel(Net().eval(), "py:net", contract, ("a", "b", "c"), "logits", sites, trained=True)


def pixels(n, seed=0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).random((n, 1, 8, 8), dtype=np.float32)) + shift


def test_gradients_at_a_site_are_autograds_and_leave_nothing_behind(model):
    x = pixels(5)
    found = activation_gradients(model, "conv", x, logit_difference("b", "c"))
    acts = model.module.conv(x).detach().requires_grad_()
    out = model.module.head(torch.tanh(acts).square().mean((2, 3)))
    (expected,) = torch.autograd.grad((out[:, 1] - out[:, 2]).sum(), acts)
    torch.testing.assert_close(found, expected.flatten(2).mT)
    assert all(p.grad is None for p in model.module.parameters())
    assert not model.module.conv._forward_hooks
    gc.collect()
    before = sum(type(o) is torch.Tensor for o in gc.get_objects())
    for _ in range(3):
        activation_gradients(model, "conv", x, logit("a"))
    gc.collect()
    assert sum(type(o) is torch.Tensor for o in gc.get_objects()) <= before


def test_the_derivative_is_what_a_small_step_does_pooled_and_flat(model):
    x = pixels(3)
    images = ImageSet.from_arrays(x[:, 0].numpy(), intensity_range=(0, 1))
    direction = np.random.default_rng(1).normal(size=6)
    direction /= np.linalg.norm(direction)
    pooled = gradients_of_images(model, "conv", images, logit("a"), batch_size=2)
    flat = gradients_of_images(model, "conv", images, logit("a"), form="flat", batch_size=2)
    acts = model.module.conv(x)
    step = 1e-3 * torch.from_numpy(direction).float()[:, None, None]
    with torch.no_grad():
        ends = [model.module.head(torch.tanh(acts + s * step).square().mean((2, 3)))[:, 0] for s in (1, -1)]
    np.testing.assert_allclose(sensitivities(pooled, direction), ((ends[0] - ends[1]) / 2e-3).numpy(), atol=2e-3)
    np.testing.assert_allclose(sensitivities(flat, np.tile(direction, 64)), sensitivities(pooled, direction), atol=1e-6)
    with pytest.raises(ShapeError, match="fit the vector on activations in the form of the gradients"):
        sensitivities(flat, direction)


def test_patterns_are_what_they_are_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), (np.arange(50) % 2).astype(float)
    x[y == 1] += [2, 0, 0, 0]
    difference = x[y == 1].mean(0) - x[y == 0].mean(0)
    for estimator in ("mean_difference", "pattern"):  # of two classes the same
        found = fit_concept_vector(x, y, estimator=estimator)
        np.testing.assert_allclose(found.direction, difference / np.linalg.norm(difference))
        assert found.step == pytest.approx(np.linalg.norm(difference))
    area = rng.uniform(0, 10, 50)
    z = area[:, None] * [0.3, -0.4, 0, 0] + 1
    pattern = fit_concept_vector(z, area, unit="mm²")
    np.testing.assert_allclose(pattern.direction, [0.6, -0.8, 0, 0], atol=1e-12)
    assert pattern.step == pytest.approx(0.5)  # activations move by 0.5 per mm²
    np.testing.assert_allclose(np.diff(pattern.project(z)), 0.5 * np.diff(area))
    encoder = concept_directions([pattern])
    np.testing.assert_allclose(encoder.encode(torch.from_numpy(z).float())[:, 0], pattern.project(z), atol=1e-5)


def test_filters_turn_away_from_a_distractor_and_patterns_do_not():
    # Haufe's example: unit 0 holds signal and distractor, unit 1 the distractor alone
    rng = np.random.default_rng(0)
    signal, distractor = rng.normal(size=(2, 4000))
    x = np.column_stack([signal + distractor, distractor])
    filters = {e: fit_concept_vector(x, signal, estimator=e).direction for e in ("ridge", "pattern", "haufe")}
    assert filters["ridge"][1] < -0.5
    for estimator in ("pattern", "haufe"):
        assert abs(filters[estimator][1]) < 0.25
    assert fit_concept_vector(x, (signal > 0).astype(float), estimator="svm").direction[1] < -0.5


def test_a_good_vector_separates_unseen_patients_and_is_stable_and_one_of_noise_is_neither():
    rng = np.random.default_rng(0)
    groups, area = np.repeat(np.arange(60), 2), np.repeat(rng.uniform(0, 5, 60), 2)
    x = rng.normal(size=(120, 20))
    noise = concept_quality(x, area, groups=groups)
    x[:, 0] += 2 * area
    good = concept_quality(x, area, groups=groups)
    assert good.metric == "r²"
    assert good.score > 0.8
    assert good.stability[0] > 0.95
    assert noise.score < 0.15
    assert noise.stability[0] < 0.7
    assert concept_quality(x, (area > 2).astype(float), groups=groups, estimator="svm").score > 0.9


class Ours(Classifier):
    """captum's interface around our estimator."""

    def __init__(self):
        super().__init__()

    def train_and_eval(self, dataloader, test_split_ratio=0.0, **_):
        x, y = (torch.cat(parts) for parts in zip(*dataloader, strict=True))
        self.labels = y.unique()
        self.direction = fit_concept_vector(
            x.numpy(), (y == self.labels[1]).numpy().astype(float), estimator="ridge"
        ).direction
        return {"accs": torch.tensor(1.0)}

    def weights(self):
        w = torch.from_numpy(self.direction).float()
        return torch.stack([-w, w])

    def classes(self):
        return self.labels.tolist()


def test_scores_are_captums_on_the_same_sets(model, tmp_path):
    shown, others = pixels(12, 1, 0.6), [pixels(12, 10 + i) for i in range(3)]
    asked = pixels(40, 5)

    def rows(x):
        return in_form(model.module.conv(x).detach().flatten(2).mT, "flat")

    gradients = in_form(activation_gradients(model, "conv", asked, logit("b")), "flat", add=True)
    (ours,) = tcav({"bright": rows(shown)}, [rows(o) for o in others], gradients, estimator="ridge", n_boot=100)
    concepts = [Concept(i, f"c{i}", DataLoader(s, batch_size=12)) for i, s in enumerate([shown, *others])]
    # captum flattens a map channel by channel: the same numbers in another order
    theirs = TCAV(model.module, ["conv"], classifier=Ours(), model_id="net", save_path=str(tmp_path))
    found = theirs.interpret(asked, [[concepts[0], c] for c in concepts[1:]], target=1)
    for i, (score, key) in enumerate(zip(ours.scores, found, strict=True)):
        result = found[key]["conv"]
        mine, opposite = result["sign_count"].tolist()
        # captum gives the second class our direction turned towards it
        assert {round(mine, 6), round(opposite, 6)} == {round(score, 6), round(1 - score, 6)}, i
    magnitudes = [abs(float(found[k]["conv"]["magnitude"][0])) for k in found]
    assert abs(ours.magnitude) == pytest.approx(np.mean(magnitudes), rel=1e-4)


def test_a_used_concept_is_found_and_an_unused_one_is_not():
    rng = np.random.default_rng(0)
    width = 10
    gradients = np.zeros((80, width))
    gradients[:, 0] = 1  # the output reads unit 0 only
    gradients += 0.3 * rng.normal(size=gradients.shape)
    used, unused = rng.normal(size=(2, 30, width))
    used[:, 0] += 3
    unused[:, 1] += 3
    sets = [rng.normal(size=(30, width)) for _ in range(40)]
    found = {
        r.concept: r
        for r in tcav({"used": used, "unused": unused}, sets, gradients, estimator="mean_difference", n_boot=200)
    }
    assert found["used"].score > 0.95
    assert found["used"].p_value == pytest.approx(1 / 41)
    assert found["used"].p_corrected == pytest.approx(2 / 41)
    assert found["used"].claim().verdict == "met"
    assert found["used"].interval.n == 80
    assert found["unused"].claim().verdict == "not met"
    assert found["used"].to_json()["concept"] == "used"
    few = tcav({"used": used}, sets[:5], gradients, estimator="mean_difference", n_boot=100)[0]
    assert few.claim().verdict == "not met"
    assert "cannot be significant with 5 random sets" in few.claim().controls[0].detail


def test_a_concept_that_is_a_random_set_is_rejected_at_the_nominal_rate():
    rng = np.random.default_rng(0)
    runs, rejected, by_t = 80, 0, 0
    for _ in range(runs):
        gradients = rng.normal(size=12) + 0.5 * rng.normal(size=(30, 12))
        sets = [rng.normal(size=(15, 12)) for _ in range(19)]
        (result,) = tcav(
            {"nothing": rng.normal(size=(15, 12))}, sets, gradients, estimator="mean_difference", n_boot=100
        )
        rejected += result.p_value <= 0.05
        by_t += result.p_t_test <= 0.05
    low, high = binom.interval(0.999, runs, 0.05)
    assert low <= rejected <= high
    assert by_t > high  # the usual t-test takes the concept's scores for independent


def test_random_sets_are_made_of_whole_patients():
    groups = np.repeat(np.arange(20), 3)
    for drawn in random_sets(groups, 60, 12, 5):
        assert len(drawn) == 12
        assert (np.bincount(groups[drawn], minlength=20) % 3 == 0).all()
    with pytest.raises(ConfigError, match="sets of 61 images cannot be drawn from 60"):
        random_sets(None, 60, 61, 2)


def test_a_continuous_attribute_has_a_derivative_in_units():
    rng = np.random.default_rng(0)
    area = rng.uniform(0, 4, 60)
    x = rng.normal(size=(60, 5))
    x[:, 2] += 0.5 * area
    gradients = np.tile([0, 0, 3.0, 0, 0], (40, 1)) + 0.01 * rng.normal(size=(40, 5))
    found = regression_concept(x, area, gradients, estimator="pattern", name="lesion_area", unit="mm²", n_boot=200)
    assert found.per_unit == pytest.approx(1.5, rel=0.3)  # 0.5 per mm², times 3 logits
    assert found.share == 1
    assert found.r_squared > 0.15
    assert found.relevance > 0
    assert found.interval.low < found.per_unit < found.interval.high


def test_vectors_that_cannot_be_found_are_named():
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ConfigError, match="estimator is 'svn': did you mean 'svm'"):
        fit_concept_vector(x, x[:, 0], estimator="svn")
    with pytest.raises(ConfigError, match="'area' is continuous: an SVM needs classes"):
        fit_concept_vector(x, x[:, 0], estimator="svm", name="area")
    with pytest.raises(AttributeTableError, match="'area' does not vary over 20 images"):
        fit_concept_vector(x, np.ones(20), name="area")
    with pytest.raises(AttributeTableError, match="do not go along with 'area'"):
        fit_concept_vector(np.ones((20, 3)), x[:, 0], name="area")
    with pytest.raises(ShapeError, match=r"shape \(20, 3\) for 19 values"):
        fit_concept_vector(x, x[1:, 0])
    with pytest.raises(ConfigError, match="of one site make an encoder"):
        concept_directions([])
    with pytest.raises(ConfigError, match="1 concepts and 1 random sets"):
        tcav({"c": x}, [x], x)
    with pytest.raises(ShapeError, match="'random set 1' has activations of shape"):
        tcav({"c": x}, [x, x[:, :2]], x)
