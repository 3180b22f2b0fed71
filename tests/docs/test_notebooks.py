"""The notebooks of the documentation: committed without outputs, and executed offline, as a reader would."""

import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_there_are_four_notebooks_and_each_is_linked_from_the_index_and_the_navigation():
    assert len(NOTEBOOKS) == 4
    index, navigation = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/index.md", "mkdocs.yml"))
    for path in NOTEBOOKS:
        assert f"notebooks/{path.name}" in index
        assert f"notebooks/{path.name}" in navigation


@every_notebook
def test_a_notebook_holds_no_output_and_no_count(path):
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@every_notebook
def test_a_notebook_names_no_path_of_a_machine_and_no_address(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(home|work|tmp|Users|root|opt|mnt|data)\b|[A-Z]:\\\\|https?://", text)


@every_notebook
def test_code_of_a_notebook_compiles(path):
    for cell in cells_of(path):
        if cell["cell_type"] == "code":
            compile("".join(cell["source"]), path.name, "exec")


@every_notebook
def test_a_notebook_says_what_it_is_not_for(path):
    assert "Research use only" in "".join(cells_of(path)[-1]["source"])


@pytest.mark.slow
@every_notebook
def test_a_notebook_runs_offline_to_its_end(path, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for file in FOLDER.glob("*.py"):
        shutil.copy(file, tmp_path)
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    figures = [o for o in outputs if "application/vnd.plotly.v1+json" in o.get("data", {})]
    assert len(figures) >= 2
    assert all(figure["data"]["application/vnd.plotly.v1+json"]["data"] for figure in figures)
    left = {file.name for file in tmp_path.iterdir()} - {file.name for file in FOLDER.glob("*.py")}
    assert left <= {"__pycache__"}
