"""What holds when images are not independent: whole units are permuted or resampled, never single images of one.

Nothing heavy is imported before a name is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechinterp.statistics.bootstrap import Interval, bootstrap_groups
    from mechinterp.statistics.discovery_rate import benjamini_hochberg
    from mechinterp.statistics.effective_size import autocorrelation, effective_sample_size
    from mechinterp.statistics.permutation import (
        MaxStatisticResult,
        max_statistic_test,
        unit_means,
        unit_permutations,
    )
    from mechinterp.statistics.rank import average_ranks, spearman
    from mechinterp.statistics.shifts import ShiftPlan, plan_shifts

_HOME = {
    "Interval": "bootstrap",
    "MaxStatisticResult": "permutation",
    "ShiftPlan": "shifts",
    "autocorrelation": "effective_size",
    "average_ranks": "rank",
    "benjamini_hochberg": "discovery_rate",
    "bootstrap_groups": "bootstrap",
    "effective_sample_size": "effective_size",
    "max_statistic_test": "permutation",
    "plan_shifts": "shifts",
    "spearman": "rank",
    "unit_means": "permutation",
    "unit_permutations": "permutation",
}
__all__ = [
    "Interval",
    "MaxStatisticResult",
    "ShiftPlan",
    "autocorrelation",
    "average_ranks",
    "benjamini_hochberg",
    "bootstrap_groups",
    "effective_sample_size",
    "max_statistic_test",
    "plan_shifts",
    "spearman",
    "unit_means",
    "unit_permutations",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(_HOME)
