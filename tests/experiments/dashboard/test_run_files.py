"""Pages of stages stand in one list, and nothing outside the run can be fetched."""

import json

import pytest

from experiments.dashboard.app import make_app
from experiments.dashboard.export import export_static
from experiments.dashboard.page import Facts, Files, walk
from experiments.dashboard.run_files import EXPORT, files_of_run, pages_of_stages
from experiments.dashboard.site import build_pages

ATTACK = "<script>window.hacked = 1</script>"


def written(path, title="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html><html><head><title>{title}</title></head><body>page</body></html>")


@pytest.fixture
def run(tmp_path, results):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(results))
    written(folder / "saes" / "training.html", "Training")
    written(folder / "saes" / "seed-0" / "attributes.html", "Matrix")
    written(folder / "probes" / "area.html", "Area &amp; layers")
    written(folder / "heads" / "stages.2.html", "Heads")
    written(folder / "circuit" / "circuit.html", "&lt;script&gt;window.hacked = 1&lt;/script&gt;")
    written(folder / "own.html", "Mine")
    written(folder / "page" / "index.html")
    (folder / "page" / EXPORT).write_text("{}")
    written(folder / ".hidden" / "secret.html")
    written(tmp_path / "elsewhere.html", "Elsewhere")
    (folder / "leads-out.html").symlink_to(tmp_path / "elsewhere.html")
    (folder / "notes.json").write_text('{"format": 1, "notes": {}}')
    return folder


def test_pages_are_found_in_the_order_of_their_rooms(run):
    found = [(page.room.name, page.path, page.title) for page in pages_of_stages(run)]
    assert found == [
        ("Training and comparison of autoencoders", "saes/training.html", "Training"),
        ("Attribute matrix", "saes/seed-0/attributes.html", "Matrix"),
        ("Probes and layer profiles", "probes/area.html", "Area & layers"),
        ("Interpretable heads", "heads/stages.2.html", "Heads"),
        ("Circuits", "circuit/circuit.html", ATTACK),
        ("Other pages", "own.html", "Mine"),
    ]


def test_exports_hidden_folders_and_links_out_of_the_run_are_left_alone(run):
    allowed = files_of_run(run)
    assert "notes.json" in allowed
    assert not {"page/index.html", ".hidden/secret.html", "leads-out.html", "results.json"} & allowed


def test_the_drawing_script_beside_a_page_comes_with_it_and_no_other_file(run, results, tmp_path):
    """A probe's page names it: without it an exported or served page would draw nothing."""
    (run / "probes" / "plotly.min.js").write_text("// drawing")
    (run / "probes" / "other.js").write_text("// not ours")
    (run / "circuit" / "plotly.min.js").symlink_to(tmp_path / "elsewhere.html")
    assert {name for name in files_of_run(run) if name.endswith(".js")} == {"probes/plotly.min.js"}
    export_static(run, tmp_path / "export")
    assert (tmp_path / "export" / "files" / "probes" / "plotly.min.js").read_text() == "// drawing"


def test_what_was_not_run_is_named_with_its_command(run, results):
    blocks = list(walk(build_pages(results, run)["stages"].blocks))
    said = dict(pair for block in blocks if isinstance(block, Facts) for pair in block.items)
    assert said["Localization"] == "not run: mechinterp localize"
    assert "Circuits" not in said
    linked = [file.path for block in blocks if isinstance(block, Files) for file in block.files]
    assert "circuit/circuit.html" in linked


def test_the_server_gives_these_files_and_no_other(run, token, tmp_path):
    client = make_app(run, token=token).server.test_client()
    client.get(f"/?token={token}")
    assert b"page" in client.get("/files/saes/training.html").data
    for path in (
        "/files/results.json", "/files/../elsewhere.html", "/files/%2e%2e/elsewhere.html", "/files/leads-out.html",
        "/files/saes/../results.json", f"/files/{tmp_path}/elsewhere.html", "/files//etc/passwd",
    ):  # fmt: skip
        answer = client.get(path)
        # Dash answers any address of no file with its own empty page
        assert answer.status_code in {404, 308} or b"_dash-config" in answer.data
        assert b"Elsewhere" not in answer.data
        assert b'"question"' not in answer.data


@pytest.mark.browser
def test_an_export_takes_them_along_and_shows_titles_as_text(tab, run, tmp_path):
    out = export_static(run, tmp_path / "out")
    assert (out.parent / "files" / "saes" / "training.html").is_file()
    tab.page.goto(out.as_uri())
    tab.page.wait_for_function(
        "() => document.body.dataset.drawn === 'overview'"
    )  # with Plotly, which is on its way else
    tab.go("stages")
    assert ATTACK in tab.page.locator("main").inner_text()
    tab.page.get_by_role("link", name="Training").click()
    tab.page.wait_for_function("() => document.body.textContent.trim() === 'page'")
    assert tab.page.evaluate("window.hacked === undefined")
    assert tab.problems == []
