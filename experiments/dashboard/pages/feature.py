"""One feature: where it is active, what it follows, and what it does to the answer."""

from __future__ import annotations

from experiments.dashboard.charts import attribute_scatter, class_effects, histogram
from experiments.dashboard.feature_details import FeatureDetails
from experiments.dashboard.formatting import format_value, label_with_unit, with_unit
from experiments.dashboard.page import (
    Block,
    Cell,
    Column,
    Facts,
    FigureBlock,
    Heading,
    Link,
    Links,
    OverlaySlider,
    Page,
    Side,
    Table,
    Text,
    Widget,
)
from experiments.dashboard.pages.feature_more import further_galleries, near_features
from experiments.dashboard.pages.feature_picture import OPACITY, picture
from experiments.dashboard.pages.parts import not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView

PICTURES = 6
CLASSES = 8


NO_DETAILS = FeatureDetails(Record(None))


def title(view: RunView, feature: Record) -> str:
    """Return the title of a feature's page."""
    name = view.feature_name(feature)
    return name[0].upper() + name[1:]


def build(view: RunView, index: int, details: FeatureDetails = NO_DETAILS, *, desk: Link | None = None) -> Page:
    """Build the page of the feature at this place in the results.

    Parameters
    ----------
    view
        The run.
    index
        Place in the results.
    details
        Further galleries, near features and seeds.
    desk
        The way to a desk on which it can be moved.

    """
    feature = view.features[index]
    return Page(
        view.feature_slugs[index],
        title(view, feature),
        (
            _others(view, index),
            *_summary(view, feature, details),
            Heading("Where it is most active"),
            *_pictures(view, feature),
            *further_galleries(view, feature, details),
            Heading("What it follows"),
            *_attributes(view, feature),
            Heading("What it does to the answer"),
            *_effects(view, feature),
            *([Links("Try it", (desk,))] if desk else []),
            Heading("How often it is active"),
            *_histogram(feature),
            Heading("Features near it"),
            *near_features(view, feature, details),
        ),
    )


def _others(view: RunView, index: int) -> Links:
    links = [Link("All features", "features")]
    if index > 0:
        links.append(Link(f"← {view.feature_name(view.features[index - 1])}", view.feature_slugs[index - 1]))
    if index + 1 < len(view.features):
        links.append(Link(f"{view.feature_name(view.features[index + 1])} →", view.feature_slugs[index + 1]))
    return Links("Other features", tuple(links))


def _summary(view: RunView, feature: Record, details: FeatureDetails) -> list[Block]:
    best, alive = feature["best"], feature["alive"].flag()
    items = [
        ("active on", f"{format_value(feature['density'].number(), 'percent')} of tokens"),
        ("largest value", format_value(feature["max"].number())),
        ("mean when active", format_value(feature["mean_when_active"].number())),
    ]
    if best["attribute"]:
        items.insert(0, ("best attribute", view.attribute_name(best["attribute"])))
    recurs = details.recurs(feature["id"].integer())
    items.append(("recurs in other seeds", recurs or "one seed trained"))
    blocks: list[Block] = [Facts(tuple(items), prominent=True)]
    if best["text"]:
        survives = best["survives"].flag()
        blocks.append(Text((best["text"].text(),), "good" if survives else "plain"))
    if alive is False:
        blocks.append(Text(("This feature is dead: it is never active on the images of this run.",), "caution"))
    return blocks


def _pictures(view: RunView, feature: Record) -> list[Block]:
    top = [entry for entry in feature["top"].entries() if entry["image"].integer() is not None][:PICTURES]
    highest = max((v for entry in top for row in entry["map"].grid() for v in row if v is not None), default=0.0)
    blocks = tuple(picture(view, feature, entry, highest) for entry in top)
    if not blocks:
        return [not_run("Keeping the images on which it is most active")]
    words = "The images with its highest values; colour shows its value in each cell of the site, on one scale for all pictures."
    slider = (
        [OverlaySlider("Overlay opacity", OPACITY)] if any(isinstance(block, FigureBlock) for block in blocks) else []
    )
    window = [Widget("window", {}, "Window of the pictures")] if slider else []
    return [Text((words,), "muted"), *slider, *window, Side(blocks, narrowest_px=270)]


