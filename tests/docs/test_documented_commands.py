"""Every command that the pages show exists, with every flag they give it, and every page and picture they point to is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from experiments.cli.entry import COMMANDS, load_command

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GENERATED = {"evidence.md"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def commands_of(text):
    """Return the words of every command that a page shows on a line of its own, without comments and continuations joined."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    shown = [re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?mechinterp (?=[a-z])(.+)", line) for line in lines]
    # a sentence may begin with the name too, and then no command follows
    return [shlex.split(m[1], comments=True) for m in shown if m and m[1].split()[0] in COMMANDS]


def options_of(command):
    return {name for option in load_command(command).params for name in (*option.opts, *option.secondary_opts)}


def test_the_pages_show_commands():
    assert sum(len(commands_of(page.read_text(encoding="utf-8"))) for page in PAGES) > 40


@every_page
def test_every_flag_of_a_command_that_is_shown_exists(page):
    for command, *words in commands_of(page.read_text(encoding="utf-8")):
        flags = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert flags <= options_of(command), f"{page.name}: mechinterp {command}: {flags - options_of(command)}"


@every_page
def test_every_page_and_picture_it_points_to_is_there(page):
    if page.name in GENERATED:
        return
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"


@every_page
def test_every_page_stands_in_the_navigation(page):
    if page.name != "README.md":
        assert f": {page.name}" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_command_stands_in_the_table_of_the_command_line():
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [c for c in COMMANDS if not any(re.search(rf"`{c}[ `]", row) for row in rows)] == []


@pytest.mark.parametrize(
    ("said", "measured"),
    [
        ("in 3.8 % of 2,000 runs", "| independent patients | 3.8 % |"),
        ("a patient: in 100 %", "| slices of one volume, smooth along it | – | 0.7 % | 100.0 % |"),
        ("95.8 %. A plain bootstrap: 68.0 %", "| 0.95 | 12 | 95.8 % | yes | 0.0 % | 68.0 % |"),
        ("in 90 % of 40 cases", "nearer to the truth in 90% of 40 cases"),
        ("first of all channels in 10 of 10 seeds", "ranked first in 10 of 10 seeds: **met**"),
        ("in 10 of 10", "kept in 10 of 10 seeds"),
        (
            "*not* by monosemanticity",
            "did not beat the frozen-random autoencoder in: monosemanticity, label purity",
        ),
    ],
)
def test_a_number_of_the_readme_stands_on_the_evidence_page(said, measured):
    assert said in (ROOT / "README.md").read_text(encoding="utf-8")
    assert measured in (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
