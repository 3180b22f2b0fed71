"""After an exception anywhere inside an intervention the model is as it was."""

import gc
from contextlib import suppress

import pytest
import torch
from small_models import both_runs, one_thread, planted_wiring, small_images, small_vit

from circuits import effects, find_circuit, neurons, residual_decompose
from circuits.ablations import resample
from circuits.edges import edge_effects
from circuits.metrics import as_metric
from circuits.wiring import Wiring
from mechinterp import logit

SITE = "blocks.0.hook_resid_post"


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def hooks(module):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + ("forward" in vars(m))
        for m in module.modules()
    )


class Failing:
    """An encoder, or a metric, that breaks after some calls."""

    def __init__(self, after):
        self.left = after

    def __call__(self, logits):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("on purpose")
        return logits[:, 1]


@pytest.mark.parametrize("after", [0, 1, 2, 5])
@pytest.mark.parametrize("what", ["exact", "attribution", "integrated", "graddrop", "circuit", "decompose"])
def test_after_an_exception_outputs_are_bit_equal_and_no_hook_is_left(what, after):
    vit, x = small_vit(), small_images(4)
    before, hooked = vit.module(x), hooks(vit.module)
    metric = Failing(after)
    sets = [neurons(vit, SITE), neurons(vit, "blocks.1.hook_mlp_out")]

    def work():
        if what == "circuit":
            find_circuit(vit, x, metric=metric, nodes=sets)
        elif what == "decompose":
            residual_decompose(vit, x, metric, batch=1)
        else:
            effects(metric, sets, model=vit, images=x, method=what, freeze=frozenset({"norm"}), batch=2)

    with suppress(RuntimeError):  # some have finished by then
        work()
    assert torch.equal(vit.module(x), before)
    assert hooks(vit.module) == hooked
    assert all(p.grad is None for p in vit.module.parameters())


def test_an_exception_inside_the_model_undoes_everything_too():
    vit, x = small_vit(), small_images(3)
    before, hooked = vit.module(x), hooks(vit.module)
    w = Wiring(vit, [neurons(vit, SITE)], as_metric(logit(1), vit), x, frozenset({"attention"}))
    state = w.state(x)
    with pytest.raises(RuntimeError):
        w.run(state, {SITE: torch.zeros(3, 2, 2)})
    assert torch.equal(vit.module(x), before)
    assert hooks(vit.module) == hooked
    # and the mode that holds attention is gone
    assert torch.equal(torch.relu(torch.tensor([-1.0, 1.0])), torch.tensor([0.0, 1.0]))


def test_no_memory_grows_over_a_thousand_interventions():
    planted, shown, w = planted_wiring(images=4)
    b = both_runs(w, shown.x, resample(1))

    def held():
        gc.collect()
        return sum(1 for o in gc.get_objects() if isinstance(o, torch.Tensor))

    def some(n):
        with torch.no_grad():
            for _ in range(n):
                w.run(b.clean, {"gates.0": b.replaced.acts["gates.0"]}, ("gates.1",))

    some(10)
    edge_effects(w, b.clean, b.replaced)
    before, hooked = held(), hooks(planted.model.module)
    some(1000)
    edge_effects(w, b.clean, b.replaced)
    assert held() <= before
    assert hooks(planted.model.module) == hooked
