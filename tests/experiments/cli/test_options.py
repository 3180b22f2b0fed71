"""Flags made from a stage's config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from experiments.cli.options import with_config
from mechinterp.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    size: Annotated[int, "how big"] = 3
    seeds: Annotated[tuple[int, ...], "which seeds"] = (0, 1)
    hidden: Annotated[str, "set by the command"] = "x"


def made(seen):
    app = typer.Typer()

    @app.command()
    @with_config(Config, leave_out=["hidden"])
    def command(name: Annotated[str, typer.Option("--name")], *, settings):
        seen.append((name, settings))

    return app


def test_every_field_is_a_flag_with_its_help():
    result = CliRunner().invoke(made([]), ["--help"])
    assert "how big" in result.output
    assert "which seeds" in result.output
    assert "--hidden" not in result.output


def test_settings_arrive_typed():
    seen = []
    CliRunner().invoke(made(seen), ["--name", "a", "--size", "5", "--seeds", "3,4,5"])
    CliRunner().invoke(made(seen), ["--name", "b"])
    assert seen == [("a", {"size": 5, "seeds": (3, 4, 5)}), ("b", {"size": 3, "seeds": (0, 1)})]


def test_a_list_of_the_wrong_kind_is_named():
    result = CliRunner().invoke(made([]), ["--name", "a", "--seeds", "one,two"])
    assert isinstance(result.exception, ConfigError)
    with pytest.raises(ConfigError, match="--seeds is 'one,two'"):
        raise result.exception
