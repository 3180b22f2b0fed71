import numpy as np
import pytest
from small_models import both_runs, one_thread

from circuits.ablations import zero
from circuits.edge_maps import edge_map
from circuits.edges import METRIC, edge_effects
from circuits.metrics import as_metric
from circuits.nodes import neurons
from circuits.planted.by_hand import hand_made_cnn
from circuits.wiring import Wiring
from mechinterp import logit


@pytest.fixture(scope="module")
def planted_runs():
    with one_thread():
        planted = hand_made_cnn()
        shown = planted.images(12, seed=2)
        w = Wiring(
            planted.model,
            [neurons(planted.model, s) for s in planted.sites],
            as_metric(logit(1), planted.model),
            shown.x,
        )
        yield planted, shown, w, both_runs(w, shown.x, zero())


@pytest.mark.parametrize("steps", [1, 8])
def test_the_map_of_an_edge_sums_to_its_effect(planted_runs, steps):
    planted, _, w, both = planted_runs
    method = "attribution" if steps == 1 else "integrated"
    found = {(e.source, e.target): e for e in edge_effects(w, both.clean, both.replaced, method=method, steps=steps)}
    ring, again = planted.places["ring"][0], planted.places["ring again"][0]
    drawn = edge_map(w, both, (ring, again), steps=steps)
    assert np.allclose(drawn.sum(1).numpy(), found[ring[0], again[0]].effects[:, ring[1], again[1]], atol=1e-9)
    tag = planted.places["tag once more"][0]
    last = edge_map(w, both, (tag, (METRIC, 0)), steps=steps)
    assert np.allclose(last.sum(1).numpy(), found[tag[0], METRIC].effects[:, tag[1], 0], atol=1e-9)


def test_an_edge_acts_where_its_pattern_is(planted_runs):
    planted, shown, w, both = planted_runs
    ring = list(planted.plan.inputs).index("ring")
    drawn = edge_map(w, both, (planted.places["ring"][0], planted.places["ring again"][0])).abs().numpy()
    cells = shown.cells[:, ring, 0] * planted.cells + shown.cells[:, ring, 1]
    acting = drawn.max(1) > 1e-9
    assert acting.any()
    assert (drawn.argmax(1)[acting] == cells[acting]).all()
    assert np.allclose(drawn[acting].sum(1), drawn[acting].max(1))
