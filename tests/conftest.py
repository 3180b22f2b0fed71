"""Shared by all tests: offline, few threads, no cache of the user's."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch
from hypothesis import settings

# a busy machine must not turn a slow example into a failure
settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="session")
def _two_threads():
    # workers of pytest-xdist share the cores: a second thread of each would wait for the others
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))


@pytest.fixture(autouse=True, scope="session")
def _key_of_our_own(tmp_path_factory):
    # patients' names are keyed by a file in the user's home: no test may make one there
    os.environ["MECHINTERP_KEY_FILE"] = str(tmp_path_factory.mktemp("key") / "pseudonym-key")
