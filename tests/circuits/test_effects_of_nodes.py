"""Effects against slow twins, against each other, and against captum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import one_thread, small_images, small_vit
from torch import nn

from circuits import effects, features, heads, loss, neurons, regression, whole
from circuits.ablations import counterfactual, draw, mean, resample, zero
from circuits.metrics import OfLogits, PerImage, as_metric
from circuits.node_results import Effects
from circuits.nodes import NodeSet
from mechinterp import intervene, logit, run_with_cache
from mechinterp.errors import ConfigError, HashMismatchError, ImagesError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.models.discovery import discover_sites
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.sites import Site

SITE = "blocks.0.hook_resid_post"
IMAGES = 5


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


class Sparse:
    """A small SAE that reconstructs badly on purpose."""

    kind, site, d_in, width, weights_hash = "sae", SITE, 8, 11, "x"

    def __init__(self):
        generator = torch.Generator().manual_seed(5)
        self.encoder = torch.randn(8, 11, generator=generator, dtype=torch.float64)
        self.directions = torch.randn(11, 8, generator=generator, dtype=torch.float64)

    def encode(self, x):
        return (x @ self.encoder - 1.0).relu()

    def decode(self, z):
        return z @ self.directions + 0.1


@pytest.fixture(scope="module")
def vit():
    return small_vit()


@pytest.fixture(scope="module")
def x():
    return small_images(IMAGES)


@pytest.fixture(scope="module")
def reference():
    return small_images(IMAGES, seed=9)


def replaced_parts(encoder, acts, reference_acts, ablation, i, seed=0):
    """What is put in place of image i's codes and error, by the definition of each ablation."""
    codes, error = encoder.encode(reference_acts), None
    error = reference_acts - encoder.decode(codes)
    if ablation.name == "zero":
        return [(torch.zeros_like(codes[0]), torch.zeros_like(error[0]))]
    if ablation.name == "mean":
        return [(codes.mean(0), error.mean(0))]
    picks = [i] if ablation.paired else draw(ablation, IMAGES, len(reference_acts), seed)[i]
    return [(codes[j], error[j]) for j in picks]


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(2), counterfactual()], ids=lambda a: a.name)
def test_exact_effects_equal_a_slow_twin_with_whole_forward_passes(vit, x, reference, ablation):
    sae = Sparse()
    found = effects(
        logit(1), features(sae), model=vit, images=x, reference=reference, ablation=ablation, batch=3, rows=4
    )
    with torch.no_grad():
        acts, others = (run_with_cache(vit, images, [SITE])[SITE] for images in (x, reference))
        slow = np.zeros((IMAGES, 12))
        for i in range(IMAGES):
            parts = replaced_parts(sae, acts, others, ablation, i)
            before = vit.module(x[i : i + 1])[0, 1]
            codes = sae.encode(acts[i])
            for codes_new, error_new in parts:
                for f in range(12):

                    def edit(a, f=f, codes_new=codes_new, error_new=error_new, codes=codes, i=i):
                        if f == 11:
                            return a - (acts[i] - sae.decode(codes)) + error_new
                        return a + ((codes_new - codes)[:, f : f + 1] @ sae.directions[f : f + 1])

                    with intervene(vit, {SITE: edit}):
                        after = vit.module(x[i : i + 1])[0, 1]
                    slow[i, f] += float(after - before) / len(parts)
    assert np.abs(found.values[:, :, 0] - slow).max() < 1e-6
    assert found.nodes[-1].kind == "error"


