"""One check's figures on disk, and whether the code they came from is still the code that stands."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, cast

import evidence
from mechinterp.errors import ConfigError
from mechinterp.files import read_json, write_json
from mechinterp.progress import Progress
from mechinterp.provenance import code_without_comments, versions

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "evidence" / "figures"
PAGE = ROOT / "docs" / "evidence.md"
MACHINERY = frozenset({"record", "__main__"})


class Check(Protocol):
    """What a module of this package offers."""

    SOURCES: Sequence[str]
    TITLE: str

    def run(self, small: bool, progress: Progress) -> dict[str, Any]:
        """Return the figures; a small run takes seconds and is what the tests call."""
        ...

    def render(self, figures: dict[str, Any]) -> str:
        """Return the figures as Markdown."""
        ...


def checks() -> dict[str, Check]:
    """Return every check by its name, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(evidence.__path__) if module.name not in MACHINERY)
    return {name: cast(Check, importlib.import_module(f"evidence.{name}")) for name in names}


def code_hash(name: str, sources: Sequence[str], root: Path = ROOT) -> str:
    """Return a hash of the code of a check and of the files that it names, comments and docstrings left out.

    Raises
    ------
    ConfigError
        If a path or glob matches no file: a check that watches nothing would never be stale.

    """
    digest = hashlib.sha256()
    for pattern in (f"evidence/{name}.py", *sources):
        found = sorted(path for path in root.glob(pattern) if path.is_file())
        if not found:
            raise ConfigError(f"evidence/{name}.py names the source {pattern!r}, which no file matches: mend SOURCES")
        for path in found:
            code = code_without_comments(path.read_text(encoding="utf-8"))
            digest.update(f"{path.relative_to(root).as_posix()}\n{code}\n".encode())
    return digest.hexdigest()


def make(name: str, check: Check, progress: Progress) -> None:
    """Run a check at full size and keep its figures."""
    code = code_hash(name, check.SOURCES)  # before the run: what is edited meanwhile did not make these figures
    start = time.perf_counter()
    figures = check.run(False, progress)
    record = {
        "code": code,
        "made": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.perf_counter() - start),
        "versions": versions(),
        "figures": figures,
    }
    write_json(FIGURES / f"{name}.json", record)


def stale(found: dict[str, Check]) -> list[str]:
    """Return one line for each check whose figures are missing or came from other code."""
    lines = []
    for name, check in found.items():
        path = FIGURES / f"{name}.json"
        if not path.is_file():
            lines.append(f"evidence/figures/{name}.json is missing: run `make evidence NAMES={name}`")
        elif read_json(path)["code"] != code_hash(name, check.SOURCES):
            lines.append(f"evidence/figures/{name}.json came from other code: run `make evidence NAMES={name}`")
    return lines


def page(found: dict[str, Check]) -> str:
    """Return the documentation's page: each check's figures with the day and the time that they took."""
    parts = [
        "# Evidence",
        "What the toolkit's statistics and decompositions do where the truth is known, measured over many seeds. "
        "`make evidence` makes these figures again; CI runs a small version of each and fails when a figure is older "
        "than the code that it came from. A figure that misses its goal is printed as it fell.",
    ]
    for name, check in found.items():
        path = FIGURES / f"{name}.json"
        if path.is_file():
            record = read_json(path)
            note = f"*{record['made']}, {record['seconds']} s, `evidence/{name}.py`.*"
            parts += [f"## {check.TITLE}", check.render(record["figures"]).strip(), note]
    return "\n\n".join(parts) + "\n"
