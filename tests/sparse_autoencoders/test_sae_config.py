from typing import get_type_hints

import pytest

from mechinterp.errors import ConfigError
from sparse_autoencoders.config import TrainSAEConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "topkk"}, "unknown architecture 'topkk': did you mean 'topk'"),
        ({"init": "zeros"}, "unknown initialisation 'zeros'"),
        ({"k": 0}, "k is 0: it must be at least 1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"expansion": 0}, "expansion is 0: it must be above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"warm_up": float("nan")}, "warm_up is nan: it must be a finite number"),
        ({"expansion": float("inf")}, "expansion is inf: it must be a finite number"),
        ({"balance": 0.0}, "balance is 0.0: it must be above 0"),
        ({"seeds": (1 << 63,)}, "none above 2\\^63 - 1"),
        ({"aux": -1}, "aux is -1"),
        ({"warm_up": 0.6, "decay": 0.6}, "at most 1 together"),
        ({"seeds": ()}, "no seed given"),
        ({"seeds": (1, 1)}, "seeds are 1, 1"),
        ({"seeds": (-1,)}, "none negative"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainSAEConfig(**settings)


def test_the_width_follows_the_expansion():
    assert TrainSAEConfig(expansion=1.5).width(512) == 768


def test_every_field_has_help():
    hints = get_type_hints(TrainSAEConfig, include_extras=True)
    assert all(len(hint.__metadata__[0]) > 10 for hint in hints.values())
