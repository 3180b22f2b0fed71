"""A run: a directory whose ``run.json`` says which model, images, store, SAEs and results belong together.

Times, hosts and versions stand here and never in store files, so that two captures of the same thing have the same bytes.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.errors import ConfigError
from mechinterp.files import read_json, write_json
from mechinterp.provenance import versions

FORMAT_VERSION = 1
EXPLORER = "explorer"
"""Beneath a study that keeps its patients in two halves: a run of both, whose features can be looked at."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    Parameters
    ----------
    folder
        Where it stands.

    """

    folder: Path

    @classmethod
    def create(cls, folder: str | Path) -> Run:
        """Open a run, or begin one in a new folder."""
        run = cls(Path(folder))
        if not run.path.exists():
            write_json(run.path, {"format_version": FORMAT_VERSION, "stages": {}})
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open a run.

        Raises
        ------
        ConfigError
            If the folder is no run.

        """
        run = cls(Path(folder))
        if not run.path.exists():
            raise ConfigError(
                f"{folder} is no run (it has no run.json): make one with `mechinterp study brain-mri --out {folder}`, "
                f"or with `mechinterp capture --out {folder}/activations`"
            )
        return run

    @property
    def path(self) -> Path:
        """The run's ``run.json``."""
        return self.folder / "run.json"

    @property
    def results_path(self) -> Path:
        """The run's ``results.json``: every number that a page shows."""
        return self.folder / "results.json"

    @property
    def stages(self) -> dict[str, Any]:
        """What was done, by stage."""
        stages: dict[str, Any] = read_json(self.path)["stages"]
        return stages

    @property
    def store_folder(self) -> Path:
        """Where the run's activations stand.

        Raises
        ------
        ConfigError
            If it has none, or a study keeps them in two halves.

        """
        folder = self.folder / "activations"
        if (folder / "manifest.json").exists():
            return folder
        if any(folder.glob("*/manifest.json")):
            raise ConfigError(
                f"{self.folder} is a study that keeps its patients' activations in two halves: mechinterp dashboard {self.folder} makes "
                f"{self.folder / EXPLORER}, a run of both that every command takes"
            )
        raise ConfigError(f"{self.folder} has no activations: mechinterp capture … --out {folder}")

    def relative(self, path: str | Path) -> str:
        """Return a path as it stands in ``run.json``: relative to the run where it lies inside."""
        resolved, base = Path(path).resolve(), self.folder.resolve()
        return resolved.relative_to(base).as_posix() if resolved.is_relative_to(base) else resolved.as_posix()

    @contextmanager
    def stage(self, name: str, **inputs: Any) -> Iterator[dict[str, Any]]:
        """Time a stage and record it when it ends well; what is put into the yielded dict is recorded too."""
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        before = time.perf_counter()
        outputs: dict[str, Any] = {}
        yield outputs
        content = read_json(self.path)
        content["stages"][name] = {
            **inputs,
            **outputs,
            "started": started,
            "seconds": round(time.perf_counter() - before, 2),
            "versions": versions(),
        }
        write_json(self.path, content)
