from .bootstrap import (
    Interval as Interval,
    bootstrap_groups as bootstrap_groups,
)
from .discovery_rate import benjamini_hochberg as benjamini_hochberg
from .effective_size import (
    autocorrelation as autocorrelation,
    effective_sample_size as effective_sample_size,
)
from .permutation import (
    MaxStatisticResult as MaxStatisticResult,
    max_statistic_test as max_statistic_test,
    unit_means as unit_means,
    unit_permutations as unit_permutations,
)
from .rank import (
    average_ranks as average_ranks,
    spearman as spearman,
)
from .shifts import (
    ShiftPlan as ShiftPlan,
    plan_shifts as plan_shifts,
)
