"""What a feature holds beside its own is found where it is there, and only there."""

import pytest
import torch
from memory_store import MemoryStore

from sparse_autoencoders import waking
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.ground_truth import DictionarySettings, SyntheticDictionary, recovery
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.merged import held_beside
from sparse_autoencoders.saelens import SAELensLearner
from sparse_autoencoders.single_training import make_learner
from sparse_autoencoders.training import train_saes

WIDTH, ROWS = 24, 3000
EVERY = torch.ones(9, dtype=torch.bool)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def merged(share=0.5, noise=0.05):
    """Return rows, codes and directions of eight features, the first of which is a parent with a part of its child, the ninth.

    The child fires in that share of its parent's rows, all others fire in a tenth of all.
    """
    g = generator(1)
    true = torch.linalg.qr(torch.randn(WIDTH, 9, generator=g)).Q.T.contiguous()
    values = (torch.rand(ROWS, 9, generator=g) < 0.1) * (0.5 + torch.rand(ROWS, 9, generator=g))
    with_child = (torch.rand(ROWS, generator=g) < share) & (values[:, 0] > 0)
    values[:, 8] = with_child * (0.5 + torch.rand(ROWS, generator=g))
    x = values @ true + noise * torch.randn(ROWS, WIDTH, generator=g)
    directions = true.clone()
    directions[0] = torch.nn.functional.normalize(true[0] + share * true[8], dim=0)
    codes = values.clone()
    codes[:, 0] = (values[:, 0] > 0) * (x @ directions[0])
    codes[:, 8] = 0
    return x, codes, directions, true


def found_in(codes, left_over, directions, heard=EVERY, n=9):
    return held_beside(codes.to_sparse_csr(), left_over, directions, heard, n, generator())


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_the_child_is_found_with_its_sign_and_its_length(share):
    x, codes, directions, true = merged(share)
    heard = torch.arange(9) < 8
    (found,) = found_in(codes, x - codes @ directions, directions, heard)
    assert torch.nn.functional.cosine_similarity(found, true[8], dim=0) > 0.95
    # it is worth between 0.5 and 1.5; where it is worth little its rows count as the parent's
    assert 0.8 < float(found.norm()) < 1.1


def test_what_the_dictionary_says_already_is_not_found_again():
    x, codes, directions, _ = merged()
    assert len(found_in(codes, x - codes @ directions, directions)) == 0


def test_noise_holds_nothing_even_where_it_is_not_the_same_in_all_directions():
    _, codes, directions, _ = merged()
    noise = torch.randn(ROWS, WIDTH, generator=generator(2)) @ torch.randn(WIDTH, WIDTH, generator=generator(3))
    assert len(found_in(codes, noise, directions)) == 0


def test_of_few_rows_nothing_is_said():
    x, codes, directions, _ = merged()
    heard = torch.arange(9) < 8
    few = (codes[:, 0] > 0).nonzero().flatten()[:31]
    codes[:, 0] = torch.zeros(ROWS).index_copy(0, few, codes[few, 0])
    assert len(found_in(codes, x - codes @ directions, directions, heard)) == 0


def test_where_nothing_is_left_over_nothing_is_found():
    _, codes, directions, _ = merged()
    assert len(found_in(codes, torch.zeros(ROWS, WIDTH), directions)) == 0


def test_what_two_features_hold_is_found_once_and_no_more_than_wanted():
    x, codes, directions, _ = merged()
    heard = torch.arange(9) < 8
    left_over = x - codes @ directions
    twice = torch.cat([codes, codes[:, :1]], dim=1), torch.cat([directions, directions[:1]])
    assert len(found_in(twice[0], left_over, twice[1], torch.cat([heard, heard[:1]]))) == 1
    assert len(found_in(codes, left_over, directions, heard, n=0)) == 0


@pytest.mark.parametrize("kind", ["own", "sae-lens"])
@pytest.mark.parametrize("arch", ["topk", "batchtopk"])
def test_a_silent_feature_becomes_the_child(kind, arch):
    x, _, directions, true = merged(noise=0.01)
    config = TrainSAEConfig(arch=arch, k=2)
    begin = start("data", x, 9, 2, generator(1))
    begin.W_dec[:] = directions
    begin.W_enc[:] = directions.T
    begin.W_enc[:, 8] *= 0.01
    begin.W_dec[8] = true[0]
    learner = make_learner(begin, config, 3, 0) if kind == "own" else SAELensLearner(begin, config, 3, 0)
    learner.step(x, lr=1e-6, k=2)
    assert learner.wake(torch.arange(9) == 8, x, generator(), apart=True) == 1
    decoder = learner.trained()["decoder" if kind == "own" else "W_dec"]
    assert torch.nn.functional.cosine_similarity(decoder[8], true[8], dim=0) > 0.9


@pytest.mark.slow
def test_children_are_found_by_taking_merged_features_apart(monkeypatch):
    truth = SyntheticDictionary(DictionarySettings(width=48, features=160, active=6, children=60))
    x, codes = truth.draw(20_000, generator())
    store = MemoryStore(x.view(200, 100, 48), splits=["train"] * 160 + ["test"] * 40)
    children = (truth.parent >= 0).nonzero().flatten()

    def found():
        sae = train_saes(store, arch="batchtopk", k=6, expansion=160 / 48, steps=800, batch_size=512, lr=3e-3)[0]
        cosine = torch.nn.functional.normalize(sae.directions, dim=1) @ truth.directions[children].T
        scores = recovery(sae.directions, sae.encode(x[16_000:]), truth, codes[16_000:], codes[16_000:])
        return float(cosine.amax(0).mean()), scores.f1

    cosine, f1 = found()
    monkeypatch.setattr(waking, "_APART", 10**9)
    cosine_without, f1_without = found()
    assert cosine > cosine_without + 0.05
    assert f1 > f1_without + 0.02
