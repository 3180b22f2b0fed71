"""A small run on a known dictionary: what was trained finds it, what was not does not, and the page says which aim was missed."""

import pytest
import torch

from evidence import dictionaries
from mechinterp.progress import SILENT


@pytest.fixture(scope="module")
def figures():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = dictionaries.run(True, SILENT)
    torch.set_num_threads(before)
    return found


@pytest.mark.slow
def test_a_small_run_finds_the_dictionary_and_the_controls_do_not(figures):
    found = figures["dictionaries"]["plain"]
    assert set(found["ours"]) == set(found["SAELens"]) == {"topk", "matching-pursuit"}
    trained = [row["cosine"] for row in found["ours"].values()]
    assert min(trained) > max(row["cosine"] for row in found["controls"].values())
    assert found["ours"]["matching-pursuit"]["f1"] > found["ours"]["topk"]["oracle_f1"] * 0.9
    page = dictionaries.render(figures)
    assert page.count("| ours,") == page.count("| SAELens,") == 2
    assert "mean matched cosine above 0.9" in page


def test_what_was_missed_is_said_in_words():
    row = {"cosine": 0.5, "found": 0.1, "f1": 0.4, "oracle_f1": 0.8, "explained_variance": 0.9, "dead": 0.0}
    better = {**row, "cosine": 0.7}
    found = {"ours": {"topk": row, "matching-pursuit": row}, "SAELens": {"topk": better}, "controls": {"PCA": better}}
    said = "\n".join(dictionaries.verdicts("plain", found))
    assert "above 0.9: **none**" in said
    assert "**below** SAELens' best (topk, 0.700)" in said
    assert "**none**; **not** topk, matching-pursuit" in said
    assert "**no**, 0.400" in said
    assert "**not below**" in said
