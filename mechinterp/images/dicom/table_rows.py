"""The table beside DICOM files: labels, splits and attributes that no header holds, by file, series folder or patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mechinterp.attributes.table import AttributeTable
from mechinterp.errors import ImagesError
from mechinterp.images.dataset_description import DatasetDescription, read_description
from mechinterp.images.dicom.identity import named_patient
from mechinterp.images.dicom.stacks import Stack
from mechinterp.images.image_set import ImageSet
from mechinterp.images.metadata_table import (
    SPACING_COLUMNS,
    Row,
    attributes_of,
    column_of,
    find_table,
    is_mask_column,
    note_of_text,
    read_cells,
    split_of,
    text_columns,
)
from mechinterp.images.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class DicomTable:
    """The ``metadata.csv`` or ``metadata.parquet`` of a folder of DICOM files, and its ``dataset.yaml``.

    With a column ``file_name`` a row is for a file, or for a folder with all files below it (a series); without one, for
    a patient, whose id stands in the column ``patient_id`` as the headers have it. As in any folder, the rows are the
    images: those of no row are left out.

    Parameters
    ----------
    rows
        As they were read; none where there is only ``dataset.yaml``: then all files are images.
    by_place
        Position of the row for a path below the folder; empty where rows are for patients.
    by_patient
        Position of the row for a patient's keyed hash.
    description
        What ``dataset.yaml`` says.
    title
        Name of the table's file.

    """

    rows: tuple[Row, ...]
    by_place: dict[Path, int]
    by_patient: dict[str, int]
    description: DatasetDescription
    title: str

    @classmethod
    def beside(cls, root: Path, names: Pseudonyms) -> DicomTable | None:
        """Read the table of a folder, or its description alone; ``None`` where it has neither.

        Errors name rows, never what stands in them: a file or folder may be called by its patient.

        Raises
        ------
        ImagesError
            If it cannot be read, a row names nothing below the folder, or two rows name the same.

        """
        described = root / "dataset.yaml"
        path = find_table(root) if root.is_dir() else None
        if path is None and not described.is_file():
            return None
        description = read_description(described)
        if description.spacing_mm is not None:
            raise ImagesError(f"{described} says spacing_mm, but that of DICOM stands in the headers: remove it")
        if path is None:
            return cls((), {}, {}, description, described.name)
        columns, rows = read_cells(path)
        for refused, instead in ((SPACING_COLUMNS, "the headers' holds"), (_masks(columns), "give it as DICOM-SEG")):
            if there := [c for c in refused if c in columns]:
                raise ImagesError(f"{path} has a column '{there[0]}', which is not for DICOM: {instead}; remove it")
        if "file_name" not in columns and "group" not in columns:
            raise ImagesError(
                f"{path} has neither a column 'file_name' (a DICOM file, or the folder of a series) nor 'patient_id' (as "
                "in the headers): one of them must say whom a row is of"
            )
        by_place: dict[Path, int] = {}
        by_patient: dict[str, int] = {}
        for i, row in enumerate(rows):
            where = f"{path}, row {i + 2}"
            if row.get("split"):
                row["split"] = split_of(row["split"], where)
            if "file_name" in columns:
                earlier = by_place.setdefault(_place(row["file_name"], root, where), i)
            elif patient := row["group"].strip():
                earlier = by_patient.setdefault(named_patient(patient, names), i)
            else:
                raise ImagesError(f"{where} names no patient: fill in patient_id, or remove the row")
            if earlier != i:
                raise ImagesError(f"{where}: its images have row {earlier + 2} already: remove one of them")
        return cls(tuple(rows), by_place, by_patient, description, path.name)

    def row_of(self, stack: Stack) -> int | None:
        """Return the position of the row that an image has; of a file's row and its folder's, the file's.

        Raises
        ------
        ImagesError
            If the slices of a volume have different rows.

        """
        if self.by_patient:
            return self.by_patient.get(stack.frames[0].identity.patient_number)
        paths = {frame.path for frame in stack.frames}
        found = {next((self.by_place[p] for p in (q, *q.parents) if p in self.by_place), None) for q in paths}
        if len(found) > 1:
            said = sorted(i + 2 for i in found if i is not None)
            raise ImagesError(
                f"{self.title}: the slices of volume {stack.name} do not share a row ({', '.join(f'row {i}' for i in said[:3])}): "
                "name the folder of the series instead of its files"
            )
        return found.pop()

    def kept(self, stacks: Sequence[Stack]) -> list[Stack]:
        """Return the images that have a row.

        Raises
        ------
        ImagesError
            If none has.

        """
        if not self.rows:
            return list(stacks)
        kept = [stack for stack in stacks if self.row_of(stack) is not None]
        if not kept:
            raise ImagesError(
                f"no row of {self.title} is of an image here: patient_id must be as in the headers, file_name a DICOM file "
                "or a folder of them"
            )
        return kept

    def described(self, images: ImageSet, stacks: Sequence[Stack], left_out: int, names: Pseudonyms) -> ImageSet:
        """Return the images with what the table says of them; where the headers say another thing, the table holds.

        Parameters
        ----------
        images
            With one of `stacks` each, all of them :meth:`kept`.
        stacks
            Their frames.
        left_out
            How many images have no row, to be told.
        names
            By which patients are named.

        Raises
        ------
        AttributeTableError
            If a value is no number; row and column are named.
        LeakageError
            If a patient stands in two splits.

        """
        said = self.description
        images = replace(images, units_are_patients=said.units_are_patients)
        if not self.rows:
            return images
        owners = [row for row in map(self.row_of, stacks) if row is not None]
        given = attributes_of(self.rows, said, self.title).select(owners)
        groups = self._column("group", owners) if self.by_place else None
        if groups is not None:
            known = images.groups or (None,) * len(owners)
            groups = tuple(own if g is None else named_patient(g, names) for g, own in zip(groups, known, strict=True))
        unused = len(self.rows) - len(set(owners))
        counted = [
            (left_out, "image", f"of no row of {self.title} left out"),
            (unused, "row", f"of {self.title} without image"),
        ]
        return replace(
            images,
            labels=self._column("label", owners) or images.labels,
            splits=self._column("split", owners),
            groups=groups or images.groups,
            attributes=given.joined(_without(images.attributes, given.names)),
            notes=(
                *images.notes,
                *(f"{n} {what}{'' if n == 1 else 's'} {text}" for n, what, text in counted if n),
                *note_of_text(text_columns(self.rows, said)),
            ),
        )

    def _column(self, what: str, owners: Sequence[int]) -> tuple[str | None, ...] | None:
        words = column_of(self.rows, what)
        return None if words is None else tuple(words[i] for i in owners)


def _without(table: AttributeTable, names: Sequence[str]) -> AttributeTable:
    kept = [i for i, attribute in enumerate(table.attributes) if attribute.name not in names]
    return AttributeTable(tuple(table.attributes[i] for i in kept), table.values[:, kept], table.categories)


def _masks(columns: Sequence[str]) -> list[str]:
    return [c for c in columns if is_mask_column(c)]


def _place(file_name: str, root: Path, where: str) -> Path:
    """Return the file or folder that a row names; it must be there and inside."""
    name = PurePosixPath(file_name.strip().replace("\\", "/"))
    if not name.name or name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise ImagesError(f"{where}: file_name must be the path of a file or folder below the table's own")
    if not (root / name).exists():
        raise ImagesError(f"{where}: its file_name is not there: it must name a file or folder below the table's own")
    return root / name
