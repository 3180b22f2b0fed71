"""One run for all tests of the pages."""

import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import synthetic_run

from experiments.analysis.stagewise import ensure_results
from experiments.cli import entry
from experiments.dashboard.access import address
from experiments.dashboard.app import make_server
from experiments.dashboard.export import export_static
from experiments.dashboard.site import build_pages

TOKEN = "a-token-of-the-tests"


@pytest.fixture(scope="session")
def results():
    return synthetic_run.results()


@pytest.fixture(scope="session")
def run_dir(results, tmp_path_factory):
    return synthetic_run.write_run(tmp_path_factory.mktemp("run"), results)


@pytest.fixture(scope="session")
def pages(results, run_dir):
    return build_pages(results, run_dir)


@pytest.fixture(scope="session")
def exported(run_dir, tmp_path_factory):
    return export_static(run_dir, tmp_path_factory.mktemp("export") / "pages")


@pytest.fixture(scope="session")
def made_run(tmp_path_factory):
    """A run of a user's own small network, made stage by stage: its model can be loaded again."""
    folder = tmp_path_factory.mktemp("made")
    scans, run = folder / "scans", folder / "run"
    model = f"py:{Path(__file__).parents[1] / 'cli' / 'user_net.py'}:build"
    store = run / "activations"
    for argv in (
        ["phantoms", "fundus", "--patients", 8, "--size-px", 48, "--no-masks", "--out", scans],
        ["capture", "--model", model, "--images", scans, "--site", "stages.1", "--outputs", "--out", store],
        ["train-sae", "--activations", store, "--k", 4, "--expansion", 2, "--epochs", 2, "--seeds", "0,1", "--out", run / "saes"],
    ):  # fmt: skip
        assert entry.run([str(a) for a in argv]) == 0
    ensure_results(run)
    return run


@pytest.fixture
def own_run(made_run, tmp_path):
    """A copy of that run, to be written into."""
    return Path(shutil.copytree(made_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def token():
    return TOKEN


@contextmanager
def serving(run):
    """Serve a run on a free port; yields its address without and with the token."""
    server = make_server(run, port=0, token=TOKEN)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}/", address("127.0.0.1", server.port, TOKEN)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def served(run_dir):
    """Address of the drawn run, with its token."""
    with serving(run_dir) as (_, opened):
        yield opened


@pytest.fixture
def served_made(own_run):
    """Address of the run whose model can be loaded, with its token."""
    with serving(own_run) as (_, opened):
        yield opened


@pytest.fixture(scope="session")
def exported_made(made_run, tmp_path_factory):
    return export_static(made_run, tmp_path_factory.mktemp("made-export") / "pages", stored_desks=2)
