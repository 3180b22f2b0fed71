"""The optional ``dataset.yaml`` beside a folder's images: what its numbers mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mechinterp.attributes.columns import ColumnDescription
from mechinterp.errors import ConfigError, ImagesError, MechinterpError, nearest
from mechinterp.images.intensity import checked_range, checked_spacing

_KEYS = ("name", "licence", "license", "intensity_range", "spacing_mm", "units_are_patients", "units", "attributes")


@dataclass(frozen=True)
class DatasetDescription:
    """What ``dataset.yaml`` says.

    Parameters
    ----------
    name, licence
        What is shown on pages.
    intensity_range
        The values shown as black and as white.
    spacing_mm
        Millimetres per pixel, (row, column), of all images that have none of their own.
    units_are_patients
        Whether the groups are patients.
    columns
        What the attribute columns mean, by name.

    """

    name: str | None = None
    licence: str | None = None
    intensity_range: tuple[float, float] | None = None
    spacing_mm: tuple[float, float] | None = None
    units_are_patients: bool = True
    columns: Mapping[str, ColumnDescription] = field(default_factory=dict)


def read_description(path: Path) -> DatasetDescription:
    """Read a ``dataset.yaml``; without one nothing is said.

    ::

        name: Lesions of the left hand
        licence: CC-BY-4.0
        intensity_range: [0, 4095]
        spacing_mm: [0.5, 0.5]        # row, column
        units_are_patients: true      # false where groups are parts of one subject
        units:                        # the short form: units alone
          lesion_area: mm²
        attributes:                   # the long form
          severity:
            unit: "1"
            kind: ordinal             # continuous, binary, categorical, ordinal
            categories: [none, mild, severe]
            measured: by two readers, in consensus

    Parameters
    ----------
    path
        Where it would stand.

    Raises
    ------
    ImagesError
        If it is no YAML, or holds something that cannot be meant; the remedy is named.

    """
    if not path.is_file():
        return DatasetDescription()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ImagesError(f"{path} is no readable YAML ({reason}): mend or remove it") from error
    try:
        return _described({} if found is None else found)
    except MechinterpError as error:
        raise ImagesError(f"{path}: {error}") from error


def _described(found: Any) -> DatasetDescription:
    if not isinstance(found, Mapping):
        raise ConfigError("it must hold keys and values, as 'name: my images'")
    for key in found:
        if key not in _KEYS:
            raise ConfigError(f"unknown key '{key}': {nearest(str(key), _KEYS)}")
    columns = {str(c): ColumnDescription.from_yaml(str(c), unit) for c, unit in _mapping(found, "units").items()}
    columns |= {str(c): ColumnDescription.from_yaml(str(c), said) for c, said in _mapping(found, "attributes").items()}
    licence = found.get("licence", found.get("license"))
    spacing, white_and_black = found.get("spacing_mm"), found.get("intensity_range")
    units_are_patients = found.get("units_are_patients", True)
    if not isinstance(units_are_patients, bool):
        raise ConfigError(f"units_are_patients is {units_are_patients!r}: write true or false")
    return DatasetDescription(
        name=None if found.get("name") is None else str(found["name"]),
        licence=None if licence is None else str(licence),
        intensity_range=None if white_and_black is None else checked_range(white_and_black, "intensity_range"),
        spacing_mm=None if spacing is None else checked_spacing(spacing, "spacing_mm"),
        units_are_patients=units_are_patients,
        columns=columns,
    )


def _mapping(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} must map columns to what they mean, as 'lesion_area: mm²'")
    return value
