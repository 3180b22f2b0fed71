"""A run's results as pages ask for them: which image, which cell, which class, which feature."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.dashboard.record import Record
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json

FORMAT = 1
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Cells:
    """Where a site's cells lie on an image, (row, column) in millimetres from its top-left corner."""

    first_centre_mm: tuple[float, float]
    step_mm: tuple[float, float]


@dataclass(frozen=True)
class Band:
    """A named group of images that the experiment chooses or tests on."""

    name: str
    images: tuple[int, ...]


class RunView:
    """Results of one run with what several pages need derived from them.

    Parameters
    ----------
    results
        What the study wrote to ``results.json``; any key may be absent.
    run_dir
        The run's folder, where pictures are looked for.

    """

    def __init__(self, results: dict[str, Any], run_dir: Path) -> None:
        self.results = Record(results)
        self.run_dir = Path(run_dir)

    @classmethod
    def read(cls, run_dir: Path) -> RunView:
        """Read a run's folder.

        Raises
        ------
        ConfigError
            If the folder holds no results, or those of a newer format.
        DamagedFileError
            If they cannot be read.

        """
        run_dir = Path(run_dir)
        file = run_dir / "results.json"
        if not file.is_file():
            raise ConfigError(
                f"{run_dir} has no results.json: make it with 'mechinterp study brain-mri --out {run_dir}'"
            )
        results = read_json(file)
        if not isinstance(results, dict):
            raise DamagedFileError(f"{file} holds no results: run the study again into another folder")
        if results.get("format", FORMAT) != FORMAT:
            raise ConfigError(
                f"{file} has format {results['format']}, this version reads {FORMAT}: use the version that wrote it"
            )
        return cls(results, run_dir)

    def __getitem__(self, key: str) -> Record:
        """Return a part of the results; a record of nothing where it is absent."""
        return self.results[key]

    @cached_property
    def run(self) -> Record:
        """The run's ``run.json``: versions, hashes, times; nothing where there is none."""
        file = self.run_dir / "run.json"
        return Record(read_json(file) if file.is_file() else None)

    @cached_property
    def title(self) -> str:
        """The run's title."""
        return self["title"].text("A run")

    @cached_property
    def trained(self) -> bool | None:
        """Whether the model was trained; ``None`` where the results do not say."""
        return self["model"]["trained"].flag()

    @cached_property
    def class_names(self) -> list[str]:
        """The model's classes, in the order of its outputs."""
        return self["model"]["class_names"].texts()

    @cached_property
    def target(self) -> str:
        """The class the question is about."""
        return self["target"]["class"].text("the target class")

    @cached_property
    def reference(self) -> str:
        """The class it is compared with."""
        return self["target"]["reference"].text("the reference class")

    @cached_property
    def target_index(self) -> int | None:
        """The target's place among the classes, if it is one of them."""
        return self.class_names.index(self.target) if self.target in self.class_names else None

    @cached_property
    def bands(self) -> list[Band]:
        """The groups of images that the experiment chooses and tests on."""
        return [
            Band(band["name"].text(f"group {i + 1}"), tuple(self._valid(band["images"].integers())))
            for i, band in enumerate(self["target"]["bands"].entries())
        ]

    @cached_property
    def positives(self) -> list[int]:
        """The images on which the model answers the target above the threshold."""
        return self._valid(self["target"]["positive"].integers())

    @cached_property
    def n_images(self) -> int:
        """How many images the run looked at."""
        images = self["images"]
        counted = max(len(images[key].entries()) for key in ("ids", "files", "probabilities", "labels"))
        return max(int(images["n"].number() or 0), counted)

    @cached_property
    def positions(self) -> list[float | None]:
        """Where each image lies (for a volume, the slice's place in mm); empty where images have no order."""
        return self["images"]["position"].numbers()

    @cached_property
    def position_label(self) -> str:
        """What a position is, with its unit."""
        return self["images"]["position_label"].text("position")

    @cached_property
    def orientation(self) -> dict[str, str]:
        """The letters at the pictures' sides."""
        return {side: letter.text() for side, letter in self["images"]["orientation_labels"].items()}

    def image_name(self, index: int) -> str:
        """Return an image's own name."""
        return self["images"]["ids"][index].text(f"image {index}")

    def image_label(self, index: int) -> str:
        """Return the class an image was labelled with, or nothing."""
        return self["images"]["labels"][index].text()

    def probability(self, index: int, class_index: int | None) -> float | None:
        """Return the model's probability of a class on an image."""
        return None if class_index is None else self["images"]["probabilities"][index][class_index].number()

    def answer(self, index: int) -> str | None:
        """Return the class that the model answers on an image, if its probabilities were kept.

        Of findings, which do not exclude one another, the likeliest, and none of them where none is above a half.
        """
        shares = [p if p is not None else -1.0 for p in self["images"]["probabilities"][index].numbers()]
        if not shares or max(shares) < 0:
            return None
        if self["model"]["activation"].text() == "sigmoid" and max(shares) <= 0.5:
            return f"not {self.class_name(0)}" if len(shares) == 1 else "none of the findings"
        return self.class_name(shares.index(max(shares)))

    def class_name(self, index: int) -> str:
        """Return a class's name."""
        return self.class_names[index] if 0 <= index < len(self.class_names) else f"class {index}"

    def picture(self, index: int) -> str | None:
        """Return the path of an image's picture, relative to the run; ``None`` if there is none or it may not be shown.

        Only pictures that lie inside the run's folder are ever shown, whatever the results say.
        """
        return self._pictures.get(index)

    @cached_property
    def pictures(self) -> frozenset[str]:
        """All pictures that the pages may show, as paths relative to the run."""
        return frozenset(self._pictures.values())

    @cached_property
    def _pictures(self) -> dict[int, str]:
        names = enumerate(self["images"]["files"].texts())
        return {i: name for i, name in names if name and is_picture_of_run(self.run_dir, name)}

    def size_mm(self, index: int) -> tuple[float, float] | None:
        """Return an image's height and width in millimetres."""
        size = self["images"]["size_mm"]
        pair = size[index].pair() or size.pair()
        return pair if pair and min(pair) > 0 else None

    def cells(self, index: int) -> Cells | None:
        """Return where the site's cells lie on an image."""
        grid = self["grid"]
        for placed in (grid["per_image"][index], grid["shared"]):
            centre, step = placed["centre_mm_first"].pair(), placed["step_mm"].pair()
            if centre and step and min(step) > 0:
                return Cells(centre, step)
        return None

    @cached_property
    def length_unit(self) -> str:
        """The unit of lengths on pictures: ``px`` where the images have no physical spacing."""
        return self["images"]["length_unit"].text("mm")

    def attribute_values(self, name: str) -> tuple[list[float | None], str]:
        """Return an attribute's value on every image, and its unit."""
        for attribute in self["images"]["attributes"].entries():
            if attribute["name"].text() == name:
                return attribute["values"].numbers(), attribute["unit"].text()
        return [], ""

    @cached_property
    def features(self) -> list[Record]:
        """The features that have a page, in the order of the results."""
        return self["features"].entries()

    @cached_property
    def feature_slugs(self) -> list[str]:
        """Each feature's address, unique and made of safe characters only."""
        taken: set[str] = set()
        slugs = []
        for i, feature in enumerate(self.features):
            name = re.sub(r"[^A-Za-z0-9_-]+", "-", feature["id"].text(f"unnamed-{i}")).strip("-") or f"unnamed-{i}"
            slug = f"feature/{name}"
            while slug in taken:
                slug += "-again"
            taken.add(slug)
            slugs.append(slug)
        return slugs

    @cached_property
    def slug_of_feature(self) -> dict[int, str]:
        """From a feature's number to its address."""
        ids = ((feature["id"].integer(), slug) for feature, slug in zip(self.features, self.feature_slugs, strict=True))
        return {number: slug for number, slug in ids if number is not None}

    @cached_property
    def feature_of_number(self) -> dict[int, Record]:
        """From a feature's number to its record."""
        return {number: f for f in self.features if (number := f["id"].integer()) is not None}

    @staticmethod
    def attribute_name(record: Record, default: str = "unnamed") -> str:
        """Return an attribute's name as it is read: columns are called ``brain_area``, people say *brain area*."""
        return record.text(default).replace("_", " ")

    @staticmethod
    def feature_name(feature: Record) -> str:
        """Return what a feature is called."""
        return f"feature {feature['id'].text('without a number')}"

    def _valid(self, indices: list[int]) -> list[int]:
        return [i for i in indices if 0 <= i < self.n_images]


def is_picture_of_run(run_dir: Path, name: str) -> bool:
    """Whether `name` is a picture inside the run's folder ``images``, links followed."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or path.suffix.lower() not in PICTURES:
        return False
    file, folder = run_dir / path, (run_dir / "images").resolve()
    return file.is_file() and file.resolve().is_relative_to(folder)
