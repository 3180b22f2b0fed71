"""Make a store's shards as Ray tasks, on this machine or on a cluster: the same bytes as the local engine's.

A shard depends on the plan alone, so a task may be run again wherever its worker was lost. Every node must reach the store:
a disk that all share, or an object store by its URL.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mechinterp.errors import ConfigError, MechinterpError, MissingDependencyError

if TYPE_CHECKING:
    from mechinterp.store.writer import ShardReceipt

_EXTRA = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """Where shards are made, and how many at once; nothing of it reaches the store's files."""

    address: Annotated[str, "the cluster, as host:port or `auto`; empty: this machine alone"] = ""
    workers: Annotated[int, "shards made at once; 0: as many as the cluster has processors for"] = 0
    gpus_per_task: Annotated[float, "part of a GPU that each shard takes, such as 0.5"] = 0.0

    def __post_init__(self) -> None:
        for what in ("workers", "gpus_per_task"):
            if getattr(self, what) < 0:
                raise ConfigError(f"{what.replace('_', ' ')} is {getattr(self, what)}: it must be at least 0")


# Lost workers are replaced so often for one shard before its loss is taken for its own fault.
_RETRIES = 3


def ray_map(
    config: RayConfig | None = None,
) -> Callable[[Callable[[int], ShardReceipt], Sequence[int]], Iterator[ShardReceipt]]:
    """Return a mapper that makes shards as Ray tasks, in the order in which they are done.

    A Ray that is running in this process already is used and left running; another is started and ended with the capture.

    Raises
    ------
    MissingDependencyError
        If Ray is not installed.
    ConfigError
        When it is called: if no cluster is at the address, or a shard's workers die again and again.
    MechinterpError
        When it is called: what a task raises, as the local engine does.

    """
    config = config or RayConfig()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported
    try:
        import ray
    except ImportError:
        raise MissingDependencyError("ray", _EXTRA) from None

    def mapper(work: Callable[[int], ShardReceipt], shards: Sequence[int]) -> Iterator[ShardReceipt]:
        if not shards:
            return
        ours = not ray.is_initialized()
        if ours:
            _start(ray, config)
        try:
            yield from _shards(ray, work, shards, config)
        finally:
            if ours:
                ray.shutdown()

    return mapper


def _start(ray: Any, config: RayConfig) -> None:
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if config.address:
            _check_reachable(config.address)
            ray.init(address=config.address, log_to_driver=False, logging_level="ERROR")
        else:
            # without an address Ray would join whatever cluster it finds, and the images would leave this machine
            cores = max(config.workers, os.cpu_count() or 1)
            ray.init(address="local", num_cpus=cores, _node_ip_address="127.0.0.1", **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"no Ray cluster at '{config.address}' ({reason}): start one with `ray start --head`, or leave --address out"
        ) from error


def _check_reachable(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would try for minutes."""
    host, separator, port = address.rpartition("//")[2].rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_CONNECT).close()


_SECONDS_TO_CONNECT = 10


def _shards(
    ray: Any, work: Callable[[int], ShardReceipt], shards: Sequence[int], config: RayConfig
) -> Iterator[ShardReceipt]:
    threads = int(getattr(getattr(getattr(work, "writer", None), "plan", None), "threads", 1))
    task = ray.remote(num_cpus=threads, num_gpus=config.gpus_per_task or None, max_retries=_RETRIES)(_make)
    with _classes_travel_by_value(ray, work):
        sent = ray.put(work)
    at_once = config.workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    waiting: dict[Any, int] = {}
    left = list(reversed(shards))
    while waiting or left:
        while left and len(waiting) < at_once:
            shard = left.pop()
            waiting[task.remote(sent, shard)] = shard
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        shard = waiting.pop(done)
        yield _result(ray, done, shard)


def _make(work: Callable[[int], ShardReceipt], shard: int) -> ShardReceipt:
    return work(shard)


def _result(ray: Any, done: Any, shard: int) -> ShardReceipt:
    try:
        receipt: ShardReceipt = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, MechinterpError):
            raise cause from None  # as the local engine has it: the traceback of the worker is of no use to a user
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.ObjectLostError) as error:
        raise ConfigError(
            f"Ray lost the workers of shard {shard} {_RETRIES + 1} times: give them more memory, or fewer --workers; "
            "the same command goes on from there"
        ) from error
    except ray.exceptions.OutOfMemoryError as error:
        raise ConfigError(
            f"a worker of shard {shard} ran out of memory: take fewer --workers, or a smaller --batch-size"
        ) from error
    return receipt


@contextmanager
def _classes_travel_by_value(ray: Any, work: Any) -> Iterator[None]:
    """Send the classes of a user's own file with the model: no other machine can import them by their name."""
    parts = work.model.module.modules() if hasattr(work, "model") else ()
    names = {type(part).__module__ for part in parts} | {type(work).__module__}
    modules = [sys.modules[n] for n in sorted(names) if n in sys.modules and not _importable(n)]
    for module in modules:
        ray.cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            ray.cloudpickle.unregister_pickle_by_value(module)


def _importable(name: str) -> bool:
    """Tell whether every machine with this installation can import a module: not what lies in a user's own folder."""
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if found is None or found.origin is None:
        return False
    homes = [Path(path) for path in sysconfig.get_paths().values()]
    homes += [Path(p) for package in _PACKAGES for p in importlib.import_module(package).__path__]
    return found.origin in {"built-in", "frozen"} or any(Path(found.origin).is_relative_to(home) for home in homes)


_PACKAGES = ("mechinterp", "experiments")
