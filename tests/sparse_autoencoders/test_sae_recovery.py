"""Trained on activations of a known dictionary, autoencoders find it; what was not trained does not."""

import pytest
import torch
from memory_store import MemoryStore

from sparse_autoencoders.baselines import principal_components, random_sae
from sparse_autoencoders.ground_truth import (
    DictionarySettings,
    SyntheticDictionary,
    matching_pursuit_codes,
    recovery,
    topk_codes,
)
from sparse_autoencoders.metrics import training_images
from sparse_autoencoders.training import train_saes

K = 4
SETTINGS = {
    "plain": DictionarySettings(width=40, features=60, active=K),
    "hard": DictionarySettings(width=40, features=60, active=K, zipf=0.5, correlation=0.3, children=15),
}


@pytest.fixture(scope="module", params=list(SETTINGS))
def dictionary(request):
    truth = SyntheticDictionary(SETTINGS[request.param])
    generator = torch.Generator().manual_seed(1)
    store = MemoryStore(truth.draw(6000, generator)[0].reshape(60, 100, 40))
    return request.param, truth, store, *truth.draw(1000, generator)


def found(dictionary, encoder, codes=topk_codes):
    _, truth, _, x, true_codes = dictionary
    return recovery(encoder.directions, encoder.encode(x), truth, true_codes, codes(x, truth.directions, K))


def trained(dictionary, arch):
    settings = {"k": K, "expansion": 1.5, "batch_size": 128, "steps": 1200, "lr": 3e-3}
    return train_saes(dictionary[2], arch=arch, **settings)[0]


def controls(dictionary):
    store = dictionary[2]
    images = training_images(store)
    return [random_sae(store, "site", images, 60, K), principal_components(store, "site", images)]


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "read"), [("topk", topk_codes), ("matching-pursuit", matching_pursuit_codes)])
def test_training_finds_what_controls_do_not(dictionary, arch, read):
    score = found(dictionary, trained(dictionary, arch), read)
    assert score.cosine > max(found(dictionary, control).cosine for control in controls(dictionary)) + 0.2
    if dictionary[0] == "plain":
        assert score.cosine > 0.9
        assert score.f1 >= 0.95 * score.oracle_f1