def test_a_head_a_layer_and_a_token_are_nodes_too(vit, x):
    z = "blocks.1.attn.hook_z"
    by_head = effects(logit(0), heads(vit, z, 2), model=vit, images=x, ablation=zero())
    with torch.no_grad():
        for h in range(2):
            with intervene(vit, {z: lambda a, h=h: a * (torch.arange(8) // 4 != h)}):
                after = vit.module(x)[:, 0]
                after = after.detach()
            assert np.allclose(by_head.values[:, h, 0], (after - vit.module(x)[:, 0].detach()).numpy(), atol=1e-6)
    both = effects(logit(0), whole(vit, z), model=vit, images=x, ablation=zero())
    assert both.values.shape == (IMAGES, 1, 1)
    tokens = effects(logit(0), whole(vit, z), model=vit, images=x, ablation=zero(), resolution="token")
    with torch.no_grad(), intervene(vit, {z: lambda a: a * (torch.arange(10) != 3)[:, None]}):
        after = vit.module(x)[:, 0]
    assert np.allclose(tokens.values[:, 0, 3], (after - vit.module(x)[:, 0]).detach().numpy(), atol=1e-6)


def test_a_region_is_changed_as_one(vit, x):
    z = "blocks.0.hook_mlp_out"
    regions = torch.full((IMAGES, 10), -1)
    regions[:, 1:4], regions[:, 4:8] = 0, 1
    found = effects(logit(2), whole(vit, z), model=vit, images=x, ablation=zero(), resolution="region", regions=regions)
    with torch.no_grad(), intervene(vit, {z: lambda a: a * (regions[0] != 1)[:, None]}):
        after = vit.module(x)[:, 2]
    assert found.values.shape == (IMAGES, 1, 2)
    assert np.allclose(found.values[:, 0, 1], (after - vit.module(x)[:, 2]).detach().numpy(), atol=1e-6)
    linear = effects(
        logit(2), whole(vit, z), model=vit, images=x, ablation=zero(), resolution="region", regions=regions, method="attribution"
    )  # fmt: skip
    tokens = effects(
        logit(2), whole(vit, z), model=vit, images=x, ablation=zero(), resolution="token", method="attribution"
    )
    assert np.allclose(linear.values[:, 0, 1], tokens.values[:, 0, 4:8].sum(1), atol=1e-6)
    with pytest.raises(ConfigError, match="do not add up to a node"):
        found.mean()


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(2)], ids=lambda a: a.name)
def test_integrated_along_a_nodes_own_way_is_its_exact_effect(vit, x, ablation):
    settings = {"model": vit, "images": x[:2], "ablation": ablation}
    exact = effects(logit(1), features(Sparse()), **settings)
    steps = 256 if ablation.name == "zero" else 32  # the way to zero ends where a normalisation turns over
    own = effects(logit(1), features(Sparse()), method="integrated-own", steps=steps, **settings)
    assert np.abs(exact.per_image - own.per_image).max() < 1e-3 * np.abs(exact.per_image).max()


@pytest.mark.parametrize("ablation", [zero(), mean(), resample(1)], ids=lambda a: a.name)
def test_integrated_along_the_joint_way_sums_to_the_whole_sites_effect(vit, x, ablation):
    settings = {"model": vit, "images": x, "ablation": ablation}
    steps = 400 if ablation.name == "zero" else 48
    joint = effects(logit(1), features(Sparse()), method="integrated", steps=steps, **settings)
    total = effects(logit(1), whole(vit, SITE), **settings)
    scale = np.abs(total.per_image).max()
    assert np.abs(joint.per_image.sum(1) - total.per_image[:, 0]).max() < 1e-3 * scale


def test_attribution_is_exact_where_the_rest_is_linear(x):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)).double().eval()
    model = VisionModel(
        module, "t", InputContract(12, 12, 1), ("a", "b", "c"), "logits", {"s": Site("s", "1", "output", "map", 4, 9)}
    )
    for method in ("attribution", "integrated", "integrated-own"):
        near = effects(logit(1), neurons(model, "s"), model=model, images=x, method=method)
        exact = effects(logit(1), neurons(model, "s"), model=model, images=x)
        assert np.abs(near.per_image - exact.per_image).max() < 1e-6
    assert near.nodes[0].kind == "channel"


