import pytest
import torch

from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import QUIET, start
from sparse_autoencoders.resampling import restart_silent
from sparse_autoencoders.saelens import make_trainer


@pytest.fixture
def trained():
    g = torch.Generator().manual_seed(0)
    sample = torch.randn(64, 5, generator=g)
    config = TrainSAEConfig(k=2, lr=1e-2)
    trainer = make_trainer(start("data", sample, 12, 2, g), config, iter([sample] * 9), 64, 9, 3, 0)
    for _ in range(5):
        trainer.step(next(trainer.data_provider))
        trainer.n_training_steps += 1
    return trainer, sample, g


def test_silent_latents_point_at_residuals_and_the_others_stay(trained):
    trainer, sample, g = trained
    sae = trainer.sae
    silent = torch.zeros(12, dtype=torch.bool)
    silent[[2, 7]] = True
    before = {name: p.detach().clone() for name, p in sae.named_parameters()}
    residual = (sample - sae(sample)).detach()
    assert restart_silent(trainer, silent, sample, g) == 2
    cosine = torch.nn.functional.normalize(residual, dim=-1) @ sae.W_dec[silent].T / sae.W_dec[silent].norm(dim=-1)
    assert torch.allclose(cosine.amax(0), torch.ones(2), atol=1e-4)
    assert torch.equal(sae.W_dec[~silent], before["W_dec"][~silent])
    assert torch.equal(sae.W_enc[:, ~silent], before["W_enc"][:, ~silent])
    assert torch.equal(sae.b_dec, before["b_dec"])
    ratio = sae.W_enc[:, silent].norm(dim=0) / sae.W_enc[:, ~silent].norm(dim=0).mean()
    assert torch.allclose(ratio, torch.full((2,), QUIET))


def test_adam_forgets_the_restarted_latents_only(trained):
    trainer, sample, g = trained
    silent = torch.arange(12) == 3
    restart_silent(trainer, silent, sample, g)
    state = trainer.optimizer.state
    assert not state[trainer.sae.W_enc]["exp_avg_sq"][:, 3].any()
    assert not state[trainer.sae.W_dec]["exp_avg"][3].any()
    assert state[trainer.sae.W_enc]["exp_avg_sq"][:, ~silent].any()
    assert trainer.n_forward_passes_since_fired[3] == 0


def test_none_silent_and_all_silent_change_nothing(trained):
    trainer, sample, g = trained
    before = trainer.sae.W_dec.detach().clone()
    assert restart_silent(trainer, torch.zeros(12, dtype=torch.bool), sample, g) == 0
    assert restart_silent(trainer, torch.ones(12, dtype=torch.bool), sample, g) == 0
    assert torch.equal(trainer.sae.W_dec, before)
