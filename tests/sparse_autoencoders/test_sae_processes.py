"""What several processes send each other, with the other's part given; a real run of two is tested from the command line."""

import pytest
import torch

from mechinterp.errors import ConfigError
from sparse_autoencoders import processes as module
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.initialisation import start
from sparse_autoencoders.kernels import topk_of_batch
from sparse_autoencoders.processes import ALONE, Processes
from sparse_autoencoders.single_training import make_learner


def test_one_process_is_alone_and_sends_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    found = Processes.joined("cpu")
    assert (found, found.alone, found.first) == (ALONE, True, True)
    rows, seen = torch.arange(6.0).view(3, 2), torch.tensor([True, False])
    assert found.share(rows) is rows
    assert found.any(seen) is seen
    found.average([rows])
    found.wait()
    assert rows[2, 1] == 5
    assert found.device("cuda") == "cuda"


def test_shares_are_disjoint_even_and_whole():
    rows = torch.arange(12.0).view(6, 2)
    shares = [Processes(rank, 3).share(rows) for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 2]
    assert torch.equal(torch.cat(shares).sort(dim=0).values, rows)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    Processes(0, 2).require_even(64)
    with pytest.raises(ConfigError, match="a batch of 65 tokens cannot be shared evenly by 2 processes"):
        Processes(0, 2).require_even(65)


def test_each_of_several_gpus_has_its_process(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Processes(3, 4).device("cuda") == "cuda:1"
    assert Processes(3, 4).device("cpu") == "cpu"


def test_means_and_unions_are_over_all_processes(monkeypatch):
    two = Processes(0, 2)
    monkeypatch.setattr(module.dist, "all_reduce", lambda flat: flat.add_(torch.tensor([5, 7, 9], dtype=flat.dtype)))
    a, b = torch.tensor([1.0, 3.0]), torch.tensor([[1.0]])
    two.average([a, b])
    assert (a.tolist(), b.tolist()) == ([3, 5], [[5]])
    monkeypatch.setattr(module.dist, "all_reduce", lambda counts: counts.add_(torch.tensor([1, 0], dtype=counts.dtype)))
    assert two.any(torch.tensor([False, False])).tolist() == [True, False]


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_bar_of_batchtopk_is_that_of_the_whole_batch(monkeypatch, k):
    whole = torch.randn(10, 9, generator=torch.Generator().manual_seed(k))
    shares = [Processes(rank, 2).share(whole) for rank in range(2)]

    def gather(every, own):
        for rank, share in enumerate(shares):
            values = share.flatten().topk(min(len(own), share.numel())).values
            every[rank].fill_(-torch.inf)[: len(values)] = values

    monkeypatch.setattr(module.dist, "all_gather", gather)
    kept = torch.zeros(10, 9, dtype=torch.bool)
    for rank, share in enumerate(shares):
        found = Processes(rank, 2).topk_of_batch(share, k)
        assert found.starts[-1] == len(found.rows) == len(found.columns)
        kept[found.rows * 2 + rank, found.columns] = True
    of_one = topk_of_batch(whole, k)
    expected = torch.zeros_like(kept)
    expected[of_one.rows, of_one.columns] = True
    assert torch.equal(kept, expected)


def test_processes_without_accelerate_or_for_another_device_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="several processes wants accelerate"):
        Processes.joined("cpu")


def test_what_one_process_alone_can_train_is_refused_in_several():
    sample = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    begin = start("data", sample, 12, 3, torch.Generator().manual_seed(1))
    for arch in ("matching-pursuit", "archetypal"):
        with pytest.raises(ConfigError, match=f"{arch} is trained by one process, and 2 were started"):
            make_learner(begin, TrainSAEConfig(arch=arch, k=3), 3, 0, processes=Processes(0, 2))
    with pytest.raises(ConfigError, match="a transcoder is trained by one process"):
        make_learner(begin, TrainSAEConfig(k=3), 3, 0, read_width=3, processes=Processes(0, 2))
