import numpy as np
import pytest
import torch
from planted_answers import one_thread
from torch import nn

import circuits
from circuits.ablations import draw, mean, resample, towards, zero
from circuits.node_effects import feature_effects
from circuits.running import logits_in_batches
from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit, logit_difference, probability
from mechinterp.sites import Site
from mechinterp.tails import Tail

WIDTH, CELLS, IMAGES = 6, 16, 4


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


class SparseCodes:
    """An SAE in small: codes are clipped projections, mostly zero, and it reconstructs badly on purpose."""

    kind, site, d_in, width, weights_hash = "sae", "stage", WIDTH, 9, ""

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.encoder = torch.randn(WIDTH, 9, generator=generator, dtype=torch.float64)
        self.directions = torch.randn(9, WIDTH, generator=generator, dtype=torch.float64)

    def encode(self, x):
        return (x @ self.encoder - 2.0).relu()

    def decode(self, z):
        return z @ self.directions


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * WIDTH, 8), nn.ReLU(), nn.Linear(8, 3)
    ).double()  # fmt: skip
    site = Site("stage", "1", "output", "map", WIDTH, CELLS)
    return VisionModel(module.eval(), "py:toy", InputContract(4, 4, 1), ("a", "b", "c"), "logits", {"stage": site})


@pytest.fixture(scope="module")
def x():
    return torch.randn(IMAGES + 3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def acts(model, x):
    with torch.no_grad():
        return model.module[1](model.module[0](x)).flatten(2).transpose(1, 2).contiguous()


def slow_twin(model, encoder, x, acts, ablation, seed=0):
    """Whole forward passes with a plain hook, one image, one feature and one draw at a time."""
    changed, sources = (
        (range(IMAGES, len(x)), range(IMAGES)) if ablation.opposite else (range(IMAGES), range(IMAGES, len(x)))
    )
    picks = draw(ablation, len(changed), len(sources), seed)
    effects = np.zeros((len(changed), encoder.width, 3))
    norms = np.zeros((len(changed), encoder.width))
    with torch.no_grad():
        source_codes = [encoder.encode(acts[j]) for j in sources]
        for row, i in enumerate(changed):
            replacements = {
                "zero": [torch.zeros(CELLS, encoder.width, dtype=torch.float64)],
                "mean": [torch.stack(source_codes).mean(0)],
            }.get(ablation.name) or [source_codes[j] for j in picks[row]]
            before = model.module(x[i : i + 1])[0]
            for f in range(encoder.width):
                for replaced in replacements:
                    codes = encoder.encode(acts[i])
                    new = codes.clone()
                    new[:, f] = replaced[:, f]
                    delta = (new - codes) @ encoder.directions.double()

                    def hook(_m, _i, output, delta=delta):
                        return output + delta.T.reshape(1, WIDTH, 4, 4)

                    handle = model.module[1].register_forward_hook(hook)
                    after = model.module(x[i : i + 1])[0]
                    handle.remove()
                    effects[row, f] += ((after - before) / len(replacements)).numpy()
                    norms[row, f] += float(delta.norm()) / len(replacements)
    return effects, norms


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(2), towards(3)], ids=lambda a: a.name)
@pytest.mark.parametrize("kind", ["sae", "neurons", "directions"])
def test_effects_equal_whole_forward_passes_with_plain_hooks(model, x, acts, kind, ablation):
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64))[
        0
    ]
    encoder = {
        "sae": SparseCodes(),
        "neurons": Neurons("stage", WIDTH),
        "directions": Directions("stage", basis, torch.zeros(WIDTH, dtype=torch.float64)),
    }[kind]
    found = feature_effects(Tail(model, "stage", x[:2]), encoder, acts[:IMAGES], acts[IMAGES:], [ablation], batch=3)
    effects, norms = slow_twin(model, encoder, x, acts, ablation)
    assert np.abs(found.effects[ablation.name] - effects).max() < 1e-6
    assert np.abs(found.norms[ablation.name] - norms).max() < 1e-6


class Counting:
    """A linear end whose runs are counted."""

    def __init__(self):
        self.rows = 0
        self.weight = torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def logits(self, acts_bnd, x=None):
        self.rows += len(acts_bnd)
        return acts_bnd.sum(1) @ self.weight


def test_a_linear_end_gives_the_effect_in_closed_form(acts):
    run, encoder = Counting(), SparseCodes()
    found = feature_effects(run, encoder, acts[:IMAGES], acts[IMAGES:], [zero()])
    closed = -encoder.encode(acts[:IMAGES]).sum(1)[:, :, None] * (encoder.directions @ run.weight)
    assert np.abs(found.effects["zero"] - closed.numpy()).max() < 1e-10


