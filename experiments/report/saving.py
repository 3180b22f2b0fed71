"""A report in its run: ``report.json``, from which the page is made again without recomputing anything."""

from __future__ import annotations

from pathlib import Path

from experiments.report.page import report_page
from experiments.report.report import Report
from mechinterp.errors import ConfigError
from mechinterp.files import jsonable, read_json, write_bytes, write_json

FILE = "report.json"
PAGE = "report.html"


def write_report(folder: Path, report: Report) -> Path:
    """Write ``report.json`` and the page ``report.html`` into a run, and return the path of the first.

    Raises
    ------
    DiskError
        If it cannot be written.

    """
    path = Path(folder) / FILE
    record = jsonable(report.to_json())
    write_json(path, record)
    write_bytes(Path(folder) / PAGE, report_page(record).encode())
    return path


def read_report(folder: Path) -> Report:
    """Read a run's report; every verdict is reached anew.

    Raises
    ------
    ConfigError
        If the run has none.
    DamagedFileError
        If it is damaged or of another format.

    """
    path = Path(folder) / FILE
    if not path.exists():
        raise ConfigError(
            f"{folder} has no {FILE}: run a study into it, for example `mechinterp study brain-mri --out {folder}`"
        )
    return Report.from_json(read_json(path))
