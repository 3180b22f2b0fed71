import pytest

from evidence import record
from mechinterp.errors import ConfigError
from mechinterp.files import read_json


class Coin:
    """A check whose figures are known."""

    SOURCES = ("code/*.py",)
    TITLE = "A coin"

    def run(self, small, progress):
        return {"heads": 0.5, "small": small}

    def render(self, figures):
        return f"heads {figures['heads']}"


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "evidence").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "evidence" / "coin.py").write_text("SIDES = 2\n")
    (tmp_path / "code" / "toss.py").write_text("FAIR = True\n")
    monkeypatch.setattr(record, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(record.code_hash, "__defaults__", (tmp_path,))
    return tmp_path


def test_a_figure_is_stale_until_it_is_made_and_after_its_code_changed(root):
    found = {"coin": Coin()}
    assert record.stale(found) == ["evidence/figures/coin.json is missing: run `make evidence NAMES=coin`"]
    record.make("coin", found["coin"], progress=None)
    assert record.stale(found) == []
    (root / "code" / "toss.py").write_text('"""A coin."""\nFAIR = True  # said by its maker\n')
    assert record.stale(found) == []
    (root / "code" / "toss.py").write_text("FAIR = False\n")
    assert record.stale(found) == ["evidence/figures/coin.json came from other code: run `make evidence NAMES=coin`"]


def test_a_figure_is_made_at_full_size_and_says_when_and_with_what(root):
    record.make("coin", Coin(), progress=None)
    kept = read_json(root / "figures" / "coin.json")
    assert kept["figures"] == {"heads": 0.5, "small": False}
    assert "torch" in kept["versions"]
    assert "## A coin\n\nheads 0.5" in record.page({"coin": Coin()})


def test_a_source_that_no_file_matches_is_an_error(root):
    with pytest.raises(ConfigError, match=r"'code/gone.py', which no file matches"):
        record.code_hash("coin", ("code/gone.py",))


def test_what_stands_in_the_documentation_came_from_the_code_that_stands():
    found = record.checks()
    assert record.stale(found) == []
    assert record.PAGE.read_text(encoding="utf-8") == record.page(found)
