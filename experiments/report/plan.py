"""What will be tested and how it will be judged, fixed and hashed before the confirmation patients are opened."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.report.elements import check_element
from mechinterp.claims import Bound
from mechinterp.errors import ConfigError, DamagedFileError
from mechinterp.files import read_json, sha256_json, write_json

FILE = "plan.json"
_REPORT = "report.json"


@dataclass(frozen=True)
class PlannedTest:
    """One test of the plan; the claim that answers it carries its name in ``Claim.test``.

    Parameters
    ----------
    element
        Which of the five elements it speaks for.
    name
        Unique within the plan.
    method, metric
        How, and what is measured, in words.
    criterion
        When it counts as met, in words.
    controls
        Names of the controls it must carry, exactly as ``Control.name`` will say them.
    bound
        The criterion as a number, where it is one.
    largest_p
        A larger corrected p-value leaves the claim open.

    """

    element: str
    name: str
    method: str
    metric: str
    criterion: str
    controls: tuple[str, ...]
    bound: Bound | None = None
    largest_p: float | None = None

    def __post_init__(self) -> None:
        check_element(self.element)
        if not self.controls:
            raise ConfigError(f"the planned test '{self.name}' has no control: a claim without controls is never met")

    def to_json(self) -> dict[str, Any]:
        """Return the test as plain JSON."""
        return {
            "element": self.element,
            "name": self.name,
            "method": self.method,
            "metric": self.metric,
            "criterion": self.criterion,
            "controls": list(self.controls),
            "bound": None if self.bound is None else self.bound.to_json(),
            "largest_p": self.largest_p,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlannedTest:
        """Read what :meth:`to_json` wrote."""
        texts = {key: record[key] for key in ("element", "name", "method", "metric", "criterion", "largest_p")}
        bound = record["bound"]
        return cls(**texts, controls=tuple(record["controls"]), bound=None if bound is None else Bound.from_json(bound))


@dataclass(frozen=True)
class Plan:
    """All tests, and the patients they are found and confirmed on.

    Parameters
    ----------
    use_case
        Name of the use case.
    tests
        What will be tested.
    discovery, confirmation
        :func:`groups_hash` of the patients that may be looked at freely, and of those that are opened once. ``None`` where
        there are none, which `note` explains.
    note
        In words, for example why nobody is left to confirm on.

    """

    use_case: str
    tests: tuple[PlannedTest, ...]
    discovery: str | None = None
    confirmation: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        names = [test.name for test in self.tests]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"two planned tests are called '{twice[0]}': a test's name is unique within its plan")

    @property
    def hash(self) -> str:
        """SHA-256 over everything the plan says."""
        return sha256_json(self._content())

    def of(self, element: str) -> tuple[PlannedTest, ...]:
        """Return the tests planned for an element."""
        return tuple(test for test in self.tests if test.element == element)

    def changes_to(self, other: Plan) -> tuple[str, ...]:
        """Return in words what another plan changes."""
        before, after = ({test.name: test for test in plan.tests} for plan in (self, other))
        found = [f"test '{name}' taken out" for name in before if name not in after]
        found += [f"test '{name}' added" for name in after if name not in before]
        found += [f"test '{name}' changed" for name in before if name in after and before[name] != after[name]]
        if (self.discovery, self.confirmation) != (other.discovery, other.confirmation):
            found.append("other patients")
        if (self.use_case, self.note) != (other.use_case, other.note):
            found.append("use case or note changed")
        return tuple(found)

    def _content(self) -> dict[str, Any]:
        return {
            "use_case": self.use_case,
            "tests": [test.to_json() for test in self.tests],
            "discovery": self.discovery,
            "confirmation": self.confirmation,
            "note": self.note,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the plan with its hash as plain JSON."""
        return {**self._content(), "hash": self.hash}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        DamagedFileError
            If the plan is not the one that was hashed.

        """
        tests = tuple(PlannedTest.from_json(test) for test in record["tests"])
        plan = cls(record["use_case"], tests, record["discovery"], record["confirmation"], record["note"])
        if plan.hash != record["hash"]:
            raise DamagedFileError(
                f"the plan of '{plan.use_case}' does not match its hash {record['hash'][:12]}: it was altered after it was made"
            )
        return plan


@dataclass(frozen=True)
class PlanRecord:
    """A plan with what became of it.

    Parameters
    ----------
    plan
        As it stands now.
    registered
        When it was written, or ``None`` where no plan was written before the run.
    opened
        When the confirmation patients were opened.
    deviations
        What was changed after that, in words.

    """

    plan: Plan
    registered: str | None = None
    opened: str | None = None
    deviations: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain JSON."""
        return {
            **self.plan.to_json(),
            "registered": self.registered,
            "opened": self.opened,
            "deviations": list(self.deviations),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlanRecord:
        """Read what :meth:`to_json` wrote."""
        return cls(Plan.from_json(record), record["registered"], record["opened"], tuple(record["deviations"]))


def groups_hash(groups: Iterable[object]) -> str:
    """Return a hash of a set of patients: the same for any order and any number of images of each."""
    return sha256_json(sorted({str(group) for group in groups}))


def register_plan(folder: Path, plan: Plan, *, deviation: str = "") -> PlanRecord:
    """Write a plan into a run, before the confirmation patients are opened.

    Where the run's plan is gone but its report is there and opened the same patients, that is a deviation: nobody can register
    anew what has been looked at by taking the plan away.

    Parameters
    ----------
    folder
        Of the run.
    plan
        The plan. Until the confirmation patients are opened, another one replaces it.
    deviation
        Why the plan is changed after they were opened. The report shows it, with what was changed.

    Raises
    ------
    ConfigError
        If the confirmation patients were opened under another plan, and no reason is given.

    """
    earlier = read_plan(folder)
    if (
        earlier is None
        and (reported := _reported(folder)) is not None
        and reported.plan.confirmation == plan.confirmation
    ):
        before = (
            f"{FILE} was gone when this plan was written, and the run's report of before had opened the same patients"
        )
        changes = ", ".join(reported.plan.changes_to(plan)) or "the plan is the same as then"
        said = f"{before} on {reported.opened} under plan {reported.plan.hash[:12]} ({changes})"
        return _written(folder, PlanRecord(plan, _now(), reported.opened, (*reported.deviations, said)))
    if earlier is None or (earlier.plan != plan and earlier.opened is None):
        return _written(folder, PlanRecord(plan, registered=_now()))
    if earlier.plan == plan:
        return earlier
    changes = ", ".join(earlier.plan.changes_to(plan))
    if not deviation:
        raise ConfigError(
            f"{folder / FILE}: the confirmation patients were opened under plan {earlier.plan.hash[:12]}, and this plan differs "
            f"({changes}): keep the plan, begin a new run, or say why in `deviation`"
        )
    said = f"{deviation} ({changes}; the earlier plan was {earlier.plan.hash[:12]})"
    return _written(folder, replace(earlier, plan=plan, deviations=(*earlier.deviations, said)))


def open_confirmation(folder: Path, groups: Iterable[object]) -> PlanRecord:
    """Open the confirmation patients: from here on, a change of plan is a deviation.

    Raises
    ------
    ConfigError
        If no plan was written before, or it names other patients.

    """
    record = read_plan(folder)
    if record is None:
        raise ConfigError(f"{folder} has no {FILE}: register the plan before the confirmation patients are opened")
    if groups_hash(groups) != record.plan.confirmation:
        raise ConfigError(
            f"{folder / FILE} names other confirmation patients than those that are to be opened: split as the plan was made, "
            "or register a plan for these"
        )
    return record if record.opened else _written(folder, replace(record, opened=_now()))


def read_plan(folder: Path) -> PlanRecord | None:
    """Return a run's plan, or ``None`` where it has none."""
    path = Path(folder) / FILE
    return PlanRecord.from_json(read_json(path)) if path.exists() else None


def _reported(folder: Path) -> PlanRecord | None:
    """Return the plan of the run's report, if there is one that opened its confirmation patients."""
    path = Path(folder) / _REPORT
    if not path.exists():
        return None
    try:
        record = PlanRecord.from_json(read_json(path)["plan"])
    except (DamagedFileError, KeyError, TypeError):  # what cannot be read says nothing of patients; it is written anew
        return None
    return record if record.opened else None


def _written(folder: Path, record: PlanRecord) -> PlanRecord:
    write_json(Path(folder) / FILE, record.to_json())
    return record


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
