"""The documentation's example runs as it is printed, on real measurements of nuclei, and says what scikit-learn says."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from probes import attribute_matrix_figure, survivors_figure

PAGE = Path(__file__).parents[2] / "docs" / "attributes.md"


@pytest.fixture(scope="module")
def ran():
    """Run the page's code blocks one after another; what they made, and what they printed."""
    names, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
            exec(compile(block, str(PAGE), "exec"), names)
    return names, printed.getvalue()


def test_every_block_runs_and_size_follows_size(ran):
    names, printed = ran
    assert "mean_radius follows worst_" in printed
    matrix = names["matrix"]
    assert matrix[0].attribute in {"worst_radius", "worst_perimeter", "worst_area"}
    assert matrix.attributes[0].unit == "px"
    assert len(matrix.survivors) >= 9
    low, high = matrix[0].interval
    assert low < matrix[0].rho_confirmation < high


def test_areas_under_the_curve_are_scikit_learns(ran):
    names, _ = ran
    data, target, held_out = names["nuclei"].data, names["nuclei"].target, names["confirmation"]
    expected = [roc_auc_score(target[held_out], data[held_out, i]) for i in range(10)]
    np.testing.assert_allclose(names["benign"], expected, atol=1e-12)


def test_three_measures_of_size_are_redundant(ran):
    names, _ = ran
    whole = names["whole"]
    size = sum(n for name, n in whole.redundancy.items() if name in {"worst_radius", "worst_perimeter", "worst_area"})
    assert size >= 3
    assert 0 < whole.dci.completeness < 0.5


def test_figures_of_the_example_draw_every_survivor_with_its_interval(ran):
    matrix = ran[0]["matrix"]
    figure = survivors_figure(matrix)
    held_out = figure.data[1]
    assert len(held_out.x) == len(matrix.survivors)
    low = np.array(held_out.x) - np.array(held_out.error_x.arrayminus)
    np.testing.assert_allclose(low, [f.interval[0] for f in matrix.survivors])
    assert figure.layout.xaxis.title.text == "rank correlation"
    assert attribute_matrix_figure(matrix).data[0].z.shape == (10, 11)
    few = attribute_matrix_figure(matrix, n_attributes=4)
    assert few.data[0].z.shape == (10, 4)
    assert "7 attributes that these features follow less are not drawn" in few.layout.title.text
    assert set(few.data[0].x) <= set(attribute_matrix_figure(matrix).data[0].x)
