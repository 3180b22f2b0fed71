import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.images.resampling import resized


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    size=st.tuples(st.integers(1, 25), st.integers(1, 25)),
    start=st.floats(0, 0.4),
    stop=st.floats(0.6, 1),
)
def test_a_volumes_slices_are_resized_as_pillow_resizes_pictures(shape, size, start, stop):
    rng = np.random.default_rng(0)
    volume = rng.random((3, *shape)).astype(np.float32)
    first, last = [start * n for n in shape], [stop * n for n in shape]
    ours = resized(volume, (0, *first), (3, *last), (3, *size))
    for plane, shown in zip(volume, ours, strict=True):
        assert shown == pytest.approx(resized(plane, first, last, size), abs=2e-5)


@pytest.mark.parametrize("size", [(8, 6, 10), (3, 12, 5)])
def test_a_whole_volume_is_resized_as_torch_does_it_where_nothing_shrinks_or_by_means_where_it_halves(size):
    volume = np.random.default_rng(0).random((4, 6, 5)).astype(np.float32)
    ours = resized(volume, (0, 0, 0), (4, 6, 5), size)
    if all(a >= b for a, b in zip(size, volume.shape, strict=True)):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(volume)[None, None], size=size, mode="trilinear")
        assert ours == pytest.approx(theirs[0, 0].numpy(), abs=1e-6)
    assert ours.mean() == pytest.approx(volume.mean(), abs=0.1)


def test_a_constant_stays_constant_and_the_same_size_stays_the_same():
    assert resized(np.full((5, 4, 3), 2.5, np.float32), (0, 1, 0), (5, 3.5, 3), (2, 7, 3)) == pytest.approx(2.5)
    volume = np.random.default_rng(1).random((4, 5, 6)).astype(np.float32)
    assert (resized(volume, (0, 0, 0), (4, 5, 6), (4, 5, 6)) == volume).all()
