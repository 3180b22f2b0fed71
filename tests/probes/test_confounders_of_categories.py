"""Categories as confounders: each but the commonest becomes an attribute of its own."""

import numpy as np
import pytest

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.errors import AttributeTableError
from probes import confounder_figure, confounder_graph


def a_table(random, n=120):
    maker = random.choice(3, size=n, p=[0.5, 0.3, 0.2]).astype(float)
    size = random.normal(size=n) + 1.5 * (maker == 2)
    table = AttributeTable(
        (Attribute("size", "mm"), Attribute("maker", "", kind="categorical"), Attribute("same", "kV")),
        np.column_stack([size, maker, np.full(n, 80.0)]),
        {"maker": ("alpha", "beta", "gamma")},
    )
    return table, size, maker


def test_a_readout_of_the_maker_is_told_from_one_of_size():
    table, _, maker = a_table(np.random.default_rng(0))
    readout = 3.0 * (maker == 2) + 0.3 * np.random.default_rng(1).normal(size=len(maker))
    graph = confounder_graph(readout, table, ["size", "maker"], n_boot=200)
    assert graph.attributes == ("size [mm]", "maker = beta", "maker = gamma")
    size, beta, gamma = graph.adjusted
    assert graph.naive[0].excludes_zero
    assert not size.excludes_zero
    assert not beta.excludes_zero
    assert gamma.excludes_zero
    assert len(confounder_figure(graph).data) > 3


def test_what_does_not_vary_is_refused_by_name():
    table, size, _ = a_table(np.random.default_rng(0))
    with pytest.raises(AttributeTableError, match="'same' is the same on all images"):
        confounder_graph(size, table, ["size", "same"])
