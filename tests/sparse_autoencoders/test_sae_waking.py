"""A silent feature gets a place where it has something to say: a cluster of rows, its left-over as decoder, a bar it just reaches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_store import MemoryStore
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mechinterp.errors import ConfigError
from sparse_autoencoders import checkpoint, evaluate_sae, train_saes, waking
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import paired_start, start
from sparse_autoencoders.saelens import SAELensLearner
from sparse_autoencoders.single_training import make_learner
from sparse_autoencoders.transcoder_learner import TranscoderLearner
from sparse_autoencoders.waking import (
    Look,
    Waking,
    bar_of_batch,
    bar_of_rows,
    displaced,
    due,
    longest,
    moments_of_new,
    places,
    rows_for,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_bar_is_a_rows_weakest_code_and_never_zero():
    assert bar_of_rows(torch.tensor([[9.0, 5], [3, 8], [4, 0]])).tolist() == pytest.approx([5, 3, 0], abs=1e-6)
    assert float(bar_of_rows(torch.zeros(1, 2))) > 0


def test_a_whole_batchs_bar_leaves_a_tenth_of_the_places_or_half_a_code_a_row():
    codes = torch.randperm(100, generator=generator()) + 1.0
    assert bar_of_batch(codes, 50).tolist() == [11.0] * 50
    assert bar_of_batch(codes, 10).tolist() == [6.0] * 10
    assert bar_of_batch(codes[:0], 3).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_what_is_displaced_is_what_the_weakest_code_writes():
    decoder = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]])
    found = displaced(torch.tensor([[9.0, 5], [8, 4]]), torch.tensor([[0, 1], [0, 2]]), decoder)
    assert torch.allclose(found, torch.tensor([[0.0, 5], [2.4, 3.2]]))


def test_those_that_have_been_silent_longest_come_first():
    silent_for = torch.tensor([3, 9, 0, 9, 5])
    assert longest(silent_for, silent_for > 2).tolist() == [1, 3, 4, 0]


def grouped(rows=500):
    """Return rows of two groups, the first fifty's left-over along one direction and the others' next to nothing."""
    noise = torch.randn(rows, 4, generator=generator())
    read = 0.3 * noise + torch.tensor([3.0, 0, 0, 0]) * (torch.arange(rows) < 50)[:, None]
    left_over = torch.full((rows, 4), 1e-6)
    left_over[:50] = torch.tensor([0.0, 3, 4, 0])
    return read, left_over


def test_a_place_is_where_something_is_left_over_and_writes_that():
    read, left_over = grouped()
    found = places(torch.tensor([7]), read, left_over, torch.ones(500), 1.0, generator())
    assert found.features.tolist() == [7]
    assert torch.allclose(found.decoder, torch.tensor([[0.0, 0.6, 0.8, 0]]), atol=1e-5)
    reached = (read @ found.encoder.T + found.bias >= 1).flatten()
    assert reached.sum() == 1  # a five hundredth of the rows
    assert reached[:50].all() or not reached[50:].any()


def test_its_encoder_is_fishers_discriminant(monkeypatch):
    monkeypatch.setattr(waking, "_RIDGE", 0.0)
    monkeypatch.setattr(waking, "_CLUSTER", 0.1)
    read, left_over = grouped()
    found = places(torch.tensor([0]), read, left_over, torch.ones(500), 1.0, generator())
    other = LinearDiscriminantAnalysis(solver="lsqr").fit(read.numpy(), np.arange(500) < 50).coef_
    cosine = torch.nn.functional.cosine_similarity(found.encoder.double(), torch.from_numpy(other).double())
    assert float(cosine) == pytest.approx(1, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40), norm=st.floats(0.1, 10))
def test_every_place_is_heard_on_as_many_rows_as_its_cluster_has_and_none_is_too_loud(seed, n, norm):
    random = generator(seed)
    read, left_over = torch.randn(2000, 5, generator=random), torch.randn(2000, 3, generator=random)
    bar = torch.rand(2000, generator=random) + 0.5
    found = places(torch.arange(n) + 3, read, left_over, bar, norm, random)
    said = read @ found.encoder.T + found.bias
    # the fourth reaches the bar by a ten thousandth; what lies between is a matter of rounding
    assert (said >= bar[:, None]).sum(0).min() >= 4
    assert (said > 1.00011 * bar[:, None]).sum(0).max() < 4
    norms = found.encoder.norm(dim=1)
    assert ((norms >= 0.299 * norm) & (norms <= 1.001 * norm)).all()
    assert torch.allclose(found.decoder.norm(dim=1), torch.ones(n), atol=1e-5)


def test_there_is_room_for_no_more_than_half_of_the_rows_and_the_first_candidates_get_it():
    x = torch.randn(1000, 4, generator=generator())
    found = places(torch.arange(600).flip(0), x, x, torch.ones(1000), 1.0, generator())
    assert found.features.tolist() == list(range(599, 349, -1))


def test_where_nothing_is_left_over_none_is_woken():
    x = torch.randn(100, 4, generator=generator())
    assert len(places(torch.arange(5), x, torch.zeros(100, 4), torch.ones(100), 1.0, generator()).features) == 0


def test_a_very_wide_dictionary_is_looked_at_on_fewer_rows():
    assert rows_for(1536) == 8192
    assert rows_for(1 << 16) == 512
    assert rows_for(1 << 30) == 1


def test_silence_is_looked_for_once_in_as_many_steps_as_it_lasts_and_not_in_the_last_ones():
    assert [step for step in range(100) if due(step, 100, 40, 4096, 0.5)] == [19, 39, 59, 79]
    assert [step for step in range(200) if due(step, 200, 40, 4096, 0.1)][-1] == 195
    assert due(19, 100, 40, 4096, 0.5) == Look(20, apart=False)
    assert due(0, 100, 40, 1 << 14, 0.001) == Look(1, apart=False)
    assert not any(due(step, 100, 40, 4096, 0.0) for step in range(100))


def test_one_look_in_four_takes_merged_features_apart():
    looks = [due(step, 200, 40, 4096, 0.5) for step in range(19, 190, 20)]
    assert [look.apart for look in looks if look] == [False, False, False, True] * 2 + [False]


def test_silence_by_chance_is_none():
    # heard on two of a thousand rows: sixteen times in eight thousand
    assert due(79, 100, 40, 100, 0.001) == Look(80, apart=False)
    assert due(19, 100, 40, 100, 0.001) is None


@pytest.fixture
def sample():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


def asleep(arch, learner_class, sample):
    """Return a learner after a step, its first two features' encoders small, what it was and a switch to its rows by name."""
    config = TrainSAEConfig(arch=arch, k=3)
    begin = start("data", sample, 12, 3, generator(1))
    learner = make_learner(begin, config, 3, 0) if learner_class == "own" else SAELensLearner(begin, config, 3, 0)
    learner.step(sample, lr=1e-3, k=3)
    names = ("encoder", "bias", "decoder") if learner_class == "own" else ("W_enc", "b_enc", "W_dec")

    def rows():
        trained = learner.trained()
        return [trained[name].T if name == "W_enc" else trained[name] for name in names]

    rows()[0][:2] *= 0.1
    learner.refresh()
    return learner, rows


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matryoshka"])
def test_both_kinds_of_learner_wake_the_same(arch, apart, sample):
    silent, woken = torch.arange(12) < 2, []
    for kind in ("own", "sae-lens"):
        learner, rows = asleep(arch, kind, sample)
        assert isinstance(learner, Waking)
        before = [tensor.clone() for tensor in rows()]
        assert learner.wake(silent, sample, generator(), apart=apart) == 2
        for now, was in zip(rows(), before, strict=True):
            # but for the unit norm that SAELens gives decoder rows before a step, ours after it
            assert torch.allclose(now[~silent], was[~silent], atol=3e-3)
            assert not torch.isclose(now[silent], was[silent]).all()
        woken.append([tensor[silent].clone() for tensor in rows()])
        learner.silent_for[:] = 9
        learner.step(sample, lr=0.0, k=3)
        assert (learner.silent_for[silent] == 0).all()
    for own, other in zip(*woken, strict=True):
        assert torch.allclose(own, other, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("kind", ["own", "sae-lens"])
def test_adam_starts_with_what_it_knows_of_the_others(kind, sample):
    learner, _ = asleep("topk", kind, sample)
    silent = torch.arange(12) < 2
    learner.wake(silent, sample, generator(), apart=False)
    state = learner.state()
    first, second = ("first.decoder", "second.decoder") if kind == "own" else ("exp_avg.W_dec", "exp_avg_sq.W_dec")
    assert (state[first][silent] == 0).all()
    # heard on one of 64 rows, the ten others on 191 together
    assert torch.allclose(state[second][silent], 10 / 191 * state[second][~silent].mean(0).expand(2, -1))


def test_adam_expects_as_much_less_of_a_new_feature_as_it_is_heard_more_rarely():
    assert moments_of_new(8192, 8192 * 16, 1536) == 16 * 1536 / (8192 * 16)
    assert moments_of_new(1000, 10, 12) == 1
    assert moments_of_new(1000, 0, 0) == 0


def test_a_transcoders_feature_writes_what_is_left_over_of_the_output(sample):
    wanted = sample @ torch.randn(6, 4, generator=generator(2))
    begin = paired_start(sample, wanted, 12, 3, generator(1))
    learner = TranscoderLearner(begin, TrainSAEConfig(arch="batchtopk", k=3), 3)
    both = torch.cat([sample, wanted], dim=1)
    learner.step(both, lr=1e-3, k=3)
    left_over = wanted - learner.reconstruct(both)
    silent = torch.arange(12) == 5
    assert learner.wake(silent, both, generator(), apart=True) == 1
    # of 64 rows a cluster is one, so that what is written is one row's
    cosine = torch.nn.functional.cosine_similarity(left_over, learner.trained()["decoder"][5], dim=1)
    assert float(cosine.max()) == pytest.approx(1, abs=1e-5)


def test_features_outside_the_topk_family_are_left_alone(sample):
    learner = make_learner(start("data", sample, 12, 3, generator(1)), TrainSAEConfig(arch="standard", k=3), 3, 0)
    before = {name: tensor.clone() for name, tensor in learner.trained().items()}
    assert learner.wake(torch.ones(12, dtype=torch.bool), sample, generator(), apart=True) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.trained().items())


