r"""Whether features are used differently in two environments: differences of mean effects, tested by exchanging patients.

Effects on honest evidence depend on the class (a lesion feature's removal costs ill images, not healthy ones), so means are
taken within each class and averaged over the classes: two environments with other shares of ill patients do not differ by
that alone. Patients change places within strata of the same classes only, for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from mechinterp.errors import ConfigError, LeakageError, ShapeError
from mechinterp.statistics.bootstrap import groups_to_positions

Values = NDArray[np.float64]
FEWEST_PATIENTS = 5
"""Of one class in one environment: with fewer, a mean and its error are no estimates."""
_CELLS = 8_000_000


@dataclass(frozen=True, eq=False)
class UseDifferences:
    """Use of every feature in two environments, and the test of their difference.

    Parameters
    ----------
    first, second
        Mean effect of removing each feature, over classes, patients and images.
    difference
        First minus second.
    statistic
        The difference over its standard error (Welch's, over patients).
    p
        Chance that the largest statistic of any feature is as large when patients change their environments.
    null
        That largest statistic in every permutation, the observed one first.
    patients
        How many there are in each environment.
    strata
        How many groups of patients changed places only among themselves.

    """

    first: Float[Values, " feature"]
    second: Float[Values, " feature"]
    difference: Float[Values, " feature"]
    statistic: Float[Values, " feature"]
    p: Float[Values, " feature"]
    null: Float[Values, " permutation"]
    patients: tuple[int, int]
    strata: int


@dataclass(frozen=True, eq=False)
class PatientMeans:
    """Mean effects of each patient, class by class.

    Parameters
    ----------
    values
        0 where a patient has no image of the class.
    present
        Whether the patient has one.
    second
        Whether the patient is of the second environment.
    stratum
        Which classes a patient has images of, as a number.

    """

    values: Float[Values, "class patient feature"]
    present: Float[Values, "class patient"]
    second: Bool[NDArray[np.bool_], " patient"]
    stratum: Int[NDArray[np.int64], " patient"]

    @classmethod
    def of(
        cls,
        effects: Float[NDArray[Any], "image feature"],
        second: Bool[NDArray[np.bool_], " image"],
        labels: Bool[NDArray[np.bool_], " image"],
        groups: NDArray[Any],
    ) -> PatientMeans:
        """Average images by patient and class.

        Raises
        ------
        ShapeError
            If lengths differ.
        LeakageError
            If a patient is in both environments.
        ConfigError
            If an environment has too few patients of a class.

        """
        n = len(effects)
        if not len(second) == len(labels) == len(groups) == n:
            raise ShapeError(
                f"{n} images have {len(second)} environments, {len(labels)} labels and {len(groups)} patients: one each"
            )
        names, members = groups_to_positions(groups)
        environment = np.array([second[m].mean() for m in members])
        mixed = int(((environment > 0) & (environment < 1)).sum())
        if mixed:
            raise LeakageError(
                f"{mixed} patient(s) have images in both environments: keep each in one, so that patients can be exchanged"
            )
        patient = np.empty(n, dtype=np.int64)
        for k, positions in enumerate(members):
            patient[positions] = k
        centred = np.asarray(effects, dtype=np.float64)
        values = np.zeros((2, len(names), centred.shape[1]))
        present = np.zeros((2, len(names)))
        for c in (0, 1):
            chosen = np.asarray(labels) == bool(c)
            counts = np.bincount(patient[chosen], minlength=len(names)).astype(np.float64)
            np.add.at(values[c], patient[chosen], centred[chosen])
            values[c] /= np.maximum(counts, 1)[:, None]
            present[c] = counts > 0
        made = cls(values, present, environment > 0, (present[0] + 2 * present[1]).astype(np.int64))
        for c in (0, 1):
            for of_second, name in ((False, "first"), (True, "second")):
                count = int(present[c][made.second == of_second].sum())
                if count < FEWEST_PATIENTS:
                    raise ConfigError(
                        f"the {name} environment has {count} patient(s) {'with' if c else 'without'} the target: "
                        f"give at least {FEWEST_PATIENTS}"
                    )
        return made

    def statistics(
        self, second: Bool[NDArray[np.bool_], "assignment patient"]
    ) -> tuple[Values, Values, Float[Values, "assignment feature"], Float[Values, "assignment feature"]]:
        """Return both means, their difference and its studentised value for some assignments of patients."""
        means = np.zeros((2, len(second), self.values.shape[2]))
        variance = np.zeros(means.shape[1:])
        for c in (0, 1):
            centre = self.values[c].sum(0) / self.present[c].sum()
            x = (self.values[c] - centre) * self.present[c][:, None]
            total, squares = x.sum(0), np.square(x)
            all_squares, n_all = squares.sum(0), self.present[c].sum()
            weights = second * self.present[c]
            n2 = weights.sum(1, keepdims=True)
            n1 = n_all - n2
            s2, q2 = weights @ x, weights @ squares
            for e, (n, s, q) in enumerate(((n1, total - s2, all_squares - q2), (n2, s2, q2))):
                mean = s / n
                means[e] += (mean + centre) / 2
                variance += np.maximum(q - n * np.square(mean), 0) / (n - 1) / n / 4
        difference = means[0] - means[1]
        # what never varies differs nowhere; rounding must not make it significant
        scale = np.square(self.values).mean((0, 1))
        alive = variance > 1e-14 * np.maximum(scale, 1e-300)
        studentised = np.divide(difference, np.sqrt(variance), out=np.zeros_like(difference), where=alive)
        return means[0], means[1], difference, studentised

    def permuted(self, n: int, random: np.random.Generator) -> Bool[NDArray[np.bool_], "permutation patient"]:
        """Return assignments in which patients of the same classes change places, the observed one first."""
        out = np.tile(self.second, (n + 1, 1))
        for stratum in np.unique(self.stratum):
            of = np.flatnonzero(self.stratum == stratum)
            out[1:, of] = random.permuted(out[1:, of], axis=1)
        return out

    def test(self, n_permutations: int = 2000, seed: int = 0) -> UseDifferences:
        """Compare the environments; p-values by permutation, with the maximum over features [1]_.

        References
        ----------
        .. [1] Westfall, Young. Resampling-based multiple testing. 1993 (single-step maxT).

        """
        random = np.random.default_rng([seed, 1])
        assignments = self.permuted(n_permutations, random)
        step = max(1, _CELLS // max(self.values.shape[1] + 8 * self.values.shape[2], 1))
        null = np.concatenate([
            np.abs(self.statistics(assignments[k : k + step])[3]).max(1, initial=0.0)
            for k in range(0, len(assignments), step)
        ])  # fmt: skip
        first, second, difference, statistic = (a[0] for a in self.statistics(assignments[:1]))
        ordered = np.sort(null)
        reached = len(null) - np.searchsorted(ordered, np.abs(statistic) - 1e-9)
        counts = int((~self.second).sum()), int(self.second.sum())
        return UseDifferences(
            first, second, difference, statistic, reached / len(null), null, counts, len(np.unique(self.stratum))
        )

    def placebo_alarms(self, n: int = 100, *, n_permutations: int = 200, alpha: float = 0.05, seed: int = 0) -> int:
        """Count how often patients dealt to two environments at random would raise an alarm.

        Parameters
        ----------
        n
            How many null environments are drawn, each tested as the real ones are.
        n_permutations, alpha, seed
            Of each test.

        """
        drawn = self.permuted(n, np.random.default_rng([seed, 2]))[1:]
        alarms = 0
        for k, second in enumerate(drawn):
            one = PatientMeans(self.values, self.present, second, self.stratum)
            alarms += bool(one.test(n_permutations, seed=seed + 1 + k).p.min() <= alpha)
        return alarms