def test_pairs_that_nothing_changes_are_never_run(acts):
    run, encoder = Counting(), SparseCodes()
    feature_effects(run, encoder, acts[:IMAGES], acts[IMAGES:], [zero()])
    active = int((encoder.encode(acts[:IMAGES]) != 0).any(1).sum())
    assert active < IMAGES * encoder.width
    assert run.rows == active + IMAGES  # one unchanged run per image


def test_some_features_only(acts):
    run, encoder = Counting(), SparseCodes()
    every = feature_effects(run, encoder, acts[:IMAGES], acts[IMAGES:], [mean()])
    some = feature_effects(run, encoder, acts[:IMAGES], acts[IMAGES:], [mean()], features=[7, 2])
    assert np.allclose(some.effects["mean"], every.effects["mean"][:, [7, 2]])
    assert np.allclose(some.off_data["mean"], every.off_data["mean"][[7, 2]], equal_nan=True)
    assert some.features.tolist() == [7, 2]


def test_neither_the_batch_nor_the_order_of_images_matters(acts):
    encoder = SparseCodes()
    one = feature_effects(Counting(), encoder, acts[:IMAGES], acts[IMAGES:], [zero(), mean()], batch=1)
    many = feature_effects(Counting(), encoder, acts[:IMAGES].flip(0), acts[IMAGES:], [zero(), mean()], batch=64)
    for name in ("zero", "mean"):
        assert np.allclose(one.effects[name], many.effects[name][::-1])


def test_zero_mean_and_resample_are_the_default(acts):
    found = feature_effects(Counting(), SparseCodes(), acts[:IMAGES], acts[IMAGES:])
    assert [a.name for a in found.ablations] == ["zero", "mean", "resample"]


def test_a_feature_that_never_changes_anything_has_no_distance(acts):
    encoder = SparseCodes()
    encoder.encoder[:, 4] = 0  # its code is always relu(-2) = 0
    found = feature_effects(Counting(), encoder, acts[:IMAGES], acts[IMAGES:], [mean()])
    assert np.isnan(found.off_data["mean"][4])
    assert np.abs(found.effects["mean"][:, 4]).max() == 0
    assert np.isfinite(np.delete(found.off_data["mean"], 4)).any()


def test_effects_on_an_objective(acts):
    found = feature_effects(Counting(), SparseCodes(), acts[:IMAGES], acts[IMAGES:], [zero()])
    e = found.effects["zero"]
    assert np.allclose(found.on(logit(1), "zero"), e[..., 1])
    assert np.allclose(found.on(logit_difference(0, 2), "zero"), e[..., 0] - e[..., 2], atol=1e-5)
    before = torch.from_numpy(found.logits["zero"])
    after = (before[:, None] + torch.from_numpy(e)).softmax(-1)[..., 0]
    assert np.allclose(found.on(probability(0), "zero"), after - before.softmax(-1)[:, None, 0], atol=1e-6)


def test_images_go_with_their_rows_where_the_whole_model_is_run(acts, x):
    class Bypassed(Counting):
        def logits(self, acts_bnd, x=None):
            assert x.shape[1:] == (1, 4, 4)
            return super().logits(acts_bnd) * (1 + x[:, 0, 0, :1])

    plain = feature_effects(Counting(), SparseCodes(), acts[:IMAGES], acts[IMAGES:], [zero(), towards(1)], seed=1)
    scaled = feature_effects(
        Bypassed(), SparseCodes(), acts[:IMAGES], acts[IMAGES:], [zero(), towards(1)], x=x[:IMAGES], x_reference=x[IMAGES:], seed=1
    )  # fmt: skip
    for name, rows in (("zero", x[:IMAGES]), ("towards", x[IMAGES:])):
        factor = (1 + rows[:, 0, 0, 0]).numpy()[:, None, None]
        assert np.allclose(scaled.effects[name], plain.effects[name] * factor)


def test_logits_do_not_depend_on_the_batch(acts):
    run = Counting()
    assert torch.equal(logits_in_batches(run, acts, 2), run.logits(acts))


def test_a_feature_that_does_not_exist_is_named(acts):
    with pytest.raises(ConfigError, match="no feature 9: the encoder has 0 to 8"):
        feature_effects(Counting(), SparseCodes(), acts, acts, features=[9])


def test_activations_of_another_site_are_refused(acts):
    with pytest.raises(ShapeError, match="capture both at the same site"):
        feature_effects(Counting(), SparseCodes(), acts, acts[:, :3])


def test_an_empty_batch_is_refused(acts):
    with pytest.raises(ConfigError, match="batch is 0"):
        feature_effects(Counting(), SparseCodes(), acts, acts, batch=0)


def test_the_package_gives_its_names_when_they_are_used():
    assert circuits.feature_effects is feature_effects
    assert "verdict" in dir(circuits)
    for name in circuits.__all__:
        assert getattr(circuits, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'wrong'"):
        _ = circuits.wrong
