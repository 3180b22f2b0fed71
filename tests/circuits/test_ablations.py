import numpy as np
import pytest
import torch

from circuits.ablations import Ablation, Source, draw, mean, resample, towards, zero
from mechinterp.errors import ConfigError, ImagesError, ShapeError
from mechinterp.feature_encoder import Directions, Neurons

ACTS = torch.arange(24.0).reshape(3, 2, 4)


def put(ablation, picks=(0,)):
    source = Source(Neurons("stage", 4), ACTS)
    return list(source.replacements(ablation, picks, ACTS[1]))


def test_zero_puts_zeros():
    assert torch.equal(put(zero())[0], torch.zeros(2, 4))


def test_mean_puts_the_mean_of_every_place():
    assert torch.equal(put(mean())[0], ACTS.mean(0))
    assert len(put(mean())) == 1


def test_resample_puts_whole_maps_of_the_drawn_images():
    found = put(resample(2), picks=[2, 0])
    assert torch.equal(found[0], ACTS[2])
    assert torch.equal(found[1], ACTS[0])


def test_codes_are_those_of_the_encoder():
    directions = Directions("stage", torch.eye(4)[:2], torch.ones(4))
    source = Source(directions, ACTS)
    assert torch.allclose(source.mean_codes, ACTS.mean(0)[:, :2] - 1)
    assert source.codes(1).shape == (2, 2)
    assert len(source) == 3


def test_every_ablation_says_what_it_does():
    sentences = [a.sentence for a in (zero(), mean(), resample(3), towards(3), Ablation("m", "mean", opposite=True))]
    assert len(set(sentences)) == 5
    assert "set to zero" in sentences[0]
    assert "mean value over reference images" in sentences[1]
    assert "3 draws" in sentences[2]
    assert sentences[3].startswith("Reference images get")


def test_draws_are_seeded_and_use_every_source_before_repeating_one():
    picks = draw(resample(4), images=50, sources=6, seed=1)
    assert picks.shape == (50, 4)
    assert all(len(set(row)) == 4 for row in picks.tolist())
    assert set(picks.ravel().tolist()) == set(range(6))
    assert (picks == draw(resample(4), 50, 6, seed=1)).all()
    assert (picks != draw(resample(4), 50, 6, seed=2)).any()


def test_more_draws_than_sources_repeat_them_evenly():
    counts = [np.bincount(row, minlength=2).tolist() for row in draw(resample(4), 5, 2, seed=0)]
    assert counts == [[2, 2]] * 5


def test_no_draws_are_refused():
    with pytest.raises(ConfigError, match="'resample' draws 0 images"):
        resample(0)
    with pytest.raises(ConfigError, match="puts nothing"):
        Ablation("zero", "nothing", draws=2)


def test_a_source_without_images_is_refused():
    with pytest.raises(ImagesError, match="at least one reference image"):
        Source(Neurons("stage", 4), ACTS[:0])


def test_a_source_needs_tokens():
    with pytest.raises(ShapeError, match=r"\(2, 4\)"):
        Source(Neurons("stage", 4), ACTS[0])
