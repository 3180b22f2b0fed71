"""Agreement of estimates with exact effects is measured where a circuit was found, and named where it falls short."""

import numpy as np
import pytest
import torch
from small_models import one_thread, planted_wiring, small_images, small_vit

from circuits import FindConfig, effects, find_circuit, heads, mean, neurons, resample, zero
from circuits.agreements import Agreement, agreement, agreement_of, agreement_sentence, some_of
from circuits.nodes import features
from mechinterp import logit
from mechinterp.feature_encoder import Directions
from mechinterp.statistics import spearman


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def test_it_is_the_rank_correlation_over_images_and_nodes():
    vit, x = small_vit(), small_images(5)
    nodes = neurons(vit, "blocks.0.hook_resid_post")
    settings = {"model": vit, "images": x, "ablation": resample(1)}
    exact, near = (effects(logit(1), nodes, method=m, **settings).per_image for m in ("exact", "attribution"))
    (found,) = agreement(logit(1), [nodes], **settings)
    assert found.rho == pytest.approx(spearman(exact.reshape(-1, 1), near.reshape(-1, 1))[0, 0])
    assert (found.nodes, found.images, found.method, found.ablation) == (8, 5, "attribution", "resample")


def test_where_the_rest_is_linear_attribution_is_exact():
    vit, x = small_vit(), small_images(4)
    encoder = Directions("logits_in", torch.eye(8, dtype=torch.float64)[:3], torch.zeros(8, dtype=torch.float64))
    site = next(name for name in reversed(list(vit.sites)) if vit.sites[name].width == 8)
    nodes = features(Directions(site, encoder.unit_directions, encoder.mean))
    (found,) = agreement(logit(1), [nodes], model=vit, images=x, ablation=zero(), most_nodes=2)
    assert found.nodes == 3  # two of the three, and the error
    assert found.rho > 0.9


def test_nodes_that_no_image_tells_apart_do_not_count_as_agreement():
    _, shown, w = planted_wiring("cnn")
    same = shown.x[:1].repeat(3, 1, 1, 1)
    found = agreement(logit(1), w.layers, model=w.model, images=same, ablation=mean())
    assert all(np.isnan(a.rho) and a.falls_short for a in found)
    assert found[0].to_json()["rho"] is None
    assert "no effect differs" in agreement_sentence(found)


def test_some_nodes_of_a_set_are_the_same_nodes():
    vit = small_vit()
    some = some_of(heads(vit, "blocks.0.attn.hook_z", 2), [1])
    assert some.members == ((4, 5, 6, 7),)
    assert some.names == ("blocks.0 head 1",)


def test_a_circuits_own_method_is_held_against_exact_effects():
    planted, shown, w = planted_wiring("cnn")
    config = FindConfig(method="eap-ig", steps=2, discovery="top-n", top=20, boot=100)
    circuit = find_circuit(planted.model, shown.x, metric=logit(1), sites=list(w.sites), config=config)
    found = agreement_of(circuit, images=3, most_nodes=5)
    assert [a.site for a in found] == list(w.sites)
    assert {a.method for a in found} == {"integrated"}
    assert all(a.images == 3 and a.nodes <= 5 for a in found)


def test_the_sentence_names_the_sites_that_fall_short():
    near, far = (Agreement(s, "attribution", "resample", r, 4, 2) for s, r in (("late", 0.97), ("early", 0.5)))
    assert agreement_sentence([near]) == "Attribution ranks effects as exact ones do at every site (ρ ≥ 0.97)."
    assert "at early (ρ 0.50, resample): measure exactly there" in agreement_sentence([near, far])
