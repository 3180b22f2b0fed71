"""The threshold against a sort of all values."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparse_autoencoders.calibration import threshold_for_l0


@settings(max_examples=30, deadline=None)
@example(seed=312, scale=1e-3, l0=1, blocks=1)  # four values share the bin
@given(seed=st.integers(0, 1000), scale=st.floats(1e-3, 1e4), l0=st.integers(1, 12), blocks=st.integers(1, 5))
def test_l0_above_the_threshold_is_what_was_asked_for(seed, scale, l0, blocks):
    hidden = scale * torch.randn(400, 40, generator=torch.Generator().manual_seed(seed))
    threshold = threshold_for_l0(hidden.chunk(blocks), l0)
    first_left_out = float(hidden.flatten().sort(descending=True).values[l0 * len(hidden)])
    # the edge of its bin of the histogram: values closer than that to each other cannot be told apart
    assert first_left_out <= threshold <= first_left_out * (1 + 2**-11)
    assert (hidden > threshold).sum() <= l0 * len(hidden)


def test_how_blocks_are_cut_does_not_matter():
    hidden = torch.rand(100, 10, generator=torch.Generator().manual_seed(0))
    assert threshold_for_l0([hidden], 3) == threshold_for_l0(hidden.split(7), 3)


def test_where_too_few_are_positive_all_positive_ones_stay():
    assert threshold_for_l0([torch.tensor([[1.0, -1.0, -2.0]])], 2) == 0
    assert threshold_for_l0([], 2) == 0
