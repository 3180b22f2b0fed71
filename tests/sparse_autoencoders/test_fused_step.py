"""The hand-written step against dense autograd: selection, value, gradient, optimiser, any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse_autoencoders.fused import products, selection
from sparse_autoencoders.fused.rows import rows_at
from sparse_autoencoders.fused.selecting import CoarseEncoder, Rows, Selector, has_bfloat16
from sparse_autoencoders.fused.step import SparseStep, Weights


def weights(g, d_in, width, d_out=None, tied=True):
    d_out = d_in if d_out is None else d_out
    unit = torch.nn.functional.normalize(torch.randn(width, d_out, generator=g), dim=1)
    encoder = unit.clone() if d_in == d_out else torch.randn(width, d_in, generator=g) / d_in**0.5
    bias, out_bias = 0.1 * torch.randn(width, generator=g), 0.1 * torch.randn(d_out, generator=g)
    return Weights(encoder, bias, unit, out_bias, tied_bias=tied)


def dense_codes(x, encoder, bias, k, whole_batch):
    hidden = x @ encoder.t() + bias
    flat = hidden.flatten() if whole_batch else hidden
    values, at = flat.topk(k * (len(x) if whole_batch else 1), dim=-1)
    return torch.zeros_like(flat).scatter(-1, at, values.relu()).view_as(hidden)


def to_dense(codes, shape):
    dense = torch.zeros(shape)
    rows = np.repeat(np.arange(shape[0]), np.diff(codes.starts))
    dense[rows, codes.columns] = torch.from_numpy(codes.values)
    return dense


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def product(request, monkeypatch):
    if request.param and not has_bfloat16():
        pytest.skip("this processor has no bfloat16 products")
    monkeypatch.setattr("sparse_autoencoders.fused.selecting.has_bfloat16", lambda: request.param)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 40), d_in=st.integers(1, 70), width=st.integers(2, 300),
    spread=st.sampled_from([0.0, 1.0, 6.0]), whole_batch=st.booleans(), fast=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_selection_is_that_of_float32(seed, rows, d_in, width, spread, whole_batch, fast, data):
    if fast and not has_bfloat16():
        return
    k = data.draw(st.integers(1, min(width, 40)))
    g = torch.Generator().manual_seed(seed)
    w = weights(g, d_in, width)
    x = torch.randn(rows, d_in, generator=g) * torch.exp(spread * torch.rand(rows, 1, generator=g))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparse_autoencoders.fused.selecting.has_bfloat16", lambda: fast)
        selector, coarse = Selector(k, whole_batch), CoarseEncoder(w.encoder, w.bias)
        for _ in range(2):  # the second time it remembers where to look
            codes = selector(Rows.of(x), coarse)
            found = to_dense(codes, (rows, width))
            expected = dense_codes(x, w.encoder, w.bias, k, whole_batch)
            # where float32 itself cannot tell two values apart, either may be kept
            assert torch.allclose(found.sort(dim=1).values, expected.sort(dim=1).values, atol=2e-4, rtol=1e-4)
            kept, wanted = found > 0, expected > 0
            differing = torch.where(kept != wanted, x @ w.encoder.t() + w.bias, torch.nan)
            if bool((kept != wanted).any()):
                assert float(differing[~differing.isnan()].max() - differing[~differing.isnan()].min()) < 1e-3 * float(
                    x.norm(dim=1).max() + 1
                )
            assert all(
                (np.diff(codes.columns[a:b]) > 0).all() for a, b in zip(codes.starts, codes.starts[1:], strict=False)
            )


def test_rows_of_any_size_and_sign_are_selected_exactly(product):
    g = torch.Generator().manual_seed(0)
    w = weights(g, 24, 200)
    x = torch.randn(50, 24, generator=g)
    x[:10] *= 1e4
    x[10:20] *= 1e-4
    w.bias[:] = -5.0  # most rows have no positive pre-activation at all
    x[20] = 0
    for whole_batch in (False, True):
        found = to_dense(Selector(8, whole_batch)(Rows.of(x), CoarseEncoder(w.encoder, w.bias)), (50, 200))
        expected = dense_codes(x, w.encoder, w.bias, 8, whole_batch)
        assert torch.equal(found > 0, expected > 0)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ties_keep_k_and_the_first(product):
    w = Weights(torch.ones(6, 2), torch.zeros(6), torch.ones(6, 2) / 2**0.5, torch.zeros(2))
    codes = Selector(4)(Rows.of(torch.ones(3, 2)), CoarseEncoder(w.encoder, w.bias))
    assert codes.columns.reshape(3, 4).tolist() == [[0, 1, 2, 3]] * 3
    codes = Selector(2, whole_batch=True)(Rows.of(torch.ones(3, 2)), CoarseEncoder(w.encoder, w.bias))
    assert np.diff(codes.starts).tolist() == [6, 0, 0]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), rows=st.integers(1, 20), d_in=st.integers(1, 12), d_out=st.integers(1, 12),
    width=st.integers(4, 40), levels=st.integers(1, 3), balance=st.floats(0.1, 2),
)  # fmt: skip
def test_every_gradient_is_that_of_autograd_in_float64(seed, rows, d_in, d_out, width, levels, balance):
    g = torch.Generator().manual_seed(seed)
    encoder = torch.randn(width, d_in, generator=g, dtype=torch.float64, requires_grad=True)
    decoder = torch.randn(width, d_out, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(width, generator=g, dtype=torch.float64, requires_grad=True)
    x = torch.randn(rows, d_in, generator=g, dtype=torch.float64)
    target = torch.randn(rows, d_out, generator=g, dtype=torch.float64)
    prefixes = sorted({*torch.randint(1, width, (levels - 1,), generator=g).tolist(), width})
    hidden = x @ encoder.t() + bias
    kept = torch.rand(hidden.shape, generator=g) < 0.3
    codes = torch.where(kept, hidden, 0).relu()
    errors = [target - codes[:, :p] @ decoder[:p] for p in prefixes]
    weights = torch.tensor([balance**i for i in range(len(prefixes))][::-1], dtype=torch.float64)
    loss = torch.stack([e.square().sum(1).mean() for e in errors]) @ weights / weights.sum()
    loss.backward()

    starts = np.concatenate([[0], kept.sum(1).cumsum(0).numpy()])
    columns, values = kept.nonzero()[:, 1].numpy().astype(np.int32), codes[kept].detach().numpy()
    error = np.empty((len(prefixes), rows, d_out))
    slopes, losses = np.empty(len(values)), np.empty((rows, 2))
    sums = np.empty((1, d_out))
    products.decode(
        rows,
        starts,
        columns,
        values,
        decoder.detach().numpy(),
        np.array(prefixes),
        (weights / weights.sum()).numpy(),
        target.numpy(),
        error,
        slopes,
        losses,
        sums,
    )
    np.testing.assert_allclose(sums[0], error[0].sum(0), rtol=1e-9, atol=1e-12)
    begins, at_rows, places = products.transpose(starts, columns, width)
    squares = np.empty(width)
    none = (np.full(width, -1), np.empty((0, d_out)), np.empty((0, d_in)), np.empty(0))
    products.squared_gradient(
        width, begins, at_rows, places, values, slopes, np.array(prefixes), error, x.numpy(), *none, squares
    )
    expected = sum(t.grad.square().sum(-1) if t.ndim == 2 else t.grad.square() for t in (encoder, decoder, bias))
    np.testing.assert_allclose(squares, expected.numpy(), rtol=1e-9, atol=1e-12)
    to_decoder, to_encoder, to_bias = np.empty((width, d_out)), np.empty((width, d_in)), np.empty(width)
    products.gradients(
        width, begins, at_rows, places, values, slopes, np.array(prefixes), error, x.numpy(), to_decoder, to_encoder,
        to_bias,
    )  # fmt: skip
    for found, tensor in ((to_decoder, decoder), (to_encoder, encoder), (to_bias, bias)):
        np.testing.assert_allclose(found, tensor.grad.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(losses[:, 0], errors[-1].detach().square().sum(1).numpy(), rtol=1e-9)
    assert losses[:, 1].mean() == pytest.approx(float(loss.detach()))


def dense_twin(w, k, whole_batch, prefixes, clip, balance):
    """Return a step of plain torch on copies of the weights."""
    trained = {n: t.clone().requires_grad_() for n, t in w.tensors().items()}
    optimiser = torch.optim.Adam(trained.values())
    weights = torch.tensor([balance**i for i in range(len(prefixes))][::-1])

    def step(x, target, lr):
        t = trained
        read = x - t["out_bias"] if w.tied_bias else x
        codes = dense_codes(read, t["encoder"], t["bias"], k, whole_batch)
        wanted = (x if target is None else target) - t["out_bias"]
        losses = torch.stack([(wanted - codes[:, :p] @ t["decoder"][:p]).square().sum(1).mean() for p in prefixes])
        loss = losses @ weights / weights.sum()
        optimiser.param_groups[0]["lr"] = lr
        optimiser.zero_grad()
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(trained.values(), clip)
        optimiser.step()
        with torch.no_grad():
            t["decoder"] /= t["decoder"].norm(dim=1, keepdim=True)
        return float(loss.detach())

    return trained, step


@pytest.mark.parametrize(
    ("whole_batch", "prefixes", "clip", "d_out", "tied"),
    [
        (False, (96,), None, 20, True),
        (True, (96,), None, 20, True),
        (True, (10, 40, 96), None, 20, True),
        (False, (96,), 0.5, 20, True),
        (False, (96,), None, 13, False),
        (False, (96,), None, 20, False),
    ],
    ids=["topk", "batchtopk", "matryoshka", "clipped", "transcoder", "transcoder of equal widths"],
)
def test_thirty_steps_of_adam_equal_those_of_autograd(product, whole_batch, prefixes, clip, d_out, tied):
    g = torch.Generator().manual_seed(0)
    w = weights(g, 20, 96, d_out, tied)
    expected, dense_step = dense_twin(w, 6, whole_batch, prefixes, clip, 0.6)
    step = SparseStep(w, 6, whole_batch=whole_batch, prefixes=prefixes, balance=0.6, aux=0, clip=clip)
    for at in range(30):
        x = torch.randn(64, 20, generator=g)
        target = None if tied else torch.randn(64, d_out, generator=g)
        lr = 1e-3 * (1 + at % 3)
        assert step(x, target, lr=lr).loss == pytest.approx(dense_step(x, target, lr), rel=1e-4)
    for name, tensor in w.tensors().items():
        assert torch.allclose(tensor, expected[name].detach(), atol=2e-5), name


def test_dead_latents_learn_what_the_living_left_over_and_nothing_else_changes(product):
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    from sparse_autoencoders.architectures.topk import SparseStepTopK

    g = torch.Generator().manual_seed(0)
    w = weights(g, 6, 20)
    sae = SparseStepTopK(TopKTrainingSAEConfig(d_in=6, d_sae=20, k=3, rescale_acts_by_decoder_norm=False))
    with torch.no_grad():
        sae.W_enc.copy_(w.encoder.t())
        sae.W_dec.copy_(w.decoder)
        sae.b_enc.copy_(w.bias)
        sae.b_dec.copy_(w.out_bias)
    step = SparseStep(w, 3, aux=0.7, dead_after=5)
    sae.cfg.aux_loss_coefficient = 0.7
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-2)
    step.silent_for[[4, 11]] = 9
    x = torch.randn(40, 6, generator=g)
    output = sae.training_forward_pass(TrainStepInput(x, {}, step.dead, 0, False))
    output.loss.backward()
    optimiser.step()
    sae.project_decoder()
    assert step(x, lr=1e-2).loss == pytest.approx(float(output.loss.detach()), rel=1e-5)
    assert torch.allclose(w.encoder, sae.W_enc.t(), atol=1e-5)
    assert torch.allclose(w.decoder, sae.W_dec, atol=1e-5)
    assert torch.allclose(w.bias, sae.b_enc, atol=1e-5)
    assert torch.allclose(w.out_bias, sae.b_dec, atol=1e-5)


def test_matryoshka_on_another_device_takes_the_same_step():
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAEConfig

    from sparse_autoencoders.architectures.topk import SparseStepMatryoshka

    g = torch.Generator().manual_seed(0)
    w = weights(g, 6, 20)
    prefixes = (3, 9, 20)
    sae = SparseStepMatryoshka(
        TopKTrainingSAEConfig(d_in=6, d_sae=20, k=3, rescale_acts_by_decoder_norm=False), prefixes, 0.3
    )
    with torch.no_grad():
        for parameter, tensor in (
            (sae.W_enc, w.encoder.t()), (sae.W_dec, w.decoder), (sae.b_enc, w.bias), (sae.b_dec, w.out_bias),
        ):  # fmt: skip
            parameter.copy_(tensor)
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-2)
    x = torch.randn(40, 6, generator=g)
    output = sae.training_forward_pass(TrainStepInput(x, {}, None, 0, False))
    output.loss.backward()
    optimiser.step()
    sae.project_decoder()
    step = SparseStep(w, 3, whole_batch=True, prefixes=prefixes, balance=0.3)
    assert step(x, lr=1e-2).loss == pytest.approx(float(output.loss.detach()), rel=1e-5)
    assert torch.allclose(w.encoder, sae.W_enc.t(), atol=1e-5)
    assert torch.allclose(w.decoder, sae.W_dec, atol=1e-5)
    assert torch.allclose(w.out_bias, sae.b_dec, atol=1e-5)


@pytest.mark.parametrize("whole_batch", [False, True], ids=["topk", "batchtopk"])
def test_the_weights_do_not_depend_on_the_number_of_threads(whole_batch):
    def trained(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        g = torch.Generator().manual_seed(0)
        w = weights(g, 30, 128)
        step = SparseStep(w, 5, whole_batch=whole_batch, dead_after=2)
        for _ in range(5):
            step(torch.randn(470, 30, generator=g), lr=1e-2)
        torch.set_num_threads(before)
        return w.tensors()

    one, three = trained(1), trained(3)
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_what_is_not_finite_changes_nothing_and_is_reported():
    g = torch.Generator().manual_seed(0)
    w = weights(g, 8, 30)
    before = {name: t.clone() for name, t in w.tensors().items()}
    step = SparseStep(w, 3)
    x = torch.randn(10, 8, generator=g)
    x[3, 2] = float("nan")
    assert np.isnan(step(x, lr=1.0).loss)
    assert all(torch.equal(before[name], t) for name, t in w.tensors().items())


def test_reconstruction_is_what_the_next_step_will_see():
    g = torch.Generator().manual_seed(0)
    w = weights(g, 8, 30)
    step = SparseStep(w, 3)
    x = torch.randn(10, 8, generator=g)
    error = (x - step.reconstruct(x)).square().sum(1).mean()
    assert step(x, lr=1e-3).squared_error == pytest.approx(float(error), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60), st.data())
def test_what_divides_the_k_largest_from_the_rest_is_reached_by_k_or_is_the_tied_value(values, data):
    k = data.draw(st.integers(1, len(values)))
    ordered = np.array([selection._ordered(np.float32(v)) for v in values], np.int32)
    bound = selection._dividing(ordered, len(ordered), k)
    kth = np.sort(ordered)[::-1][k - 1]
    assert (ordered >= bound).sum() == k or (bound == kth and (ordered > bound).sum() < k)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=200), st.integers(-(2**15), 2**15 - 1))
def test_a_scan_finds_every_key_that_reaches_a_bound(keys, least):
    found = np.full(len(keys) + 4, -1, np.int32)
    n = selection._scan(np.array(keys, np.int16), np.int16(least), found)
    assert found[:n].tolist() == [i for i, key in enumerate(keys) if key >= least]


def test_values_are_rounded_to_bfloat16_as_torch_rounds_them():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)) * 1e3
    x[0, :3] = torch.tensor([0.0, 1.00390625, 1.01171875])  # ties go to the even one
    rows = Rows.of(x)
    if len(rows.rounded):
        assert torch.equal(rows.rounded[:, :-2], x.bfloat16())
        assert torch.equal(rows.rounded[:, -2:], torch.ones(40, 2).bfloat16())
        np.testing.assert_allclose(rows.lengths[:, 2], (x - x.bfloat16().float()).norm(dim=1).numpy(), rtol=1e-5)
    np.testing.assert_allclose(rows.lengths[:, 0], x.norm(dim=1).numpy(), rtol=1e-5)


def test_a_step_leaves_torch_the_threads_it_had():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    g = torch.Generator().manual_seed(0)
    SparseStep(weights(g, 8, 64), 3)(torch.randn(500, 8, generator=g), lr=1e-3)
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_rows_are_taken_by_number_and_none_beyond_the_last():
    source = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([49, 0, 0, 17])
    assert torch.equal(rows_at(source, order), source[order])
    assert rows_at(source, order[:0]).shape == (0, 7)
    for wrong in (50, -1):
        with pytest.raises(IndexError, match="of 50"):
            rows_at(source, torch.tensor([3, wrong]))