def clustered(seed=0, tokens=120):
    """Return tokens of few kinds, of very different strength: most features of a wide dictionary are never the strongest."""
    random = generator(seed)
    kinds = torch.randn(12, 16, generator=random) * torch.logspace(0.5, -1, 12)[:, None]
    x = kinds[torch.randint(12, (80 * tokens,), generator=random)] + 0.1 * torch.randn(
        80 * tokens, 16, generator=random
    )
    return MemoryStore(x.view(80, tokens, 16), splits=["train"] * 50 + ["test"] * 30)


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matryoshka"])
def test_waking_leaves_far_fewer_features_dead_and_explains_no_less(arch):
    store, common = clustered(), {"k": 4, "expansion": 8, "epochs": 24, "batch_size": 512, "aux": 0.0, "restarts": 0}
    (without, bare), (woken, own) = (
        (sae, evaluate_sae(sae, store, store.where("test")))
        for sae in (train_saes(store, arch=arch, wake=wake, **common)[0] for wake in (0.0, 0.2))
    )
    assert own.dead < 0.5 * bare.dead
    assert own.explained_variance > bare.explained_variance - 0.002
    assert without.provenance["woken"] == 0 < woken.provenance["woken"]


def test_a_training_killed_between_two_wakings_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    store, settings = clustered(tokens=40), {"k": 4, "expansion": 8, "steps": 60, "batch_size": 512, "wake": 0.2}
    whole = train_saes(store, **settings)[0]
    save = checkpoint.save_checkpoint

    def dying(folder, made_from, record, tensors):
        save(folder, made_from, record, tensors)
        if record["step"] == 40:
            assert 0 < record["trainings"][0]["standing"]["woken"] < whole.provenance["woken"]
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sparse_autoencoders.training.save_checkpoint", dying)
        with pytest.raises(KeyboardInterrupt):
            train_saes(store, **settings, checkpoint_minutes=1e-9, out=tmp_path)
    resumed = train_saes(store, **settings, out=tmp_path)[0]
    assert resumed.weights_hash == whole.weights_hash
    assert resumed.provenance["woken"] == whole.provenance["woken"]


