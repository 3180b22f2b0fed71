"""Relevance is conserved, equals zennit's where zennit has rules, and leaves the model as it was."""

import pytest
import torch
from localization_models import one_thread, small_vit, vit_images
from torch import nn
from torch.nn import functional

from circuits.localization.lrp_rules import LrpRules, RelevanceMode
from mechinterp.errors import ConfigError


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def relevance(module, x, rules, bounds=None, pick=0):
    x = x.clone().requires_grad_()
    mode = RelevanceMode(rules, bounds)
    with mode:
        outcome = module(x)[:, pick]
    return mode.relevance(outcome, x), outcome.detach()


def cnn(bias=True, norm=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.ReLU()]
    if norm:
        layers = [layers[0], nn.BatchNorm2d(6), layers[1]]
        layers[1].running_mean.normal_()
        layers[1].running_var.uniform_(0.5, 2)
        layers[1].weight.data.normal_()
        layers[1].bias.data.normal_()
    module = nn.Sequential(
        *layers, nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, stride=2, bias=bias), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias),
    )  # fmt: skip
    return module.double().eval()


@pytest.fixture
def x():
    return torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 5.0])
@pytest.mark.parametrize("pick", [0, 1, 2])
def test_without_biases_a_cnn_conserves_relevance(x, gamma, pick):
    found, outcome = relevance(cnn(bias=False), x, LrpRules(conv_gamma=gamma, linear_gamma=gamma), pick=pick)
    torch.testing.assert_close(found.sum((1, 2, 3)), outcome, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.25])
@pytest.mark.parametrize("norm", [False, True])
def test_equals_zennit_on_a_cnn_of_modules(x, gamma, norm):
    pytest.importorskip("zennit")
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Gamma, Pass

    module = cnn(norm=norm)
    # max pooling and flattening are torch's own gradient in both
    rule = Gamma(gamma, stabilizer=1e-6) if gamma else Epsilon(1e-6)
    composite = LayerMapComposite(
        [(nn.Conv2d, rule), (nn.Linear, rule), (nn.ReLU, Pass())], canonizers=[SequentialMergeBatchNorm()]
    )
    mine, outcome = relevance(module, x, LrpRules(conv_gamma=gamma, linear_gamma=gamma), pick=1)
    with Gradient(module, composite) as attributor:
        _, theirs = attributor(x, lambda output: output * torch.tensor([0.0, 1, 0]).double())
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert outcome.shape == (4,)


