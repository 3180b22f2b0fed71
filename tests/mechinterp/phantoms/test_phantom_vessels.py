import numpy as np

from mechinterp.phantoms.random_streams import stream
from mechinterp.phantoms.vessels import grow_tree

DISC = (-0.35, 4.6)


def tree(seed=0, disc=DISC, tortuosity=0.4):
    return grow_tree(stream(seed, "vessels"), disc, tortuosity)


def test_the_fovea_has_no_vessels():
    for seed in range(30):
        grown = tree(seed, tortuosity=0.3)
        assert np.linalg.norm(grown.starts_mm, axis=1).min() > 0.4


def test_arcades_arch_above_and_below_the_macula():
    grown = tree()
    large = grown.radii > 0.2
    near = large & (np.abs(grown.starts_mm[:, 1]) < 0.5)
    rows = grown.starts_mm[near, 0]
    assert (rows < -1.5).any()
    assert (rows > 1.5).any()
    assert not (np.abs(rows) < 1.5).any()


def test_veins_are_wider_and_both_taper_away_from_the_disc():
    grown = tree()
    distance = np.linalg.norm(grown.starts_mm - DISC, axis=1)
    assert grown.radii[~grown.is_artery].max() > grown.radii[grown.is_artery].max()
    for artery in (True, False):
        mine = grown.is_artery == artery
        near, far = grown.radii[mine & (distance < 1.5)], grown.radii[mine & (distance > 6)]
        assert np.quantile(near, 0.9) > 1.5 * np.quantile(far, 0.9)


def test_hundreds_of_branches_hang_on_trunks_that_leave_the_disc():
    grown = tree()
    begins, ends = ({tuple(p) for p in np.round(points, 9)} for points in (grown.starts_mm, grown.ends_mm))
    roots = np.array(sorted(begins - ends))
    assert len(roots) == 16
    assert np.linalg.norm(roots - DISC, axis=1).max() < 0.6
    assert 150 < len(grown.starts_mm) - len(begins) < 800


def test_tortuosity_bends_the_same_tree():
    smooth, wound = tree(tortuosity=0.0), tree(tortuosity=0.3)
    trunk = slice(0, 109)
    assert np.abs(smooth.starts_mm[trunk] - wound.starts_mm[trunk]).max() < 0.6
    assert np.abs(smooth.starts_mm[trunk] - wound.starts_mm[trunk]).max() > 0.02
    np.testing.assert_allclose(smooth.radii[trunk], wound.radii[trunk])


def test_the_disc_takes_the_vessels_along():
    here, there = tree(), tree(disc=(-0.35, 4.8))
    assert np.abs(there.starts_mm[0] - here.starts_mm[0] - (0, 0.2)).max() < 1e-9
