"""What the reference models use: the page says what the figures hold."""

import json

import numpy as np
import pytest

from evidence import use_by_reference
from probes.usage_result import SIZE_RANGE


def test_a_wrong_sign_is_farthest_from_the_true_slope():
    class Result:
        def __init__(self, ratio):
            self.ratio = ratio

    assert use_by_reference.distance(Result(1.0)) == 0
    assert use_by_reference.distance(Result(2.0)) == pytest.approx(use_by_reference.distance(Result(0.5)))
    assert use_by_reference.distance(Result(SIZE_RANGE[0])) < use_by_reference.distance(Result(-1.0)) == np.inf


@pytest.mark.slow
def test_a_small_run_of_what_is_used_renders_as_a_page():
    page = use_by_reference.render(json.loads(json.dumps(use_by_reference.run(True))))
    assert "**met**" in page or "**not met**" in page
    assert page.count("|---|") > 1
