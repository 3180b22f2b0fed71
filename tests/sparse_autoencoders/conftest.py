"""One thread: these matrices are small, and what a second thread saves, waiting for it costs many times over."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def _one_thread(_two_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