def test_the_first_convolution_equals_zennits_box_rule(x):
    pytest.importorskip("zennit")
    from zennit.attribution import Gradient
    from zennit.composites import LayerMapComposite, MixedComposite, NameMapComposite
    from zennit.rules import Epsilon, Pass, ZBox

    module = cnn()
    low, high = torch.full((3, 1, 1), -4.0).double(), torch.full((3, 1, 1), 4.0).double()
    mine, _ = relevance(module, x, LrpRules(conv_gamma=0, linear_gamma=0), (low, high))
    composite = MixedComposite(
        [
            NameMapComposite([(["0"], ZBox(low[None], high[None]))]),
            LayerMapComposite([(nn.Conv2d, Epsilon(1e-6)), (nn.Linear, Epsilon(1e-6)), (nn.ReLU, Pass())]),
        ]
    )
    with Gradient(module, composite) as attributor:
        _, theirs = attributor(x, lambda output: output * torch.tensor([1.0, 0, 0]).double())
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def coefficients(function, *tensors):
    """Return output and relevance of each tensor for the sum of the output."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    with RelevanceMode():
        output = function(*leaves)
    return output.detach(), [
        t.detach() * g for t, g in zip(leaves, torch.autograd.grad(output.sum(), leaves), strict=True)
    ]


def test_a_product_of_two_gives_each_half():
    a, b = torch.randn(2, 3, 4).double(), torch.randn(2, 4, 5).double()
    output, (left, right) = coefficients(torch.matmul, a, b)
    torch.testing.assert_close(output, a @ b)
    torch.testing.assert_close(left.sum(), output.sum() / 2)
    torch.testing.assert_close(right.sum(), output.sum() / 2)
    # of Achtibat et al., eq. 15, term by term
    terms = torch.einsum("bij,bjk->bijk", a, b) / 2
    torch.testing.assert_close(left, terms.sum(3))
    torch.testing.assert_close(right, terms.sum(1))


def test_the_softmax_is_attnlrps_rule():
    x = torch.randn(3, 6).double()
    weights = torch.randn(3, 6).double()
    leaf = x.clone().requires_grad_()
    with RelevanceMode():
        s = torch.softmax(leaf, -1)
    (gradient,) = torch.autograd.grad((s * weights).sum(), leaf)
    arriving = s.detach() * weights
    expected = x * (arriving - s.detach() * arriving.sum(-1, keepdim=True))
    torch.testing.assert_close(x * gradient, expected)


@pytest.mark.parametrize("shape", [(5, 7), (2, 5, 7)])
def test_layer_norm_without_bias_conserves(shape):
    x, weight = torch.randn(*shape).double(), torch.randn(7).double()
    output, (found,) = coefficients(lambda t: functional.layer_norm(t, (7,), weight), x)
    torch.testing.assert_close(output, functional.layer_norm(x, (7,), weight))
    torch.testing.assert_close(found.sum(-1), output.sum(-1))


@pytest.mark.parametrize("function", [functional.gelu, functional.silu, torch.tanh, functional.relu])
def test_activations_pass_relevance_as_it_is(function):
    x = torch.randn(40).double()
    output, (found,) = coefficients(function, x)
    torch.testing.assert_close(found, output)


def test_group_norm_and_rms_norm_keep_their_values_and_conserve():
    x = torch.randn(2, 4, 3, 3).double()
    output, (found,) = coefficients(lambda t: functional.group_norm(t, 2), x)
    torch.testing.assert_close(output, functional.group_norm(x, 2))
    torch.testing.assert_close(found.sum(), output.sum())
    y = torch.randn(2, 6).double()
    output, (found,) = coefficients(lambda t: functional.rms_norm(t, (6,), torch.ones(6).double()), y)
    torch.testing.assert_close(output, functional.rms_norm(y, (6,)))
    torch.testing.assert_close(found, output)


def test_a_vit_conserves_relevance_where_patterns_are_constant():
    vit, x = small_vit(bias=False), vit_images(3)
    found, outcome = relevance(vit.module, x, LrpRules(conv_gamma=0, linear_gamma=0, attention="constant"))
    torch.testing.assert_close(found.sum((1, 2, 3)), outcome, rtol=1e-3, atol=1e-4)
    found, outcome = relevance(vit.module, x, LrpRules(attention="constant"), pick=2)
    torch.testing.assert_close(found.sum((1, 2, 3)), outcome, rtol=1e-2, atol=1e-3)


def test_attention_written_out_and_fused_agree():
    vit, x = small_vit(), vit_images(3)
    fused, _ = relevance(vit.module, x, LrpRules())
    for block in vit.module.blocks:
        block.attn.fused_attn = False
    explicit, _ = relevance(vit.module, x, LrpRules())
    torch.testing.assert_close(fused, explicit)


def test_multi_head_attention_is_taken_apart():
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()

    def run(t):
        return attention(t, t, t, need_weights=False)[0].sum((1, 2))[:, None]

    x = torch.randn(2, 5, 8).double()
    found, outcome = relevance(run, x, LrpRules(linear_gamma=0))
    torch.testing.assert_close(outcome, run(x)[:, 0].detach())
    assert found.shape == x.shape
    assert bool(found.abs().sum() > 0)


def test_values_do_not_change_and_after_an_error_neither_does_anything_else():
    vit, x = small_vit(), vit_images(2)
    before = vit.module(x)
    _, outcome = relevance(vit.module, x, LrpRules())
    torch.testing.assert_close(outcome, before[:, 0].detach())
    leaf = x.clone().requires_grad_()

    def break_off():
        with RelevanceMode():
            vit.module(leaf)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        break_off()
    assert torch.equal(vit.module(x), before)


def test_gammas_and_rules_that_cannot_be_meant_are_refused():
    with pytest.raises(ConfigError, match="conv_gamma is -1"):
        LrpRules(conv_gamma=-1)
    with pytest.raises(ConfigError, match="attention is 'x'"):
        LrpRules(attention="x")
