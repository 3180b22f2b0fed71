"""What was studied and with what: the model, the images, the SAE beside its controls, versions and hashes."""

from __future__ import annotations

from experiments.dashboard.formatting import format_value
from experiments.dashboard.page import Block, Column, Details, Facts, Heading, Page, Table, Text
from experiments.dashboard.pages.parts import metrics_table, not_run
from experiments.dashboard.record import Record
from experiments.dashboard.run_view import RunView


def build(view: RunView) -> Page:
    """Build the page of the model and of provenance."""
    return Page(
        "model",
        "Model and provenance",
        (
            Heading("The model"),
            *_model(view),
            Heading("The images"),
            *_images(view),
            Heading("The sparse autoencoder"),
            *_sae(view),
            Heading("What made these results"),
            *_provenance(view),
        ),
    )


def _model(view: RunView) -> list[Block]:
    model = view["model"]
    if not model:
        return [not_run("The description of the model")]
    trained = {True: "yes", False: "no, random weights", None: "not recorded"}[view.trained]
    items = [
        ("model", model["spec"].text("not named")),
        ("trained", trained),
        ("site", model["site"].text("not recorded")),
        ("classes", ", ".join(view.class_names[:12]) + (" …" if len(view.class_names) > 12 else "") or "not recorded"),
        ("output", model["output"].text("not recorded")),
        ("licence", model["licence"].text("not recorded")),
        ("hash of the weights", model["weights_hash"].text("not recorded")),
    ]
    notes = tuple(note for note in model["notes"].texts() if note)
    return [Facts(tuple(items)), *([Text(notes)] if notes else [])]


def _images(view: RunView) -> list[Block]:
    images = view["images"]
    if not images:
        return [not_run("The description of the images")]
    patients = images["units_are_patients"].flag()
    units = {
        True: "patients",
        False: "blocks of neighbouring images of one subject: no interval over patients can be estimated (n = 1)",
        None: "not recorded",
    }[patients]
    groups = {name for name in images["groups"].texts() if name}
    if patients and not groups:
        units = "nobody said whose images these are: each counts as a patient of its own"
    splits = images["splits"].texts()
    counts = ", ".join(f"{name or 'none'} {splits.count(name)}" for name in dict.fromkeys(splits))
    items = [
        ("images", f"{images['name'].text('not named')}, {view.n_images:,}"),
        ("units", units),
        ("groups", format_value(len(groups) or None, "integer")),
        ("splits", counts or "not recorded"),
    ]
    # a licence can be a paragraph: it stands below, at full width
    return [Facts(tuple(items)), Text((f"Licence of the images: {images['licence'].text('not recorded')}",))]


def _sae(view: RunView) -> list[Block]:
    sae = view["sae"]
    if not sae:
        return [not_run("Training the sparse autoencoder")]
    items = tuple(
        (name, sae[key].text() if sae[key].number() is None else format_value(sae[key].number(), "integer"))
        for name, key in (("architecture", "arch"), ("k", "k"), ("features", "width"), ("width of the site", "d_in"))
        if sae[key]
    )
    columns: list[tuple[str, Record]] = [("SAE", sae["metrics"])]
    columns += [(control["name"].text("control"), control["metrics"]) for control in sae["controls"].entries()]
    on = "images it was trained on: none is held out" if sae["held_out"].flag() is False else "held-out images"
    table = metrics_table(f"Metrics on {on}, the controls beside them", columns)
    return [Facts(items), table or not_run("Its evaluation")]


def _provenance(view: RunView) -> list[Block]:
    record = view["provenance"]
    items = [
        (key.replace("_", " "), _shown(key, value))
        for key, value in record.items()
        if not value.items() and (value or value.number() is not None)
    ]
    blocks: list[Block] = [Facts(tuple(items))] if items else []
    versions = tuple((name, version.text("–")) for name, version in record["versions"].items())
    if versions:
        blocks.append(Table("Versions", (Column("package"), Column("version")), versions))
    recorded = tuple(_flattened(view.run))
    if recorded:
        table = Table("The run's record, run.json", (Column("entry"), Column("value")), recorded)
        blocks.append(Details("The whole record of the run", (table,)))
    return blocks or [not_run("Recording the provenance")]


def _shown(key: str, value: Record) -> str:
    number = value.number()
    if number is not None:
        return f"{number:.0f} s" if key == "seconds" else value.text()
    return ", ".join(value.texts()) if value.entries() else value.text(format_value(value.flag()))


def _flattened(record: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Return every leaf of a record with its path."""
    entries = record.items() or [(str(i), entry) for i, entry in enumerate(record.entries())]
    if not entries:
        shown = format_value(record.flag()) if record.flag() is not None else record.text("–")
        return [(prefix, shown)] if prefix else []
    return [leaf for key, value in entries for leaf in _flattened(value, f"{prefix}.{key}" if prefix else key)]
