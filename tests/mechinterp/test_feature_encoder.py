"""Neurons and directions satisfy what every encoder promises: affine decoding, stable hashes, widths that are checked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechinterp.errors import ShapeError
from mechinterp.feature_encoder import Directions, FeatureEncoder, Neurons


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directions(n, d_in, seed=0, **settings):
    unit = torch.nn.functional.normalize(random(n, d_in, seed=seed), dim=1)
    return Directions("s", unit, random(d_in, seed=seed + 1), **settings)


@pytest.mark.parametrize("encoder", [Neurons("s", 5), directions(3, 5), directions(7, 5, kind="random")])
def test_they_are_encoders(encoder):
    assert isinstance(encoder, FeatureEncoder)
    x = random(2, 4, 5)
    z = encoder.encode(x)
    assert z.shape == (2, 4, encoder.width)
    assert encoder.decode(z).shape == x.shape
    assert encoder.directions.shape == (encoder.width, encoder.d_in)
    assert encoder.site == "s"
    assert encoder.kind in {"neurons", "directions", "random"}


@given(n=st.integers(1, 8), d_in=st.integers(1, 8), rows=st.integers(1, 5), seed=st.integers(0, 999))
@settings(deadline=None)
def test_a_change_of_codes_changes_the_activation_along_the_directions(n, d_in, rows, seed):
    for encoder in (Neurons("s", n), directions(n, d_in, seed)):
        z, change = random(rows, n, seed=seed), random(rows, n, seed=seed + 7)
        moved = encoder.decode(z + change) - encoder.decode(z)
        torch.testing.assert_close(moved, change @ encoder.directions, rtol=1e-4, atol=1e-5)


def test_neurons_are_the_activation_itself():
    x = random(6, 4)
    neurons = Neurons("s", 4)
    assert neurons.encode(x) is x
    assert neurons.decode(x) is x
    assert torch.equal(neurons.directions, torch.eye(4))
    assert neurons.width == neurons.d_in == 4


def test_an_orthonormal_basis_reconstructs_exactly_and_a_part_of_it_projects():
    basis = torch.linalg.qr(random(5, 5))[0].T
    mean, x = random(5, seed=3), random(20, 5, seed=4)
    whole = Directions("s", basis, mean, kind="pca")
    torch.testing.assert_close(whole.decode(whole.encode(x)), x)
    part = Directions("s", basis[:2], mean)
    projected = part.decode(part.encode(x))
    torch.testing.assert_close((x - projected) @ basis[:2].T, torch.zeros(20, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(part.decode(part.encode(projected)), projected)
    assert torch.equal(part.encode(mean), torch.zeros(2))


def test_activations_of_another_type_keep_it():
    encoder = directions(3, 5)
    assert encoder.encode(random(2, 5).double()).dtype == torch.float64
    assert encoder.decode(random(2, 3).bfloat16()).dtype == torch.bfloat16


def test_hashes_differ_in_all_that_decides_the_codes_and_nothing_else():
    unit, mean = directions(3, 5).unit_directions, directions(3, 5).mean
    same = [Directions("s", unit, mean), Directions("s", unit.clone(), mean.clone())]
    assert len({e.weights_hash for e in same}) == 1
    others = [
        Directions("t", unit, mean),
        Directions("s", unit, mean, kind="pca"),
        Directions("s", -unit, mean),
        Directions("s", unit, mean + 1),
        Directions("s", unit.double(), mean.double()),
        Directions("s", unit.bfloat16(), mean.bfloat16()),
        Directions("s", unit.reshape(5, 3), mean[:3]),
        Neurons("s", 5),
        Neurons("s", 4),
        Neurons("t", 5),
    ]
    assert len({e.weights_hash for e in [*same, *others]}) == len(others) + 1
    assert Neurons("s", 5).weights_hash == Neurons("s", 5).weights_hash


@pytest.mark.parametrize("encoder", [Neurons("s", 5), directions(3, 5)])
def test_another_width_is_named(encoder):
    with pytest.raises(ShapeError, match="activations are 4 wide, the features of site 's' read 5: capture that site"):
        encoder.encode(random(2, 4))
    with pytest.raises(ShapeError, match=f"codes of 6 features given to an encoder of {encoder.width} for site 's'"):
        encoder.decode(random(2, 6))


@pytest.mark.parametrize("shapes", [((3, 5), (4,)), ((3, 5), (3, 5)), ((5,), (5,))])
def test_directions_and_a_mean_that_do_not_belong_together_are_refused(shapes):
    with pytest.raises(ShapeError, match=r"do not belong together: give \(feature, d_in\) and \(d_in,\) of site 's'"):
        Directions("s", random(*shapes[0]), random(*shapes[1]))
