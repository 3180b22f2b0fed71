"""Several processes that take one training's steps together, each on its share of every batch (data parallel).

``accelerate launch`` starts them and says through the environment who each is. All hold the same weights, see the same order of
rows and draw the same numbers, so that only sums over a batch have to travel: gradients, losses, which features fired, and of
BatchTopK the bar that the whole batch sets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.errors import ConfigError
from sparse_autoencoders.kernels import Selection


@dataclass(frozen=True)
class Processes:
    """The processes of a training.

    Parameters
    ----------
    rank
        Which of them this is, from 0; the first alone writes files.
    count
        How many; one works alone and sends nothing.

    """

    rank: int = 0
    count: int = 1

    @classmethod
    def joined(cls, device: str) -> Processes:
        """Join the processes that ``accelerate launch`` or ``torchrun`` started; alone where neither did.

        They talk by gloo on the CPU and by NCCL on CUDA.

        Parameters
        ----------
        device
            What the training runs on: ``cpu``, ``cuda``.

        Raises
        ------
        ConfigError
            If accelerate is not installed, or the processes were started for another kind of device.

        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        if find_spec("accelerate") is None:
            raise ConfigError(
                "training on several processes wants accelerate: pip install 'mechinterp-vision[distributed]', or start one process"
            )
        state = import_module("accelerate").PartialState(cpu=torch.device(device).type == "cpu")
        if state.device.type != torch.device(device).type:
            raise ConfigError(
                f"the processes were started for {state.device.type} and the device is {device}: give --device "
                f"{state.device.type}, or accelerate launch {'--cpu' if device == 'cpu' else 'without --cpu'}"
            )
        return cls(state.process_index, state.num_processes)

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self.count == 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return the device of this process: of several GPUs its own."""
        if self.alone or torch.device(name).type != "cuda":
            return name
        return f"cuda:{int(os.environ.get('LOCAL_RANK', self.rank))}"

    def share(self, rows: Float[Tensor, "row width"]) -> Float[Tensor, "share width"]:
        """Return this process's rows of a batch."""
        return rows if self.alone else rows[self.rank :: self.count].contiguous()

    def require_even(self, batch_size: int) -> None:
        """Ask that every process gets as many rows.

        Raises
        ------
        ConfigError
            If the batch cannot be cut so; a mean over the shares would not be the batch's.

        """
        if batch_size % self.count:
            raise ConfigError(
                f"a batch of {batch_size} tokens cannot be shared evenly by {self.count} processes: take a batch size that "
                f"{self.count} divides, or fewer processes"
            )

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over the processes, in one message."""
        tensors = list(tensors)
        if self.alone or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def any(self, seen: Bool[Tensor, " feature"]) -> Bool[Tensor, " feature"]:
        """Return what any of the processes saw."""
        if self.alone:
            return seen
        counts = seen.to(torch.int32)
        dist.all_reduce(counts)
        return counts > 0

    def wait(self) -> None:
        """Wait until every process has come here."""
        if not self.alone:
            dist.barrier()

    def topk_of_batch(self, hidden: Float[Tensor, "row feature"], k: int) -> Selection:
        """Keep the ``k * rows`` largest of the batch that all processes hold together (BatchTopK).

        Each sends its largest values, so that all know the bar. Of several values that equal it, all are kept.
        """
        wanted = k * len(hidden) * self.count
        largest = hidden.new_full((wanted,), -torch.inf)
        own = hidden.flatten().topk(min(wanted, hidden.numel()), sorted=False).values
        largest[: len(own)] = own
        every = [torch.empty_like(largest) for _ in range(self.count)]
        dist.all_gather(every, largest)
        bar = torch.cat(every).topk(wanted, sorted=False).values.min()
        rows, columns = (hidden >= bar).nonzero(as_tuple=True)
        starts = torch.zeros(len(hidden) + 1, dtype=torch.long, device=hidden.device)
        starts[1:] = torch.bincount(rows, minlength=len(hidden)).cumsum(0)
        return Selection(starts, columns, rows)


ALONE = Processes()
