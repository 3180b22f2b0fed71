"""Shards made as Ray tasks have the bytes of the local engine's, on one node or two, with a worker killed on the way."""

from __future__ import annotations

import functools
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch

from experiments.engine.ray_engine import RayConfig, _importable, ray_map
from mechinterp.capturing import capture
from mechinterp.errors import ConfigError, MissingDependencyError, ModelError
from mechinterp.images.image_set import ImageSet

sys.path.insert(0, str(Path(__file__).parents[2] / "mechinterp" / "store"))
from tiny_capture import config, tiny_images, tiny_model, tree

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local") / "store"
    capture(tiny_model(), tiny_images(), out=folder, config=config(threads=1))
    return tree(folder)


@pytest.mark.slow
def test_one_machine_makes_the_same_bytes_with_a_worker_killed_and_an_error_is_the_users(tmp_path, local):
    images = tiny_images()
    died = tmp_path / "died"

    def read(i):
        if i == 20 and not died.exists():
            died.write_text("once")
            os.kill(os.getpid(), signal.SIGKILL)
        return images.read(i)

    deadly = ImageSet(**{**vars(images), "read": read})
    engine = ray_map(RayConfig(workers=2))
    capture(tiny_model(), deadly, out=tmp_path / "store", config=config(threads=1), mapper=engine)
    assert died.exists()
    assert tree(tmp_path / "store") == local
    with pytest.raises(ModelError, match=r"beyond float16 for image 'image-\d+': store it with"):
        capture(
            tiny_model(scale=1e6), images, out=tmp_path / "b", config=config(threads=1, dtype="float16"), mapper=engine
        )


@pytest.mark.slow
def test_a_cluster_of_two_nodes_makes_the_same_bytes(tmp_path, local):
    import ray
    from ray.cluster_utils import Cluster

    where = tmp_path / "where"
    where.mkdir()
    images = tiny_images()

    def read(i):
        (where / f"{os.environ.get('RAY_NODE_ID', '')}{ray.get_runtime_context().get_node_id()}").touch()
        return images.read(i)

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        capture(
            tiny_model(),
            ImageSet(**{**vars(images), "read": read}),
            out=tmp_path / "store",
            config=config(threads=1),
            mapper=ray_map(RayConfig(address=cluster.address)),
        )
    finally:
        if ray.is_initialized():
            ray.shutdown()
        cluster.shutdown()
    assert len(list(where.iterdir())) == 2  # both nodes took part
    assert tree(tmp_path / "store") == local


class FakeRay:
    """As much of Ray as the engine asks for, in this process."""

    class exceptions:  # noqa: N801
        class RayTaskError(Exception):
            def __init__(self, cause):
                self.cause = cause

        class WorkerCrashedError(Exception):
            pass

        class NodeDiedError(Exception):
            pass

        class ObjectLostError(Exception):
            pass

        class OutOfMemoryError(Exception):
            pass

    class cloudpickle:  # noqa: N801
        by_value: list = []

        @classmethod
        def register_pickle_by_value(cls, module):
            cls.by_value.append(module.__name__)

        @classmethod
        def unregister_pickle_by_value(cls, module):
            pass

    def __init__(self, fail=None, start=None):
        self.fail, self.start, self.started, self.most, self.asked = fail, start, 0, 0, {}

    def is_initialized(self):
        return False

    def init(self, **given):
        if self.start:
            raise self.start
        self.started += 1
        self.given = given

    def shutdown(self):
        self.started -= 1

    def put(self, work):
        return work

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, **asked):
        self.asked = asked

        def wrap(function):
            class Task:
                @staticmethod
                def remote(*given):
                    return functools.partial(function, *given)

            return Task

        return wrap

    def wait(self, waiting, num_returns):
        self.most = max(self.most, len(waiting))
        return [waiting[-1]], waiting[:-1]

    def get(self, done):
        if self.fail:
            raise self.fail
        return done()


def made_on(monkeypatch, fake, folder, **settings):
    monkeypatch.setitem(sys.modules, "ray", fake)
    return capture(
        tiny_model(), tiny_images(), out=folder, config=config(threads=1), mapper=ray_map(RayConfig(**settings))
    )


def test_in_any_order_and_with_no_more_at_once_than_asked_for(monkeypatch, tmp_path, local):
    fake = FakeRay()
    made_on(monkeypatch, fake, tmp_path / "store", workers=2, gpus_per_task=0.5)
    assert tree(tmp_path / "store") == local
    assert fake.most == 2
    assert fake.started == 0  # what was started was ended
    assert fake.asked == {"num_cpus": 1, "num_gpus": 0.5, "max_retries": 3}
    assert fake.given["include_dashboard"] is False
    assert fake.given["address"] == "local"  # never whatever cluster it finds
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "tiny_capture" in FakeRay.cloudpickle.by_value
    made_on(monkeypatch, FakeRay(start=AssertionError("nothing is left to do")), tmp_path / "store")


@pytest.mark.parametrize(
    ("fake", "error", "message"),
    [
        (
            FakeRay(start=ConnectionError("nobody there\nat all")),
            ConfigError,
            r"no Ray cluster at 'auto' \(nobody there\)",
        ),
        (FakeRay(fail=FakeRay.exceptions.RayTaskError(ModelError("image 3"))), ModelError, "image 3"),
        (FakeRay(fail=FakeRay.exceptions.WorkerCrashedError()), ConfigError, r"lost the workers of shard \d 4 times"),
        (FakeRay(fail=FakeRay.exceptions.OutOfMemoryError()), ConfigError, "ran out of memory: take fewer --workers"),
        (FakeRay(fail=FakeRay.exceptions.RayTaskError(ZeroDivisionError())), FakeRay.exceptions.RayTaskError, ""),
    ],
)
def test_what_goes_wrong_elsewhere_is_told_in_one_line(monkeypatch, tmp_path, fake, error, message):
    with pytest.raises(error, match=message) as caught:
        made_on(monkeypatch, fake, tmp_path / "store", address="auto")
    assert "\n" not in str(caught.value)
    assert fake.started == 0


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"ray is not installed: pip install 'mechinterp-vision\[ray\]'"):
        ray_map()


@pytest.mark.parametrize("settings", [{"workers": -1}, {"gpus_per_task": -0.5}])
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(ConfigError, match="must be at least 0"):
        RayConfig(**settings)


def test_only_what_is_installed_is_importable_elsewhere():
    assert _importable("torch.nn.modules.linear")
    assert _importable("mechinterp.capturing")
    assert _importable("json")
    assert not _importable("tiny_capture")
    assert not _importable("mechinterp_user_net_0123abcd")
    assert torch.nn.Linear.__module__ == "torch.nn.modules.linear"


def test_where_nobody_listens_is_told_at_once(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(
        ConfigError, match=rf"no Ray cluster at '{address}' \(.*refused\): start one with `ray start --head`"
    ):
        made_on(monkeypatch, FakeRay(start=AssertionError("asked all the same")), tmp_path, address=address)
