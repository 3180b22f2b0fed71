"""What a run's own findings say of its features: explained on held-out patients, or used where they should not be.

Scores of doubt are taken from these: how far an answer rests on features that nobody has explained, and how far it moves when
features that serve a shortcut are taken away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.dashboard.record import Record
from mechinterp.files import read_json

if TYPE_CHECKING:
    from experiments.run_directory import Run
    from mechinterp.feature_encoder import FeatureEncoder


@dataclass(frozen=True)
class ReportFindings:
    """What is known of an encoder's features.

    Parameters
    ----------
    explained
        Feature → the attribute that held-out images confirmed, where an answer may rest on it.
    suspected
        Features that serve a shortcut, with how that is known.
    notes
        What could not be taken from the run, and why.

    """

    explained: dict[int, str]
    suspected: dict[int, str]
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What scores are taken from."""
        of = ", ".join(sorted(set(self.explained.values())))
        parts = [
            f"{len(self.explained)} features follow a confirmed quantity an answer may rest on ({of})"
            if self.explained
            else "no feature follows a confirmed quantity an answer may rest on, so no share of the answer is explained",
            f"{len(self.suspected)} serve what it should not rest on ({', '.join(sorted(set(self.suspected.values())))})"
            if self.suspected
            else "none is known to serve what it should not rest on",
        ]
        return f"From the run's findings: {'; '.join(parts)}." + "".join(f" {note}." for note in self.notes)


def report_findings(
    run: Run, encoder: FeatureEncoder, *, sae: Path | None = None, cases_split: str, distrusted: Sequence[str] = ()
) -> ReportFindings:
    """Return what the run's attribute matrices and its search for shortcuts say of an encoder's features.

    Parameters
    ----------
    run
        Its folder holds ``saes/*/attributes.json``, ``results.json`` and ``shortcuts/shortcuts.json``, or some of them.
    encoder
        Whose features are asked for.
    sae
        Its folder, where that is not one of the run's.
    cases_split
        The split whose cases are to be scored: a search that knew their labels gives no score for them.
    distrusted
        Attributes that no answer should rest on: features that follow one serve a shortcut.

    """
    followed = dict(_followed(run.folder, encoder, sae))
    explained = {f: name for f, name in followed.items() if name not in distrusted}
    suspected = {f: name for f, name in followed.items() if name in distrusted}
    searched, note = _searched(run, encoder, cases_split)
    # a feature that serves a shortcut explains no answer, whatever it follows
    return ReportFindings(
        {f: name for f, name in explained.items() if f not in searched},
        {**dict.fromkeys(searched, "use that differs between environments"), **suspected},
        (note,) if note else (),
    )


def _followed(run: Path, encoder: FeatureEncoder, sae: Path | None) -> Iterator[tuple[int, str]]:
    """Yield features and the attribute that held-out images confirmed, from every file that is of this encoder."""
    from mechinterp.feature_encoder import Neurons
    from sparse_autoencoders import SparseAutoencoder

    if isinstance(encoder, Neurons):
        return
    folders = [sae] if sae is not None else [path.parent for path in sorted((run / "saes").glob("*/attributes.json"))]
    for folder in folders:
        path = folder / "attributes.json"
        if not path.exists() or SparseAutoencoder.load(folder).weights_hash != encoder.weights_hash:
            continue
        matrix = Record(read_json(path))
        if matrix["sae_weights_hash"].text(encoder.weights_hash) != encoder.weights_hash:
            continue  # of the folder's autoencoder as it was before it was trained anew
        confirmed = set(matrix["survivors"].integers())
        for feature in matrix["features"].entries():
            number = feature["feature"].integer()
            if number is not None and number in confirmed:
                yield number, feature["attribute"].text()
        return
    results = Record(read_json(run / "results.json")) if (run / "results.json").exists() else Record(None)
    if results["sae"]["weights_hash"].text() == encoder.weights_hash:
        for feature in results["features"].entries():
            number, best = feature["id"].integer(), feature["best"]
            if number is not None and best["survives"].flag():
                yield number, best["attribute"].text()


def _searched(run: Run, encoder: FeatureEncoder, cases_split: str) -> tuple[list[int], str]:
    """Return the features that the run's search for shortcuts found, or why they cannot be used."""
    stage = run.stages.get("shortcuts")
    if stage is None:
        return [], ""
    path = run.folder / stage["result"] / "shortcuts.json"
    if not path.exists() or encoder.weights_hash not in stage.get("encoders", ()):
        return [], ""
    split = stage.get("split")
    if split is None or split == cases_split or stage.get("environment") == "split":
        which = "all images" if split is None else f"the split '{split}'"
        return [], f"The search for shortcuts knew the labels of {which}, so it scores no case of '{cases_split}'"
    search = Record(read_json(path))
    alpha = search["alpha"].number() or 0.0
    found = [
        number
        for f in search["ranked"].entries()
        if f["site"].text() == encoder.site and (p := f["p"].number()) is not None and p <= alpha
        and (number := f["index"].integer()) is not None and number < encoder.width  # the error is no feature
    ]  # fmt: skip
    return found, ""
