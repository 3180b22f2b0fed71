"""One run for all tests of the pages."""

import pytest
import synthetic_run

from experiments.dashboard.export import export_static
from experiments.dashboard.site import build_pages


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