def test_captum_agrees_on_integrated_gradients_of_a_layer(vit, x, reference):
    from captum.attr import LayerIntegratedGradients

    lig = LayerIntegratedGradients(vit.module, vit.module.blocks[0])
    theirs = lig.attribute(x, baselines=reference, target=1, n_steps=60, method="gausslegendre")
    # captum walks through the image, ours through the activation: at the site itself ours walks where captum is told to
    acts = run_with_cache(vit, x, [SITE])[SITE].detach()
    others = run_with_cache(vit, reference, [SITE])[SITE].detach()
    joint = effects(
        logit(1), neurons(vit, SITE), model=vit, images=x, reference=reference, ablation=counterfactual(),
        method="integrated", steps=60, resolution="token",
    )  # fmt: skip

    class FromBlock(nn.Module):
        def forward(self, a):
            return vit.module.forward_head(vit.module.norm(vit.module.blocks[1](a)))

    from captum.attr import IntegratedGradients

    same = IntegratedGradients(FromBlock()).attribute(
        acts, baselines=others, target=1, n_steps=60, method="gausslegendre"
    )
    # theirs is the change from baseline to input, ours from the input to what is put in place
    assert np.abs(joint.values.transpose(0, 2, 1) + same.detach().numpy()).max() < 1e-5
    assert torch.allclose(theirs.sum((1, 2)), same.sum((1, 2)), atol=1e-3)  # both sum to the same total


def test_attribution_costs_one_pass_each_way_however_many_nodes_and_sites(vit, x):
    calls = {"forward": 0, "backward": 0}
    handle = vit.module.register_forward_hook(lambda *_: calls.__setitem__("forward", calls["forward"] + 1))
    before = torch.autograd.grad

    def counted(*args, **kwargs):
        calls["backward"] += 1
        return before(*args, **kwargs)

    torch.autograd.grad = counted
    try:
        found = effects(
            logit(1), [neurons(vit, SITE), features(Directions("blocks.1.hook_resid_post", torch.eye(8).double(), torch.zeros(8).double()))],
            model=vit, images=x, reference=x.flip(0), ablation=counterfactual(), method="attribution",
        )  # fmt: skip
    finally:
        torch.autograd.grad = before
        handle.remove()
    assert len(found.nodes) == 8 + 8 + 1
    assert calls["backward"] == 1
    # beside the gradient's own: the order of the sites (partial), the images as they are, and their partners
    assert calls["forward"] <= 3
    assert found.passes == {"forward": 1, "backward": 1}


def test_graddrop_shows_effects_that_cancel(vit, x):
    found = effects(logit(1), neurons(vit, SITE), model=vit, images=x, method="graddrop")
    assert (found.per_image >= 0).all()
    assert found.per_image.max() > 0
    assert found.passes["backward"] == 2


def test_frozen_everything_makes_attribution_exact(vit, x):
    settings = {"model": vit, "images": x, "freeze": frozenset({"attention", "norm", "gates"}), "ablation": resample(1)}
    exact = effects(logit(1), neurons(vit, SITE), **settings)
    linear = effects(logit(1), neurons(vit, SITE), method="attribution", **settings)
    live = effects(logit(1), neurons(vit, SITE), **{**settings, "freeze": frozenset()})
    assert np.abs(exact.per_image - linear.per_image).max() < 1e-5
    assert np.abs(live.per_image - linear.per_image).max() > 1e-2