def _attributes(view: RunView, feature: Record) -> list[Block]:
    best = feature["best"]["attribute"].text()
    rows: list[tuple[Cell, ...]] = []
    for record in feature["attributes"].entries():
        label = label_with_unit(view.attribute_name(record["attribute"]), record["unit"].text())
        rows.append(
            (
                f"{label}{' (best)' if record['attribute'].text() == best else ''}",
                record["rho_discovery"].number(),
                record["rho_confirmation"].number(),
                record["p_corrected"].number(),
            )
        )
    if not rows:
        return [not_run("The comparison with physical attributes")]
    columns = (
        Column("attribute"),
        Column("ρ discovery", form="signed"),
        Column("ρ confirmation", form="signed"),
        Column("p", form="p"),
    )
    # of patients each feature's chosen attribute alone is tested, along a volume all are
    table = Table(
        "Every attribute, not only the best; p, of those that were tested, is corrected over all tested pairs of all features",
        columns,
        tuple(rows),
    )
    return [Side((*_scatter(view, feature, best), table), narrowest_px=420)]


def _scatter(view: RunView, feature: Record, best: str) -> list[Block]:
    values = feature["values"].numbers()
    attribute, unit = view.attribute_values(best)
    label = view.attribute_name(feature["best"]["attribute"])
    if not (best and any(v is not None for v in values) and any(a is not None for a in attribute)):
        return []
    bands = {band.name: list(band.images) for band in view.bands if band.images}
    inside = {i for images in bands.values() for i in images}
    rest = [i for i in range(len(values)) if i not in inside]
    groups = {**({"other images" if bands else "images": rest} if rest else {}), **bands}
    names = [view.image_name(i) for i in range(len(values))]
    figure = attribute_scatter(attribute, values, label, unit, groups, names)
    record = feature["best"]
    rho = f"ρ = {format_value(record['rho_discovery'].number(), 'signed')} on the discovery images"
    rho += f", {format_value(record['rho_confirmation'].number(), 'signed')} on the confirmation images"
    known = [a for a in attribute if a is not None]
    alt = f"Feature value on each image against {label}, {with_unit(min(known), '')} to {with_unit(max(known), unit)}; {rho}."
    return [FigureBlock(figure, f"Value on each image against {label}: {rho}.", alt)]


def _effects(view: RunView, feature: Record) -> list[Block]:
    effects = {
        ablation: {name: value.number() for name, value in by_class.items()}
        for ablation, by_class in feature["effects"].items()
        if by_class
    }
    if not effects:
        return [not_run("The intervention on this feature")]
    present = {name for by_class in effects.values() for name in by_class}
    known = [name for name in view.class_names if name in present] + sorted(present - set(view.class_names))
    first = [name for name in (view.target, view.reference) if name in present]
    strongest = sorted(known, key=lambda n: -max(abs(by_class.get(n) or 0.0) for by_class in effects.values()))
    kept = dict.fromkeys(first + strongest)
    classes = [name for name in known if name in list(kept)[:CLASSES]]
    columns = (Column("class"), *(Column(ablation, form="signed") for ablation in effects))
    rows = tuple((name, *(by_class.get(name) for by_class in effects.values())) for name in classes)
    said = "; ".join(
        f"{ablation} {format_value(by_class.get(view.target), 'signed')}" for ablation, by_class in effects.items()
    )
    caption = "Mean change of each class's logit when this feature alone is replaced, under each ablation."
    alt = f"{caption} On {view.target}: {said}."
    figure = FigureBlock(class_effects(effects, classes), caption, alt)
    return [Side((figure, Table("Mean change of the logit, per class and ablation", columns, rows)), narrowest_px=420)]


def _histogram(feature: Record) -> list[Block]:
    edges, counts = feature["histogram"]["edges"].numbers(), feature["histogram"]["counts"].numbers()
    if len(edges) != len(counts) + 1 or not counts:
        return [not_run("The histogram of its values")]
    total = sum(c or 0 for c in counts)
    words = f"{format_value(total, 'integer')} values from {format_value(edges[0])} to {format_value(edges[-1])}"
    figure = histogram(edges, counts, "value of the feature")
    return [FigureBlock(figure, f"Distribution of {words}.", f"Histogram of {words}.", height_px=280)]
