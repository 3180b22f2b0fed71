"""A whole analysis in one TOML file: each table is a command with its flags."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.cli.entry import COMMANDS
from mechinterp.errors import ConfigError, nearest

ARGUMENTS = "args"
"""The key of what a command takes without a flag."""

NOT_IN_FILES = ("init", "run")


@dataclass(frozen=True)
class Stage:
    """One command of a config file.

    Parameters
    ----------
    command
        Its name.
    argv
        What follows it on a command line.

    """

    command: str
    argv: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """The command line without ``mechinterp``."""
        return [self.command, *self.argv]


def read_stages(path: Path) -> list[Stage]:
    """Return the commands of a config file in their order.

    Raises
    ------
    ConfigError
        If the file cannot be read, is no TOML, or holds something that is no command or no flag's value.

    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}; `mechinterp init` writes one") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    stages = []
    known = [name for name in COMMANDS if name not in NOT_IN_FILES]
    for command, tables in raw.items():
        if command not in known:
            raise ConfigError(f"{path} has a table [{command}], which is no command: {nearest(command, known)}")
        for table in tables if isinstance(tables, list) else [tables]:
            if not isinstance(table, dict):
                raise ConfigError(f"'{command}' in {path} must be a table, [{command}], not {table!r}")
            stages.append(Stage(command, tuple(_argv(command, table, path))))
    if not stages:
        raise ConfigError(f"{path} names no command: `mechinterp init` writes one that does")
    return stages


def _argv(command: str, table: dict[str, Any], path: Path) -> list[str]:
    words: list[str] = []
    for key, value in table.items():
        values = value if isinstance(value, list) else [value]
        if any(isinstance(v, dict | list) for v in values):
            raise ConfigError(
                f"'{key}' of [{command}] in {path} must be a text, a number, true, false or a list of those"
            )
        for v in values:
            if key == ARGUMENTS:
                words.append(str(v))
            elif v is True:
                words.append(f"--{key}")
            elif v is not False:
                words += [f"--{key}", str(v)]
    return words
