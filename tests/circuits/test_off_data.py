import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from circuits.off_data import DataSpread
from mechinterp.errors import ShapeError


def some_tokens(n=40, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(n, 5, width, generator=generator, dtype=torch.float64) @ mixing + 3


def test_covariance_is_shrunk_as_scikit_learn_shrinks_it():
    acts = some_tokens(n=4)
    theirs = LedoitWolf().fit(acts.flatten(0, 1).numpy())
    ours = DataSpread.fit(acts)
    assert ours.shrinkage == pytest.approx(theirs.shrinkage_, rel=1e-9)
    assert np.allclose(ours.precision, theirs.precision_, rtol=1e-6)
    assert np.allclose(
        ours.distances(acts).flatten().square(), theirs.mahalanobis(acts.flatten(0, 1).numpy()), rtol=1e-6
    )


def test_the_data_itself_is_as_far_as_usual():
    acts = some_tokens()
    assert DataSpread.fit(acts).ratio(acts, acts) == 1


def test_an_always_on_unit_set_to_zero_lies_as_many_deviations_off_as_its_mean():
    acts = torch.randn(400, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    acts[..., 1] = 50 + 0.5 * acts[..., 1]
    spread = DataSpread.fit(acts)
    changed = acts.clone()
    changed[..., 1] = 0
    assert float(spread.distances(changed).mean()) == pytest.approx(100, rel=0.05)
    changed[..., 1] = 50
    assert spread.ratio(changed, acts) < 1


def test_single_changes_equal_making_the_activations():
    acts = some_tokens(n=8)
    spread = DataSpread.fit(acts)
    directions = torch.randn(7, 6, dtype=torch.float64)
    change = torch.randn(5, 7, dtype=torch.float64)
    closed = spread.single_ratios(acts[0], change, directions, spread.curvatures(directions))
    made = [spread.ratio(acts[:1] + change[:, f, None] * directions[f], acts[:1]) for f in range(7)]
    assert closed.tolist() == pytest.approx(made)


def test_units_that_never_vary_keep_the_inverse_finite():
    acts = some_tokens()
    acts[..., 2] = 0
    assert DataSpread.fit(acts).distances(acts).isfinite().all()
    assert DataSpread.fit(torch.ones(3, 2, 4)).distances(torch.zeros(1, 2, 4)).isfinite().all()


def test_one_token_has_no_spread():
    with pytest.raises(ShapeError, match="at least two"):
        DataSpread.fit(torch.ones(1, 1, 4))
