"""A small run on a hasty model: every figure that the page shows is there; what counts as reached is what is claimed."""

import pytest

from evidence import dead_latents
from mechinterp.progress import SILENT


@pytest.mark.slow
def test_a_small_run_measures_all_three_with_and_without():
    figures = dead_latents.run(True, SILENT)
    (model,) = figures["models"].values()
    assert set(model["rows"]) == {"topk", "batchtopk", "matryoshka"}
    assert 1 <= model["spectrum"]["participation"] <= model["width"]
    assert model["spectrum"]["0.9"] <= model["spectrum"]["0.99"] <= model["spectrum"]["0.999"]
    page = dead_latents.render(figures)
    assert page.count("| topk | woken |") == page.count("| topk | not |") == 1
    assert "principal components" in page


def test_few_dead_at_the_cost_of_explained_variance_is_not_reached():
    good, bare = {"dead": 0.01, "explained_variance": 0.9}, {"dead": 0.5, "explained_variance": 0.9}
    assert dead_latents.reached({"with": good, "without": bare})
    assert not dead_latents.reached({"with": {**good, "dead": 0.06}, "without": bare})
    assert not dead_latents.reached({"with": {**good, "explained_variance": 0.89}, "without": bare})
