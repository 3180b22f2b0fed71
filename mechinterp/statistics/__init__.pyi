from .bootstrap import (
    Interval as Interval,
    bootstrap_groups as bootstrap_groups,
)
from .discovery_rate import benjamini_hochberg as benjamini_hochberg
from .effective_size import (
    autocorrelation as autocorrelation,
    effective_sample_size as effective_sample_size,
)
from .equivalence import (
    Equivalence as Equivalence,
    equivalence_test as equivalence_test,
    mean_interval as mean_interval,
)
from .information import (
    entropy_bits as entropy_bits,
    mutual_information as mutual_information,
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
    spearman_p_values as spearman_p_values,
)
from .rank_intervals import spearman_intervals as spearman_intervals
from .separation import auroc as auroc
from .shifts import (
    ShiftPlan as ShiftPlan,
    plan_shifts as plan_shifts,
)
