"""The index of features: searched, filtered and sorted, one row per feature."""

from __future__ import annotations

from experiments.dashboard.feature_details import FeatureDetails
from experiments.dashboard.formatting import counted
from experiments.dashboard.page import Block, Cell, Column, FeatureTable, Link, Page, Text
from experiments.dashboard.pages.parts import not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

ABLATION_SHOWN = ("mean", "resample", "towards", "zero")
"""The ablation whose effect stands in the index: the first of these that the run has; zeroing is the last resort."""

COLUMNS = (
    Column("feature"),
    Column("best attribute", explanation="The attribute with the strongest rank correlation on the discovery images."),
    Column("ρ discovery", form="signed", explanation="Spearman's ρ on the images the attribute was chosen on."),
    Column("ρ confirmation", form="signed", explanation="Spearman's ρ on images that were not looked at before."),
    Column("p", form="p", explanation="Corrected over all pairs of feature and attribute that were tested."),
    Column("survives", explanation="Whether the correlation survives the correction."),
    Column("active on", form="percent", explanation="Share of tokens on which the feature is not zero."),
    Column("maximum", form="number"),
    Column("state"),
    Column(
        "strongest class",
        explanation="The commonest class of the images on which the feature is strongest: their label, or the model's answer where there are none.",
    ),
    Column(
        "recurs",
        explanation="In how many autoencoders of other seeds a feature with nearly the same direction is found.",
    ),
)
FILTERS = (1, 5, 8, 9, 10)
NO_DETAILS = FeatureDetails(Record(None))


def build(view: RunView, details: FeatureDetails = NO_DETAILS) -> Page:
    """Build the index."""
    blocks: list[Block] = []
    if not view.features:
        return Page("features", "Features", (not_run("The search for features"),))
    ablation = effect_ablation(view)
    target = view.target
    columns: tuple[Column, ...] = (
        *COLUMNS,
        Column(f"effect on {target}", form="signed", explanation=_effect_words(ablation, target)),
    )
    rows = tuple(
        _row(view, feature, slug, ablation, details)
        for feature, slug in zip(view.features, view.feature_slugs, strict=True)
    )
    alive = sum(f["alive"].flag() is not False for f in view.features)
    survivors = sum(f["best"]["survives"].flag() is True for f in view.features)
    blocks.append(
        Text(
            (
                f"{counted(len(rows), 'feature')}, {alive:,} alive; {survivors:,} follow a physical attribute after the "
                f"correction for having looked at all of them. {_effect_words(ablation, target)} "
                "The table shows each feature's best attribute; its page shows every attribute.",
            )
        )
    )
    if not ablation:
        columns, rows = columns[:-1], tuple(row[:-1] for row in rows)
    sort = len(columns) - 1 if ablation else 0
    blocks.append(FeatureTable("All features", columns, rows, _told_apart(rows), sort, descending=bool(ablation)))
    return Page("features", "Features", tuple(blocks))


def _told_apart(rows: tuple[tuple[Cell, ...], ...]) -> tuple[int, ...]:
    """Return the columns that are offered as filters: those with more than one value."""
    return tuple(column for column in FILTERS if len({row[column] for row in rows}) > 1)


def effect_ablation(view: RunView) -> str:
    """Return the ablation whose effects the index shows; empty where no effect was measured."""
    known = {name for feature in view.features for name, by_class in feature["effects"].items() if by_class}
    return next((name for name in ABLATION_SHOWN if name in known), next(iter(sorted(known)), ""))


def _effect_words(ablation: str, target: str) -> str:
    return (
        f"Effect: mean change of the {target} logit when the feature alone is replaced (ablation: {ablation})."
        if ablation
        else ""
    )


def _row(view: RunView, feature: Record, slug: str, ablation: str, details: FeatureDetails) -> tuple[Cell, ...]:
    best, alive = feature["best"], feature["alive"].flag()
    survives = best["survives"].flag()
    return (
        Link(view.feature_name(feature), slug),
        view.attribute_name(best["attribute"], "") or None,
        best["rho_discovery"].number(),
        best["rho_confirmation"].number(),
        best["p_corrected"].number(),
        None if survives is None else ("survives" if survives else "does not"),
        feature["density"].number(),
        feature["max"].number(),
        None if alive is None else ("alive" if alive else "dead"),
        strongest_class(view, feature),
        details.recurs(feature["id"].integer()),
        feature["effects"][ablation][view.target].number() if ablation else None,
    )


def strongest_class(view: RunView, feature: Record) -> str | None:
    """Return the commonest class of a feature's strongest images: labels where the images have them, else the model's answers."""
    images = [i for i in (entry["image"].integer() for entry in feature["top"].entries()) if i is not None]
    classes = [name for name in (view.image_label(i) or view.answer(i) for i in images) if name]
    # of equally common ones the one that comes first, in the strongest image
    return max(dict.fromkeys(classes), key=classes.count, default=None)
