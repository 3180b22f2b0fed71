"""Stopping early is real: a shallow site costs a shallow part of the forward pass."""

from __future__ import annotations

import statistics
import time

import pytest
import torch

from mechinterp.capturing import run_with_cache
from mechinterp.models.loading import load_model


@pytest.fixture(scope="module")
def model():
    return load_model("timm:vit_tiny_patch16_224", weights="random")


@pytest.fixture(scope="module")
def x(model):
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def test_no_module_after_the_site_is_called(model, x):
    calls, handles = [], []
    for name, part in model.module.named_modules():
        handles.append(part.register_forward_pre_hook(lambda m, a, name=name: calls.append(name)))
    try:
        with torch.inference_mode():
            run_with_cache(model, x[:1], ["blocks.3.hook_resid_post"])
    finally:
        for handle in handles:
            handle.remove()
    assert "blocks.3" in calls
    assert not [c for c in calls if c.startswith(tuple(f"blocks.{i}" for i in range(4, 12)))]
    assert not {"norm", "head", "fc_norm"} & set(calls)


def test_block_3_of_12_costs_at_most_0_4_of_the_forward_pass(model, x):
    def seconds(run):
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    # blocks 0 to 3 are a third of the work; the first round warms up
    with torch.inference_mode():
        rounds = [
            (seconds(lambda: model.run(x)), seconds(lambda: run_with_cache(model, x, ["blocks.3.hook_resid_post"])))
            for _ in range(8)
        ][1:]
    ratio = statistics.median(part / whole for whole, part in rounds)
    assert ratio <= 0.4
