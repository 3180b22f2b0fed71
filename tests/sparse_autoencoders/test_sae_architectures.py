"""The sparse training classes against SAELens' own dense ones."""

import pytest
import torch
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

from sparse_autoencoders.architectures.topk import SparseStepBatchTopK, SparseStepTopK

SIZE = {"d_in": 6, "d_sae": 20, "rescale_acts_by_decoder_norm": False, "decoder_init_norm": 1.0}


def pair(ours, theirs, their_config, aux=1.0):
    torch.manual_seed(0)
    dense = theirs(their_config(**SIZE, k=3, aux_loss_coefficient=aux))
    torch.nn.init.normal_(dense.b_enc)
    torch.nn.init.normal_(dense.b_dec)
    sparse = ours(TopKTrainingSAEConfig(**SIZE, k=3, aux_loss_coefficient=aux))
    sparse.load_state_dict({k: v for k, v in dense.state_dict().items() if k != "topk_threshold"})
    return sparse, dense


def step(sae, dead=None):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    output = sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False))
    output.loss.backward()
    return output


@pytest.mark.parametrize(
    ("ours", "theirs", "their_config"),
    [
        (SparseStepTopK, TopKTrainingSAE, TopKTrainingSAEConfig),
        (SparseStepBatchTopK, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    ],
)
def test_loss_codes_and_gradients_equal_saelens_without_dead_latents(ours, theirs, their_config):
    sparse, dense = pair(ours, theirs, their_config)
    found, expected = step(sparse), step(dense)
    assert torch.allclose(found.loss, expected.loss, rtol=1e-5)
    assert torch.allclose(found.feature_acts, expected.feature_acts, atol=1e-6)
    assert torch.allclose(found.sae_out, expected.sae_out, atol=1e-5)
    for name, parameter in sparse.named_parameters():
        assert torch.allclose(parameter.grad, dict(dense.named_parameters())[name].grad, atol=1e-5), name


def test_the_auxiliary_loss_is_that_of_the_dead_latents_alone():
    sparse, _ = pair(SparseStepTopK, TopKTrainingSAE, TopKTrainingSAEConfig)
    dead = torch.zeros(20, dtype=torch.bool)
    dead[[4, 11]] = True
    output = step(sparse, dead)
    # by hand: both dead latents (fewer than d_in / 2 = 3) reconstruct the error, weighted by 2 / 3
    x = output.sae_in - sparse.b_dec
    codes = (x @ sparse.W_enc[:, dead] + sparse.b_enc[dead]).relu()
    expected = (codes @ sparse.W_dec[dead] - (output.sae_in - output.sae_out)).square().sum(-1).mean() * 2 / 3
    assert torch.allclose(output.losses["auxiliary_reconstruction_loss"], expected, rtol=1e-5)
    assert torch.allclose(output.loss, output.losses["mse_loss"] + expected, rtol=1e-5)


def test_the_auxiliary_loss_moves_dead_latents_only():
    without, _ = pair(SparseStepTopK, TopKTrainingSAE, TopKTrainingSAEConfig, aux=0.0)
    with_it, _ = pair(SparseStepTopK, TopKTrainingSAE, TopKTrainingSAEConfig, aux=1.0)
    dead = torch.zeros(20, dtype=torch.bool)
    dead[[4, 11]] = True
    step(without, dead)
    step(with_it, dead)
    moved = (with_it.W_dec.grad != without.W_dec.grad).any(-1)
    assert moved.tolist() == dead.tolist()
    assert torch.equal(with_it.b_dec.grad, without.b_dec.grad)


def test_decoder_rows_are_brought_to_unit_norm_before_each_step():
    sparse, _ = pair(SparseStepTopK, TopKTrainingSAE, TopKTrainingSAEConfig)
    sparse.W_dec.data *= 7
    step(sparse)
    assert torch.allclose(sparse.W_dec.norm(dim=-1), torch.ones(20))
