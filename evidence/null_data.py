"""What the statistics say of data that hold nothing, and of data whose truth is known: do the error rates hold?

Features and attributes are drawn without a relation, in the ways in which real ones are not independent: images that
share a patient, features that are copies of each other, slices that are neighbours. Beside each stands what a test that
does not know of it would have said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mechinterp.attributes.table import Attribute, AttributeTable
from mechinterp.progress import Progress
from mechinterp.statistics import (
    benjamini_hochberg,
    bootstrap_groups,
    equivalence_test,
    mean_interval,
    spearman,
    spearman_intervals,
    spearman_p_values,
)
from mechinterp.statistics.few_patients import rank_correlation_intervals
from probes import match_attributes
from probes.score_intervals import reading_interval, score_interval
from probes.scores import Reading

SOURCES = (
    "mechinterp/statistics/*.py", "probes/matrix.py", "probes/matrix_result.py", "probes/pair_measures.py",
    "probes/score_intervals.py", "probes/scores.py",
)  # fmt: skip
TITLE = "Data that hold nothing: false discoveries, cover of intervals, equivalence"

RUNS, SMALL_RUNS = 2000, 12
_FEATURES, _ATTRIBUTES, _PATIENTS = 60, 4, 80

Draw = Callable[[np.random.Generator], tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]]


def run(small: bool, progress: Progress) -> dict[str, Any]:
    """Draw the data over and over, and count how often each statistic errs."""
    runs = SMALL_RUNS if small else RUNS
    return {
        "runs": runs,
        "discoveries": [_discoveries(name, draw, runs, progress) for name, draw in _NULLS.items()],
        "volume": _volume(runs, progress),
        "mixed": _mixed(runs, progress),
        "cover": _cover(runs, progress),
        "equivalence": _equivalence(runs, progress),
    }


def render(figures: dict[str, Any]) -> str:
    """Return the figures as tables."""
    runs = figures["runs"]
    lines = [
        f"Over {runs:,} runs each. Bounds hold 99 % of what a rate at its nominal value would show in as many runs.",
        "",
        "**Nothing is there.** Share of runs in which any of 60 features × 4 attributes survives (nominal at most 5 %), "
        "as the attribute matrix does it, and as a test would that takes every image for a patient:",
        "",
        "| data | survives, false-discovery rate | survives, highest of all pairs | every image a patient | within bounds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {d['data']} | {_share(d['fdr'])} | {_share(d['maximum'])} | {_share(d['naive'])} | {_yes(d['within'])} |"
        for d in figures["discoveries"]
    ]
    v = figures["volume"]
    lines += [
        f"| slices of one volume, smooth along it | – | {_share(v['maximum'])} | {_share(v['naive'])} | {_yes(v['within'])} |",
        "",
        f"**Something is there.** {figures['mixed']['true']} of {_FEATURES} features follow an attribute, in copies of each "
        f"other; share of false discoveries among the survivors {_share(figures['mixed']['fdr'])} (standard error "
        f"{_share(figures['mixed']['fdr_error'])}, nominal at most 5 %), power {_share(figures['mixed']['power'])}; of the "
        f"survivors' 95 % intervals {_share(figures['mixed']['cover'])} hold the truth (the same intervals at the nominal "
        f"level, not widened for the selection, would: {_share(figures['mixed']['cover_unadjusted'])}).",
        "",
        "**Cover of 95 % intervals**, three images a patient that share most of their variance:",
        "",
        "| statistic | truth | patients | cover | within bounds | refused | plain percentile bootstrap |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {c['statistic']} | {c['truth']:.2f} | {c['patients']} | {_share(c['cover'])} | "
        f"{'no, wider than needed' if c['above'] else _yes(c['within'])} | {_share(c['refused'])} | "
        f"{'–' if c['plain'] is None else _share(c['plain'])} |"
        for c in figures["cover"]
    ]
    e = figures["equivalence"]
    lines += [
        "",
        f"**Equivalence test** with 20 patients: a mean at the margin is called equivalent in {_share(e['at_margin'])} of the "
        f"runs (nominal 5 %, {_yes(e['within'])}), one of 0 in {_share(e['at_zero'])}, one of twice the margin in "
        f"{_share(e['beyond'])}.",
    ]
    return "\n".join(lines)


def bounds(nominal: float, runs: int) -> tuple[float, float]:
    """Return the rates between which 99 % of all counts of `runs` fall at the nominal rate."""
    from scipy.stats import binom

    low, high = binom.interval(0.99, runs, nominal)
    return float(low) / runs, float(high) / runs


def _independent(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    return (
        rng.normal(size=(_PATIENTS, _FEATURES)), rng.normal(size=(_PATIENTS, _ATTRIBUTES)), np.arange(_PATIENTS),
    )  # fmt: skip


def _shared(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    patients = np.repeat(np.arange(_PATIENTS), 3)

    def of_patient(width: int) -> NDArray[np.float64]:
        own = rng.normal(size=(_PATIENTS, width))[patients]
        values: NDArray[np.float64] = np.sqrt(0.8) * own + np.sqrt(0.2) * rng.normal(size=(len(patients), width))
        return values

    return of_patient(_FEATURES), of_patient(_ATTRIBUTES), patients


def _alike(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    few = np.repeat(rng.normal(size=(_PATIENTS, 6)), _FEATURES // 6, axis=1)
    features = np.sqrt(0.9) * few + np.sqrt(0.1) * rng.normal(size=few.shape)
    return np.maximum(features - 0.5, 0), rng.normal(size=(_PATIENTS, _ATTRIBUTES)), np.arange(_PATIENTS)


_NULLS: dict[str, Draw] = {
    "independent patients": _independent,
    "three images a patient, 80 % shared": _shared,
    "six features in ten copies each, zero on most images": _alike,
}


def _table(values: NDArray[np.float64]) -> AttributeTable:
    return AttributeTable(tuple(Attribute(f"quantity {j}", "mm") for j in range(values.shape[1])), values)


def _halves(patients: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.flatnonzero(patients < _PATIENTS // 2), np.flatnonzero(patients >= _PATIENTS // 2)


def _discoveries(name: str, draw: Draw, runs: int, progress: Progress) -> dict[str, Any]:
    fdr, maximum, naive = 0, 0, 0
    for seed in progress.track(range(runs), name, total=runs):
        x, y, patients = draw(np.random.default_rng((1, seed)))
        first, second = _halves(patients)
        matrix = match_attributes(
            x, _table(y), first, second, groups=patients, n_permutations=199, most_intervals=0, seed=seed
        )
        fdr += bool(matrix.surviving.any())
        maximum += bool(matrix.findings)
        p = spearman_p_values(spearman(x[second], y[second]), len(second))
        naive += bool((benjamini_hochberg(p) <= 0.05).any())
    high = bounds(0.05, runs)[1]
    return {
        "data": name, "fdr": fdr / runs, "maximum": maximum / runs, "naive": naive / runs,
        "within": bool(max(fdr, maximum) / runs <= high),
    }  # fmt: skip


def _volume(runs: int, progress: Progress) -> dict[str, Any]:
    slices, kernel = 86, np.exp(-0.5 * (np.arange(-20, 21) / 5.0) ** 2)
    middle = np.zeros(slices, dtype=bool)
    middle[19:-19] = True
    maximum = naive = 0
    for seed in progress.track(range(runs), "smooth volume", total=runs):
        rng = np.random.default_rng((2, seed))
        noise = rng.normal(size=(slices + 40, 20 + _ATTRIBUTES))
        smooth = np.apply_along_axis(lambda c: np.convolve(c, kernel, mode="valid"), 0, noise)
        x, y = smooth[:, :20], smooth[:, 20:]
        outer = np.r_[0:17, slices - 17 : slices]
        matrix = match_attributes(x, _table(y), outer, np.flatnonzero(middle), order=np.arange(slices), measures=False)
        maximum += bool(matrix.findings)
        p = spearman_p_values(spearman(x[middle], y[middle]), int(middle.sum()))
        naive += bool((benjamini_hochberg(p) <= 0.05).any())
    return {
        "maximum": maximum / runs, "naive": naive / runs, "within": bool(maximum / runs <= bounds(0.05, runs)[1]),
    }  # fmt: skip


def _mixed(runs: int, progress: Progress) -> dict[str, Any]:
    """Count among features of which some follow an attribute: false discoveries, power, cover of survivors' intervals."""
    true, strength = 15, 0.5
    population = 6 / np.pi * np.arcsin(strength / 2)  # Spearman's rho of a bivariate normal with this correlation
    proportions, power, held, held_plain, given = [], [], 0, 0, 0
    for seed in progress.track(range(runs), "some true", total=runs):
        rng = np.random.default_rng((3, seed))
        y = rng.normal(size=(_PATIENTS, _ATTRIBUTES))
        shared = np.repeat(rng.normal(size=(_PATIENTS, _FEATURES // 5)), 5, axis=1)
        noise = np.sqrt(0.7) * shared + np.sqrt(0.3) * rng.normal(size=(_PATIENTS, _FEATURES))
        x = noise.copy()
        x[:, :true] = strength * y[:, :1] + np.sqrt(1 - strength**2) * noise[:, :true]
        patients = np.arange(_PATIENTS)
        first, second = _halves(patients)
        matrix = match_attributes(x, _table(y), first, second, n_permutations=99, n_boot=400, seed=seed)
        found = np.flatnonzero(matrix.surviving)
        real = (found < true) & (matrix.best[found] == 0)
        proportions.append(float((~real).sum() / max(1, len(found))))
        power.append(float(real.sum() / true))
        plain = spearman_intervals(x[second][:, found], y[second][:, matrix.best[found]], n_boot=400, seed=seed)
        for feature, is_real, one in zip(found, real, plain, strict=True):
            truth = population if is_real else 0.0
            low, high = matrix.intervals[int(feature)].ends or (np.nan, np.nan)
            held += bool(low <= truth <= high)
            low, high = one.ends or (np.nan, np.nan)
            held_plain += bool(low <= truth <= high)
            given += 1
    return {
        "true": true, "fdr": float(np.mean(proportions)), "fdr_error": float(np.std(proportions) / np.sqrt(runs)),
        "power": float(np.mean(power)), "cover": held / max(1, given), "cover_unadjusted": held_plain / max(1, given),
        "intervals": given,
    }  # fmt: skip


def _cover(runs: int, progress: Progress) -> list[dict[str, Any]]:
    found, statistics = [], _statistics()
    for patients in (12, 30, 60):
        for name, truth, draw in statistics:
            held = plain = given = 0
            counted = False
            for seed in progress.track(range(runs), f"{name}, {patients} patients", total=runs):
                interval, ordinary = draw(np.random.default_rng((4, patients, seed)), patients, seed)
                given += not np.isnan(interval[0])
                held += bool(interval[0] <= truth <= interval[1])
                if ordinary is not None:
                    counted = True
                    plain += bool(ordinary[0] <= truth <= ordinary[1])
            low, high = bounds(0.95, max(1, given))
            rate = held / max(1, given)
            found.append(
                {
                    "statistic": name, "truth": truth, "patients": patients, "cover": rate, "refused": 1 - given / runs,
                    "within": bool(low <= rate <= high), "above": bool(rate > high),
                    "plain": plain / runs if counted else None,
                }
            )  # fmt: skip
    return found


Ends = tuple[float, float]


def _clustered(rng: np.random.Generator, patients: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    groups = np.repeat(np.arange(patients), 3)
    return np.sqrt(0.8) * rng.normal(size=patients)[groups] + np.sqrt(0.2) * rng.normal(size=len(groups)), groups


def _ends(interval: Any) -> Ends:
    return interval.ends or (np.nan, np.nan)


def _plain(draws: NDArray[np.float64]) -> Ends:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _bootstrapped_mean(rng: np.random.Generator, patients: int, seed: int) -> tuple[Ends, Ends | None]:
    values, groups = _clustered(rng, patients)
    values = values + 0.5
    interval = bootstrap_groups(lambda i: float(values[i].mean()), groups, n_boot=400, seed=seed)
    of_patients = values.reshape(patients, 3).mean(1)
    drawn = of_patients[rng.integers(0, patients, size=(400, patients))].mean(1)
    return _ends(interval), _plain(drawn)


def _mean_by_t(rng: np.random.Generator, patients: int, seed: int) -> tuple[Ends, Ends | None]:
    values, groups = _clustered(rng, patients)
    return _ends(mean_interval(values + 0.5, groups)), None


def _r2(rng: np.random.Generator, patients: int, seed: int) -> tuple[Ends, Ends | None]:
    """Cover the explained share of a prediction whose error has the variance of what it predicts: 0.5."""
    predicted, groups = _clustered(rng, patients)
    truth = predicted + _clustered(rng, patients)[0]

    def share(i: NDArray[np.int64]) -> float:
        return 1 - float(np.square(truth[i] - predicted[i]).sum() / np.square(truth[i] - truth[i].mean()).sum())

    interval = score_interval(share, groups, "continuous", n_boot=400, seed=seed)
    error, first, second = (
        v.reshape(patients, -1).sum(1) for v in (np.square(truth - predicted), truth, np.square(truth))
    )
    often = rng.multinomial(patients, np.full(patients, 1 / patients), size=400)
    spread = often @ second - np.square(often @ first) / (often.sum(1) * 3)
    return _ends(interval), _plain(1 - (often @ error) / spread)


def _auroc(truth: float, ill_share: float) -> Callable[..., tuple[Ends, Ends | None]]:
    """Cover the AUROC of a score that is higher in some patients by as much as it takes."""
    from scipy.special import ndtri

    apart = float(np.sqrt(2) * ndtri(truth))

    def draw(rng: np.random.Generator, patients: int, seed: int) -> tuple[Ends, Ends | None]:
        scored, groups = _clustered(rng, patients)
        of_patient = np.arange(patients) < round(ill_share * patients)
        ill = of_patient[groups].astype(float)[:, None]
        scored = (scored + apart * ill[:, 0])[:, None]
        reading = Reading("binary", ill, scored, np.full_like(ill, ill.mean()))
        higher = (scored[:, 0][:, None] > scored[:, 0]).reshape(patients, 3, patients, 3).mean((1, 3))
        often = rng.multinomial(patients, np.full(patients, 1 / patients), size=400).astype(float)
        first, second = often[:, of_patient], often[:, ~of_patient]
        with np.errstate(invalid="ignore"):
            drawn = np.einsum("ij,jk,ik->i", first, higher[of_patient][:, ~of_patient], second) / (
                first.sum(1) * second.sum(1)
            )
        return _ends(reading_interval(reading, groups)), _plain(drawn[np.isfinite(drawn)])

    return draw


def _rank_correlation(strength: float, zeros: bool) -> Callable[..., tuple[Ends, Ends | None]]:
    def draw(rng: np.random.Generator, patients: int, seed: int) -> tuple[Ends, Ends | None]:
        while True:
            y = rng.normal(size=patients)
            x = strength * y + np.sqrt(1 - strength**2) * rng.normal(size=patients)
            if zeros:
                x = np.maximum(x - 0.5, 0)
            if np.ptp(x) > 0:
                interval = rank_correlation_intervals(x[:, None], y[:, None], n_boot=400, seed=seed)[0]
                return _ends(interval), None

    return draw


def _rank_truth(strength: float, zeros: bool) -> float:
    """Return Spearman's rho of a bivariate normal, or, where low values are 0, that of a million draws."""
    if not zeros:
        return float(6 / np.pi * np.arcsin(strength / 2))
    rng = np.random.default_rng(0)
    y = rng.normal(size=1_000_000)
    x = np.maximum(strength * y + np.sqrt(1 - strength**2) * rng.normal(size=len(y)) - 0.5, 0)
    return float(spearman(x[:, None], y[:, None])[0, 0])


def _statistics() -> tuple[tuple[str, float, Callable[..., tuple[Ends, Ends | None]]], ...]:
    """Return what is covered: a name, the truth, and a draw that gives the interval and the plain bootstrap's."""
    return (
        ("mean, Student's t over patients", 0.5, _mean_by_t),
        ("mean, bootstrap over patients", 0.5, _bootstrapped_mean),
        ("R² of a probe", 0.5, _r2),
        ("AUROC of a probe, half of the patients ill", 0.86, _auroc(0.86, 1 / 2)),
        *(("AUROC of a probe, a third ill", truth, _auroc(truth, 1 / 3)) for truth in (0.7, 0.86, 0.95)),
        ("rank correlation", 0.0, _rank_correlation(0.0, zeros=False)),
        ("rank correlation", _rank_truth(0.5, False), _rank_correlation(0.5, zeros=False)),
        ("rank correlation", _rank_truth(0.8, False), _rank_correlation(0.8, zeros=False)),
        ("rank correlation", _rank_truth(0.95, False), _rank_correlation(0.95, zeros=False)),
        ("rank correlation, 69 % zeros", _rank_truth(0.5, True), _rank_correlation(0.5, zeros=True)),
    )


def _equivalence(runs: int, progress: Progress) -> dict[str, Any]:
    found = {}
    for name, mean in (("at_margin", 0.5), ("at_zero", 0.0), ("beyond", 1.0)):
        values = np.random.default_rng(5).normal(mean, 0.6, size=(runs, 20))
        found[name] = float(np.mean([equivalence_test(v, margin=0.5).equivalent for v in values]))
    low, high = bounds(0.05, runs)
    return {**found, "within": bool(low <= found["at_margin"] <= high)}


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
