"""Silent features point at what the others leave over, and Adam has forgotten them."""

import pytest
import torch

from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import QUIET, start
from sparse_autoencoders.resampling import restart_silent
from sparse_autoencoders.single_training import make_learner

SILENT = torch.arange(12) < 2


@pytest.fixture
def sample():
    return torch.randn(64, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=["topk", "batchtopk", "matryoshka", "standard", "gated", "jumprelu"])
def learner(request, sample):
    config = TrainSAEConfig(arch=request.param, k=3)
    made = make_learner(start("data", sample, 12, 2, torch.Generator().manual_seed(1)), config, 3, 0)
    for _ in range(5):
        made.step(sample, lr=1e-2, k=3)
    return made


def test_silent_features_start_at_the_residuals_with_a_quiet_encoder(learner, sample):
    before, residual = learner.learnt(), sample - learner.reconstruct(sample)
    assert restart_silent(learner, SILENT, sample, torch.Generator().manual_seed(2)) == 2
    after = learner.learnt()
    if learner.__class__.__name__ == "SparseLearner":
        living = before.W_enc[:, ~SILENT].norm(dim=0).mean()
        assert torch.allclose(after.W_enc[:, SILENT].norm(dim=0), QUIET * living.expand(2), rtol=1e-4)
    cosine = torch.nn.functional.cosine_similarity(after.W_enc[:, SILENT].T, after.W_dec[SILENT])
    assert torch.allclose(cosine, torch.ones(2), atol=1e-5)
    assert torch.allclose(after.W_dec[~SILENT], before.W_dec[~SILENT], atol=1e-6)
    nearest = torch.nn.functional.normalize(residual, dim=1) @ after.W_dec[SILENT].T
    assert nearest.amax(0).min() > 0.999
    assert (learner.silent_for[SILENT] == 0).all()


def test_a_restarted_feature_has_no_momentum(learner, sample):
    restart_silent(learner, SILENT, sample, torch.Generator().manual_seed(2))
    state = learner.state()
    moments = [name for name in state if name.startswith(("first", "exp_avg."))]
    assert moments
    for name in moments:
        moment = state[name]
        if name.endswith(("out_bias", "b_dec")):
            continue
        moment = moment.T if name.endswith("W_enc") else moment
        assert (moment[SILENT] == 0).all(), name
        assert (moment[~SILENT] != 0).any(), name


def test_none_and_all_are_left_alone(learner, sample):
    g = torch.Generator().manual_seed(0)
    before = {name: t.clone() for name, t in learner.trained().items()}
    assert restart_silent(learner, torch.zeros(12, dtype=torch.bool), sample, g) == 0
    assert restart_silent(learner, torch.ones(12, dtype=torch.bool), sample, g) == 0
    assert all(torch.equal(before[name], t) for name, t in learner.trained().items())