def test_a_negative_wait_is_refused():
    with pytest.raises(ConfigError, match=r"wake is -1: it must not be negative"):
        TrainSAEConfig(wake=-1)


def test_what_was_woken_again_and_again_grows_no_louder():
    x = torch.randn(2000, 8, generator=generator()) * torch.logspace(0, -2, 8)
    norm = 1.0
    for turn in range(20):
        found = places(torch.arange(30), x, x, torch.full((2000,), 0.5), norm, generator(turn))
        norm = max(norm, float(found.encoder.norm(dim=1).mean()))
    assert norm == pytest.approx(1, abs=1e-5)


def test_by_default_a_woken_feature_is_not_revived_in_another_way_too():
    store, settings = clustered(tokens=40), {"k": 4, "expansion": 8, "steps": 40}
    made = {
        name: train_saes(store, **settings, **changed)[0]
        for name, changed in {
            "default": {},
            "alone": {"aux": 0.0, "restarts": 0},
            "never": {"wake": 0.0},
            "other": {"arch": "standard", "wake": 0.1},
        }.items()
    }
    assert made["default"].weights_hash == made["alone"].weights_hash != made["never"].weights_hash
    acting = {name: [sae.provenance["config"][n] for n in ("wake", "aux", "restarts")] for name, sae in made.items()}
    assert acting == {"default": [0.1, 0, 0], "alone": [0.1, 0, 0], "never": [0, 1, 4], "other": [0, 1, 4]}