def test_metrics_of_every_kind(vit, x):
    labels = [0, 1, 2, 0, 1]
    z = vit.logits(x).detach()
    rows = torch.arange(IMAGES)
    expected = nn.functional.cross_entropy(z, torch.tensor(labels), reduction="none")
    assert torch.allclose(loss(labels).at(z, rows), expected)
    assert torch.equal(regression(2, "mm").at(z, rows), z[:, 2])
    assert regression(2, "mm").name == "output 2 [mm]"
    assert torch.equal(as_metric(lambda t: t.sum(1), vit).at(z, rows), z.sum(1))
    masks = torch.rand(IMAGES, 3, dtype=torch.float64)
    overlap = PerImage(lambda t, m: (t * m).sum(1), masks, "overlap")
    assert torch.allclose(overlap.at(z[[3, 1]], torch.tensor([3, 1])), (z[[3, 1]] * masks[[3, 1]]).sum(1))
    # the loss's effect belongs to each image's own label, also in later batches
    found = effects(loss(labels), whole(vit, SITE), model=vit, images=x, ablation=zero(), batch=2)
    with torch.no_grad(), intervene(vit, {SITE: lambda a: a * 0}):
        after = nn.functional.cross_entropy(vit.module(x), torch.tensor(labels), reduction="none")
    assert np.allclose(found.values[:, 0, 0], (after - expected).numpy(), atol=1e-6)
    with pytest.raises(ShapeError, match="return one number per row"):
        OfLogits(lambda t: t, "whole").at(z, rows)
    with pytest.raises(ShapeError, match="knows 5 images but is asked for number 7"):
        loss(labels).at(z, rows + 3)
    with pytest.raises(ConfigError, match="a metric cannot be made of a int"):
        as_metric(3, vit)


def test_the_loss_of_a_single_output_is_binary_and_changes():
    """A softmax over one output is 1, so that its loss would be 0 whatever is changed."""
    module = nn.Sequential()
    module.add_module("stage", nn.Conv2d(1, 2, 1))
    module.add_module("pool", nn.AdaptiveAvgPool2d(1))
    module.add_module("flat", nn.Flatten())
    module.add_module("head", nn.Linear(2, 1))
    torch.manual_seed(0)
    contract = InputContract(4, 4, 1, mean=(0.0,), std=(1.0,))
    sites = discover_sites(module.eval(), contract)
    model = VisionModel(module, "tests:one", contract, ("ill",), "logits", sites, activation="sigmoid")
    x, labels = torch.randn(6, 1, 4, 4), [0, 1, 1, 0, 1, 0]
    p = model.probabilities(model.logits(x)).detach()[:, 0]
    expected = -torch.where(torch.tensor(labels) == 1, p, 1 - p).log()
    torch.testing.assert_close(as_metric(loss(labels), model).at(model.logits(x).detach(), torch.arange(6)), expected)
    found = effects(loss(labels), whole(model, "stage"), model=model, images=x, ablation=zero(), batch=4)
    bias = torch.sigmoid(module.head.bias.detach())
    after = -torch.where(torch.tensor(labels) == 1, bias, 1 - bias).log()
    assert np.allclose(found.values[:, 0, 0], (after - expected).numpy(), atol=1e-6)
    assert np.abs(found.values).min() > 0
    # said of a model that was put together without telling its activation, too
    silent = replace(model, activation="softmax")
    torch.testing.assert_close(as_metric(loss(labels), silent).at(silent.logits(x).detach(), torch.arange(6)), expected)
    with pytest.raises(ConfigError, match="give 0 or 1 for each image, whether it shows it"):
        as_metric(loss([0, 2]), model)


def test_the_loss_of_several_findings_is_the_sum_of_their_own(vit, x):
    findings = replace(vit, activation="sigmoid")
    labels = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 1]])
    z = vit.logits(x).detach()
    p = z.sigmoid().numpy()
    expected = -np.where(labels == 1, np.log(p), np.log(1 - p)).sum(1)
    assert np.allclose(as_metric(loss(labels), findings).at(z, torch.arange(IMAGES)).numpy(), expected)
    with pytest.raises(ConfigError, match=r"of 3 outputs with a sigmoid: give 0 or 1 for each image, a row of 3"):
        as_metric(loss([0, 1, 2, 0, 1]), findings)
    with pytest.raises(ConfigError, match="give each image's, 0 to 2"):
        as_metric(loss([0, 1, 3, 0, 1]), vit)
    with pytest.raises(ConfigError, match="which answers one of its outputs"):
        as_metric(loss(labels), vit)


