"""Synthetic dictionaries are what their settings say, and recovery is one where it is whole."""

import pytest
import torch

from mechinterp.errors import ConfigError, ShapeError
from mechinterp.feature_encoder import Directions
from sparse_autoencoders.ground_truth import (
    HARD,
    DictionarySettings,
    SyntheticDictionary,
    matching_pursuit_codes,
    random_recovery,
    recovery,
    topk_codes,
)
from sparse_autoencoders.stability import stability

SMALL = DictionarySettings(width=40, features=60, active=4, noise=0.0)


@pytest.mark.parametrize("settings", [DictionarySettings(), HARD, SMALL], ids=["plain", "hard", "small"])
def test_as_many_features_fire_as_the_settings_say(settings):
    truth = SyntheticDictionary(settings)
    x, codes = truth.draw(4000, torch.Generator().manual_seed(1))
    assert (codes > 0).sum(1).float().mean() == pytest.approx(settings.active, rel=0.03)
    assert x.shape == (4000, settings.width)
    assert codes[codes > 0].mean() == pytest.approx(1, abs=0.02)
    residual = x - codes @ truth.directions
    assert residual.std() == pytest.approx(settings.noise, abs=0.001)


def test_a_child_never_fires_without_its_parent_and_groups_fire_together():
    truth = SyntheticDictionary(HARD)
    _, codes = truth.draw(3000, torch.Generator().manual_seed(1))
    fires = codes > 0
    child = (truth.parent >= 0).nonzero().flatten()
    assert len(child) == 256
    assert not (fires[:, child] & ~fires[:, truth.parent[child]]).any()
    assert fires[:, child].any()
    alone = (truth.parent < 0).nonzero().flatten()
    same_group = alone[alone // 16 == alone[10] // 16][:5]
    correlation = torch.corrcoef(fires[:, same_group].float().T)
    assert correlation[~torch.eye(len(same_group), dtype=torch.bool)].mean() > 0.02


def test_the_true_dictionary_in_any_order_is_recovered_whole():
    truth = SyntheticDictionary(SMALL)
    x, codes = truth.draw(500, torch.Generator().manual_seed(1))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(2))
    found = recovery(truth.directions[order] * 3, codes[:, order], truth, codes, topk_codes(x, truth.directions, 4))
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.found == 1
    assert found.f1 == 1
    assert 0.4 < found.oracle_f1 < 1


def test_half_a_dictionary_is_recovered_by_half():
    truth = SyntheticDictionary(SMALL)
    x, codes = truth.draw(500, torch.Generator().manual_seed(1))
    found = recovery(truth.directions[:30], codes[:, :30], truth, codes, topk_codes(x, truth.directions, 4))
    assert found.cosine == pytest.approx(0.5, abs=0.01)
    assert found.found == 0.5
    assert found.f1 == pytest.approx(0.5, abs=0.02)


def test_chance_finds_little_and_matching_pursuit_finds_more_than_topk():
    assert random_recovery(SMALL, 60, 0) < 0.45
    truth = SyntheticDictionary(SMALL)
    x, codes = truth.draw(300, torch.Generator().manual_seed(1))
    pursuit = recovery(
        truth.directions,
        matching_pursuit_codes(x, truth.directions, 4),
        truth,
        codes,
        topk_codes(x, truth.directions, 4),
    )
    assert pursuit.f1 > pursuit.oracle_f1


def test_matching_pursuit_of_orthogonal_directions_gives_the_codes_back():
    directions = torch.eye(8)
    codes = torch.zeros(1, 8)
    codes[0, [1, 5]] = torch.tensor([2.0, 0.5])
    assert torch.allclose(matching_pursuit_codes(codes @ directions, directions, 3), codes)


def test_what_cannot_be_meant_is_one_line():
    with pytest.raises(ConfigError, match="active is 90: it must lie between 0 and the 60 features"):
        DictionarySettings(features=60, active=90)
    with pytest.raises(ConfigError, match="correlation is 1"):
        DictionarySettings(correlation=1)
    with pytest.raises(ConfigError, match="children is 40: at most half of the 60"):
        DictionarySettings(features=60, active=3, children=40)
    truth = SyntheticDictionary(SMALL)
    with pytest.raises(ShapeError, match="3 rows of codes, 4 of true codes"):
        recovery(truth.directions, torch.zeros(3, 60), truth, torch.zeros(4, 60), torch.zeros(4, 60))


def test_a_permuted_twin_recurs_and_a_stranger_does_not():
    g = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(12, 30, generator=g), dim=1)
    order = torch.randperm(12, generator=g)
    stranger = torch.nn.functional.normalize(torch.randn(5, 30, generator=g), dim=1)
    made = [Directions("site", d, torch.zeros(30)) for d in (unit, unit[order], stranger)]
    found = stability(made[0], made[1:])
    assert order[found.partner[:, 0]].tolist() == list(range(12))
    assert found.recurs_in.tolist() == [1] * 12
    assert found.others == 2
    assert (found.partner[:, 1] == -1).sum() == 7
    assert (found.cosine[found.partner[:, 1] == -1, 1] == 0).all()
    with pytest.raises(ConfigError, match="at least two seeds"):
        stability(made[0], [])
    with pytest.raises(ShapeError, match="is 4 wide"):
        stability(made[0], [Directions("other", torch.eye(4), torch.zeros(4))])
