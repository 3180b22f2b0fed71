"""A growing structure changes a feature on its own tiles, around them, and everywhere: the three come back from tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mechinterp.errors import ConfigError
from mechinterp.feature_encoder import Directions
from mechinterp.images.preparation import Preparation
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit_difference
from mechinterp.phantoms.fundus import FundusRenderer
from mechinterp.phantoms.fundus_parameters import FundusParameters
from mechinterp.phantoms.random_streams import Identity
from mechinterp.sites import Site
from mechinterp.token_grid import TokenGrid
from probes import validate_used
from probes.footprints import StructureTiles, fit_footprint, footprint_bases

STEPS = (0.5, 1.0, 1.5)
SIDE, PREFIX = 6, 1


def grown(seed, images=12):
    """Shares of tiles that a structure gains: a few tiles each, more with every step."""
    random = np.random.default_rng(seed)
    found = np.zeros((images, len(STEPS), SIDE * SIDE))
    for i in range(images):
        tiles = random.choice(SIDE * SIDE, random.integers(1, 5), replace=False)
        found[i][:, tiles] = np.array(STEPS)[:, None] * random.uniform(0.1, 0.5, len(tiles))
    return found


def test_each_part_shares_the_step_out_over_the_tokens():
    gained = np.zeros((1, 2, 9))
    gained[0, 0, 4], gained[0, 1, 0] = 0.7, 0.2
    bases = footprint_bases(gained, (1.0, 2.0), (3, 3), 1)
    np.testing.assert_allclose(bases.mean(2), [[[1, 1, 1], [2, 2, 2]]])
    np.testing.assert_allclose(bases[0, 0, :, 0], [0, 0, 0, 0, 0, 10, 0, 0, 0, 0])
    np.testing.assert_allclose(bases[0, 0, :, 1], 10 / 8 * np.array([0, 1, 1, 1, 1, 0, 1, 1, 1, 1]))
    corner = 20 / 3 * np.array([0, 0, 1, 0, 1, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(bases[0, 1, :, 1], corner)
    np.testing.assert_allclose(bases[0, 1, :, 2], 2)


@given(seed=st.integers(0, 200), own=st.floats(-3, 3), ring=st.floats(-3, 3), everywhere=st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_planted_parts_come_back_and_predict_every_token(seed, own, ring, everywhere):
    bases = footprint_bases(grown(seed), STEPS, (SIDE, SIDE), PREFIX)
    changes = bases @ np.array([own, ring, everywhere])
    found = fit_footprint(bases, changes, range(12))
    np.testing.assert_allclose([found.own, found.ring, found.everywhere], [own, ring, everywhere], atol=1e-8)
    np.testing.assert_allclose(found.predicted(bases), changes, atol=1e-7)


def test_the_total_is_the_slope_of_the_mean_token_whatever_the_tokens_do_and_patients_count_alike():
    random = np.random.default_rng(0)
    bases, patients = footprint_bases(grown(1), STEPS, (SIDE, SIDE), PREFIX), [0, 0, 0, *range(1, 10)]
    changes = random.normal(size=bases.shape[:3]) ** 3
    found = fit_footprint(bases, changes, patients)
    s = np.array(STEPS)
    of_image = changes.mean(2) @ s / (s @ s)
    of_patient = [of_image[:3].mean(), *of_image[3:]]
    assert found.total == pytest.approx(np.mean(of_patient))
    slow = np.concatenate([np.repeat(1 / 3, 3), np.ones(9)])[:, None] ** 0.5
    by_hand = np.linalg.lstsq(
        (bases * slow[..., None, None]).reshape(-1, 3), (changes * slow[..., None]).ravel(), rcond=None
    )[0]
    np.testing.assert_allclose([found.own, found.ring, found.everywhere], by_hand, atol=1e-9)


def test_parts_that_cancel_in_the_mean_are_told_apart_and_few_patients_give_no_interval():
    bases = footprint_bases(grown(2), STEPS, (SIDE, SIDE), PREFIX)
    noise = 0.1 * np.random.default_rng(3).normal(size=bases.shape[:3])
    found = fit_footprint(bases, bases @ np.array([1.0, 0.0, -1.0]) + noise, range(12))
    assert found.total == pytest.approx(0, abs=0.01)
    low, high = found.local_interval.ends
    assert 0.9 < low < found.local < high < 1.1
    assert fit_footprint(bases[:5], bases[:5, ..., 0], range(5)).local_interval.ends is None


def test_a_single_tile_has_no_ring_and_its_total_is_kept():
    bases = footprint_bases(np.full((12, 3, 1), 0.2), STEPS, (1, 1), 0)
    assert not bases[..., 1].any()
    found = fit_footprint(bases, 2 * bases[..., 0], range(12))
    assert found.total == pytest.approx(2)
    np.testing.assert_allclose(found.predicted(bases), 2 * bases[..., 0])


class Attended(nn.Module):
    """Brightness of every tile, from which the mean over all of them is taken, as attention or a normalisation would."""

    def __init__(self, share):
        super().__init__()
        self.share, self.tokens = share, nn.Identity()

    def forward(self, x):
        bright = nn.functional.avg_pool2d(x[:, 1:2] - 0.3 * x[:, :1] - 0.7 * x[:, 2:], 8)
        tokens = self.tokens(1000 * torch.cat([bright - self.share * bright.mean((2, 3), keepdim=True), bright * 0], 1))
        z = 3 * tokens[:, 0].relu().mean((1, 2))
        return torch.stack([-z / 2, z / 2], 1)


def patients(seed, n):
    found = []
    for patient in range(n):
        random = np.random.default_rng((seed, patient))
        parameters = FundusParameters(
            exudate_area_mm2=random.uniform(0.5, 2.0),
            exudate_count=8,
            haemorrhage_area_mm2=0.0,
            microaneurysm_area_mm2=0.0,
        )
        found.append(FundusRenderer(64)(parameters, Identity(seed, patient, 0)))
    return found


def attended(share):
    site = Site("tokens", "tokens", "output", "map", 2, 64, 0, TokenGrid(8, 8, (8, 8), (4.0, 4.0), (8, 8)))
    return VisionModel(
        Attended(share).eval(), "py:attended", InputContract(64, 64, 3), ("healthy", "ill"), "logits", {"tokens": site}
    )


@pytest.fixture(scope="module")
def clinic():
    return patients(1, 12), patients(2, 12)


def test_what_cancels_in_the_mean_over_tokens_is_used_where_it_grows(clinic):
    found = validate_used(
        attended(1.0), Directions("tokens", torch.tensor([[1.0, 0.0]]), torch.zeros(2)), 0, clinic[1], clinic[0],
        parameter="exudate_area_mm2", structure="exudates", steps=(0.4, 0.8), margin=0.1, n_random=20,
        objective=logit_difference("ill", "healthy"),
    )  # fmt: skip
    footprint = found.calibration.footprint
    assert found.calibration.per_unit == pytest.approx(0, abs=1e-2)  # the mean token says nothing
    assert footprint.own > 0.5
    assert footprint.everywhere == pytest.approx(-footprint.own - footprint.ring, abs=1e-2)
    assert found.calibration.follows
    assert found.verdict == "used"
    assert 0.5 < found.ratio < 2
    assert found.to_json()["footprint"]["own"] == pytest.approx(footprint.own)
    assert "on and around the tiles that grow" in found.claims[0].controls[-1].detail


def test_tiles_that_gain_nothing_are_refused(clinic):
    tiles = StructureTiles.of(attended(0.0), "tokens", clinic[0][0], "haemorrhages")
    eye = clinic[0][0]
    with pytest.raises(ConfigError, match="'haemorrhages' do not grow with 'exudate_area_mm2'"):
        tiles.gained([eye, eye.counterfactual(exudate_area_mm2=3.0)], Preparation(), "exudate_area_mm2")
