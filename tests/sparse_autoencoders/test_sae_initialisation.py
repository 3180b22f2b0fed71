import pytest
import torch

from sparse_autoencoders.initialisation import QUIET, start, suited, worst_residuals


@pytest.fixture
def sample():
    return torch.randn(500, 6, generator=torch.Generator().manual_seed(0))


def begin(name, sample, width=16, k=2, seed=0):
    return start(name, sample, width, k, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["data", "random"])
def test_directions_have_unit_norm_and_the_encoder_is_tied_but_for_one_scale(name, sample):
    made = begin(name, sample)
    assert torch.allclose(made.W_dec.norm(dim=-1), torch.ones(16))
    assert torch.allclose(made.W_enc, made.W_enc.norm(dim=0)[0] * made.W_dec.T, atol=1e-6)


@pytest.mark.parametrize("name", ["neurons", "data", "random"])
def test_the_seed_decides_what_is_drawn(name, sample):
    assert torch.equal(begin(name, sample).W_dec, begin(name, sample).W_dec)
    assert not torch.equal(begin(name, sample, seed=1).W_dec, begin(name, sample).W_dec)


def test_neurons_and_their_opposites_with_all_of_them_kept_reconstruct_everything(sample):
    made = begin("neurons", sample, width=12, k=6)
    assert torch.equal(made.W_dec, torch.cat([torch.eye(6), -torch.eye(6)]))
    assert made.explained_variance == pytest.approx(1, abs=1e-6)


def test_neurons_are_joined_by_quiet_latents_at_what_they_leave_over(sample):
    made = begin("neurons", sample, width=15)
    assert torch.equal(made.W_dec[:12], torch.cat([torch.eye(6), -torch.eye(6)]))
    assert torch.allclose(made.W_dec.norm(dim=-1), torch.ones(15))
    assert torch.allclose(made.W_enc[:, 12:].norm(dim=0), QUIET * made.W_enc[:, 0].norm().expand(3))
    # with two of six units kept, a residual has its two largest entries at zero
    assert ((made.W_dec[12:].abs() < 1e-2).sum(-1) == 2).all()


def test_without_residuals_there_are_directions_all_the_same():
    directions = worst_residuals(torch.zeros(5, 3), 4, torch.Generator().manual_seed(0))
    assert torch.allclose(directions.norm(dim=-1), torch.ones(4))


def test_residuals_are_drawn_by_their_squared_norm():
    residual = torch.tensor([[1.0, 0], [0, 0], [0, -10]])
    directions = worst_residuals(residual, 300, torch.Generator().manual_seed(0))
    assert (directions[:, 1] < -0.9).float().mean() > 0.95


def test_the_scale_is_the_best_one(sample):
    made = begin("data", sample)
    hidden = sample @ made.W_enc
    kept = hidden.topk(2, dim=-1)
    reconstruction = torch.zeros_like(hidden).scatter(-1, kept.indices, kept.values.relu()) @ made.W_dec
    errors = [(sample - s * reconstruction).square().sum() for s in (0.9, 1.0, 1.1)]
    assert errors[1] < errors[0]
    assert errors[1] < errors[2]


def test_a_narrow_dictionary_of_neurons_takes_the_first(sample):
    assert torch.equal(begin("neurons", sample, width=4).W_dec, torch.eye(6)[:4])


def test_units_suit_a_site_behind_a_relu_and_tokens_any_other(sample):
    assert suited((sample - 1).relu()) == "neurons"
    assert suited(sample) == "data"


def test_a_start_for_whole_batches_has_the_scale_that_suits_them(sample):
    # rows of very different norm: over the batch the large ones keep many times k
    stretched = sample * torch.linspace(0.05, 4, 500)[:, None]
    made = start("data", stretched, 48, 3, torch.Generator().manual_seed(0), whole_batch=True)
    hidden = stretched @ made.W_enc
    least = hidden.flatten().topk(3 * 500).values[-1]
    reconstruction = (hidden.relu() * (hidden >= least)) @ made.W_dec
    errors = [float((stretched - s * reconstruction).square().sum()) for s in (0.9, 1.0, 1.1)]
    assert errors[1] < min(errors[0], errors[2])
    about_mean = (stretched - stretched.mean(0)).square().sum()
    assert made.explained_variance == pytest.approx(1 - errors[1] / float(about_mean), abs=1e-5)
    assert made.explained_variance >= -0.01
    rows = begin("data", stretched, width=48, k=3)
    assert rows.W_enc.norm() > 1.5 * made.W_enc.norm()


def test_what_a_start_explains_counts_the_quiet_latents_too(sample):
    made = begin("neurons", sample, width=40, k=3)
    values, columns = (sample @ made.W_enc).topk(3, dim=-1)
    codes = torch.zeros(500, 40).scatter(-1, columns, values.relu())
    error = (sample - codes @ made.W_dec).square().sum() / (sample - sample.mean(0)).square().sum()
    assert made.explained_variance == pytest.approx(1 - float(error), abs=1e-5)
