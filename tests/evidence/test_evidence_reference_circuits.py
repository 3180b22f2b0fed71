"""The small version of the evidence, which CI runs."""

import pytest
import torch

from evidence import reference_circuits
from mechinterp.progress import SILENT


@pytest.mark.slow
def test_curves_end_at_the_whole_model_and_the_page_says_how_small_a_circuit_does():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = reference_circuits.run(True, SILENT)
    finally:
        torch.set_num_threads(before)
    found = figures["models"]["cnn"]
    assert [u["ablation"] for u in found["under"]] == ["zero", "mean", "resample", "counterfactual"]
    for u in found["under"]:
        last = u["points"][-1]
        assert last["edges"] == found["possible_edges"]
        assert last["faithfulness"]["value"] == pytest.approx(1, abs=1e-3)
        assert last["neurons"]["value"] == pytest.approx(1, abs=1e-3)
        assert last["completeness"]["value"] == pytest.approx(0, abs=1e-3)
    page = reference_circuits.render(figures)
    assert "| counterfactual | " in page
    assert "nodes a site on" in page
