"""Archetypal autoencoders: directions stay where the data are, and the promises of the other architectures hold."""

import pytest
import torch
from memory_store import MemoryStore, sparse_combinations
from scipy.optimize import nnls

from mechinterp.errors import ConfigError
from mechinterp.progress import Silent
from sparse_autoencoders.architectures.archetypal import ArchetypalLearner, centroids
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.metrics import evaluate_sae
from sparse_autoencoders.single_training import make_learner
from sparse_autoencoders.stability import stability
from sparse_autoencoders.training import train_saes

FAST = {"arch": "archetypal", "k": 3, "expansion": 2, "epochs": 8, "batch_size": 128, "lr": 3e-3, "archetypes": 64}


@pytest.fixture(scope="module")
def store():
    return MemoryStore(sparse_combinations(50, 40)[0], splits=["train"] * 40 + ["test"] * 10)


@pytest.fixture(scope="module")
def sae(store):
    return train_saes(store, **FAST)[0]


def learner_for(sample, **more):
    config = TrainSAEConfig(k=3, arch="archetypal", archetypes=40, **more)
    begin = start("data", sample, 24, 3, torch.Generator().manual_seed(1))
    return ArchetypalLearner(begin, config, 2, sample, 0)


def test_centroids_of_three_clusters_are_their_means():
    g = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    rows = (middles[:, None] + 0.1 * torch.randn(3, 50, 2, generator=g)).flatten(0, 1)
    # more centres than clusters, so that each has one whatever is drawn
    found = centroids(rows, 12, g)
    assert len(found) == 12
    assert all(float((found - middle).norm(dim=1).min()) < 0.3 for middle in middles)
    assert len(centroids(rows[:5], 12, g)) == 5


@pytest.mark.parametrize("relaxation", [0.0, 0.3])
def test_directions_never_leave_the_hull_by_more_than_the_relaxation(store, relaxation):
    g = torch.Generator().manual_seed(0)
    sample = store.rows("site")
    sample = (sample - sample.mean(0)) / sample.std()
    learner = learner_for(sample, relaxation=relaxation)
    for _ in range(30):
        learner.step(sample[torch.randint(len(sample), (128,), generator=g)], lr=3e-2, k=3)
    own = learner.trained()
    assert torch.allclose(own["mixture"].sum(1), torch.ones(24), atol=1e-5)
    assert (own["mixture"] >= 0).all()
    assert (own["beside"].norm(dim=1) <= learner.reach * (1 + 1e-5)).all()
    assert torch.allclose(learner.directions.norm(dim=1), torch.ones(24), atol=1e-5)
    if relaxation == 0:
        # an independent solver finds each direction in the cone of the archetypes
        for direction in learner.directions.detach()[:6]:
            assert nnls(learner.points.T.double().numpy(), direction.double().numpy())[1] < 1e-4


def test_it_explains_held_out_tokens_and_is_saved_as_a_topk(store, sae):
    found = evaluate_sae(sae, store)
    assert sae.architecture == "topk"
    assert found.l0 <= 3
    assert found.explained_variance > 0.6
    train = sae.provenance["metrics"]["train"]["explained_variance"]
    assert sae.provenance["curve"]["explained_variance"][-1] == pytest.approx(train, abs=0.05)


def test_seeds_agree_more_than_those_of_a_topk(store):
    def recurring(**settings):
        made = train_saes(store, **{**FAST, "seeds": (0, 1), **settings})
        return float(stability(made[0], made[1:]).cosine.mean())

    assert recurring(archetypes=24, relaxation=0.0) > recurring(arch="topk", init="random")


def test_the_same_seed_gives_the_same_bits_and_a_killed_training_goes_on_to_them(store, sae, tmp_path):
    class Killed(Silent):
        def track(self, items, description, total=None):
            for at, item in enumerate(items):
                if description.startswith("training") and at == 31:
                    raise KeyboardInterrupt
                yield item

    again, other = train_saes(store, **{**FAST, "seeds": (0, 1)})
    assert again.weights_hash == sae.weights_hash != other.weights_hash
    settings = {**FAST, "checkpoint_minutes": 1e-9}
    with pytest.raises(KeyboardInterrupt):
        train_saes(store, **settings, out=tmp_path, progress=Killed())
    assert train_saes(store, **settings, out=tmp_path)[0].weights_hash == sae.weights_hash


def test_averages_clipping_and_early_stopping_work_as_for_the_others(store):
    made = train_saes(store, **{**FAST, "ema": 0.5, "clip": 1.0, "patience": 2})[0]
    assert evaluate_sae(made, store).explained_variance > 0.4


def test_silent_features_start_anew_at_archetypes(store):
    sample = store.rows("site")
    learner = learner_for(sample)
    learner.step(sample[:64], lr=1e-3, k=3)
    silent = torch.zeros(24, dtype=torch.bool)
    silent[[2, 7]] = True
    aim = torch.nn.functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    learner.restart(silent, aim, 0.3)
    unit = torch.nn.functional.normalize(learner.points, dim=1)
    best = unit[(aim @ unit.T).argmax(1)]
    assert torch.allclose(learner.directions[silent], best, atol=1e-5)
    assert (learner.state()["exp_avg.W_enc"][:, silent] == 0).all()


def test_without_tokens_or_with_a_number_that_means_nothing_it_is_one_line(store):
    sample = store.rows("site")
    begin = start("data", sample, 24, 3, torch.Generator().manual_seed(1))
    with pytest.raises(ConfigError, match="made of training tokens"):
        make_learner(begin, TrainSAEConfig(arch="archetypal", k=3), 2, 0)
    with pytest.raises(ConfigError, match="relaxation is -1"):
        TrainSAEConfig(relaxation=-1)
    with pytest.raises(ConfigError, match="archetypes is 0"):
        TrainSAEConfig(archetypes=0)