def test_an_interrupted_run_goes_on_where_it_was(vit, x, tmp_path, monkeypatch):
    import circuits.exact as exact_module

    monkeypatch.setattr(exact_module, "BLOCK", 4)
    seen = []

    class Stopping:
        def __init__(self, after):
            self.after = after

        def track(self, items, description, total=None):
            for k, item in enumerate(items):
                if k == self.after:
                    raise KeyboardInterrupt
                seen.append(description)
                yield item

        def note(self, text):
            pass

    settings = {"model": vit, "images": x, "keep": tmp_path / "kept", "ablation": zero()}
    with pytest.raises(KeyboardInterrupt):
        effects(logit(1), features(Sparse()), progress=Stopping(1), **settings)
    assert len(list((tmp_path / "kept").glob("*.safetensors"))) == 1
    ran = []
    original = exact_module.ExactRuns._image
    monkeypatch.setattr(exact_module.ExactRuns, "_image", lambda s, *a: ran.append(a) or original(s, *a))
    resumed = effects(logit(1), features(Sparse()), **settings)
    assert len(ran) == 2 * IMAGES  # one block of three was there
    fresh = effects(logit(1), features(Sparse()), **{**settings, "keep": None})
    assert np.array_equal(resumed.values, fresh.values)
    with pytest.raises(HashMismatchError, match="name another folder"):
        effects(logit(1), features(Sparse()), **{**settings, "ablation": mean()})


def test_norms_and_distances_say_what_was_removed(vit, x):
    found = effects(logit(1), neurons(vit, SITE), model=vit, images=x, ablation=zero())
    acts = run_with_cache(vit, x, [SITE])[SITE].detach()
    assert np.allclose(found.norms, acts.norm(dim=1).numpy(), atol=1e-5)
    assert np.isfinite(found.off_data).all()
    sets = found.matched_nodes(np.array([0, 3]), n_sets=20)
    assert sets.shape == (20, 2)


def test_results_are_ranked_have_intervals_and_a_figure(vit, x):
    found = effects(logit(1), neurons(vit, SITE), model=vit, images=small_images(10), groups=range(10), ablation=zero())
    sizes = np.abs(found.per_image).mean(0)
    assert found.top(3).tolist() == np.argsort(-sizes, kind="stable")[:3].tolist()
    assert found.interval(0).low <= found.mean()[0] <= found.interval(0).high
    json = found.to_json(2)
    assert [row["index"] for row in json["nodes"]] == found.top(2).tolist()
    assert json["puts"].startswith("The features are switched off")
    assert len(found.figure(3).data[0].y) == 4
    nobody = effects(logit(1), neurons(vit, SITE), model=vit, images=x)
    assert nobody.interval(0).reason == "not estimable (no patients given)"
    assert isinstance(found, Effects)


def test_mistakes_are_named(vit, x):
    sets = neurons(vit, SITE)
    wrong = {
        "no method 'guess'": {"method": "guess"},
        "regions go together": {"resolution": "region"},
        "each must be at least 1": {"rows": 0},
        "each image's own partner": {"ablation": counterfactual()},
    }
    for message, settings in wrong.items():
        with pytest.raises((ConfigError, ShapeError), match=message):
            effects(logit(1), sets, model=vit, images=x, **settings)
    with pytest.raises(ImagesError, match="there is no image"):
        effects(logit(1), sets, model=vit, images=x[:0])
    with pytest.raises(ImagesError, match="no other to take values from"):
        effects(logit(1), sets, model=vit, images=x[:1], ablation=resample(1))
    with pytest.raises(ConfigError, match="has no feature 8"):
        NodeSet(Neurons(SITE, 8), ((8,),))
    with pytest.raises(ConfigError, match="1 names for 8 nodes"):
        NodeSet(Neurons(SITE, 8), names=("a",))
    with pytest.raises(ShapeError, match="3 groups for 5 images"):
        effects(logit(1), sets, model=vit, images=x, groups=[0, 0, 0])
    with pytest.raises(ConfigError, match="does not say how many heads"):
        heads(vit, SITE, 3)
    with pytest.raises(ConfigError, match="is given twice"):
        effects(logit(1), [sets, sets], model=vit, images=x)
    with pytest.raises(ConfigError, match="needs nodes"):
        effects(logit(1), [], model=vit, images=x)
