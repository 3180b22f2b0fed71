"""A training killed at any step goes on to the same bits; sweeps share a stream and nothing else."""

import dataclasses
import signal

import pytest
import torch
from memory_store import MemoryStore, sparse_combinations

from mechinterp.errors import ConfigError, DamagedFileError, ImagesError
from sparse_autoencoders import checkpoint
from sparse_autoencoders.config import TrainSAEConfig
from sparse_autoencoders.schedules import active_features, learning_rate
from sparse_autoencoders.single_training import SingleTraining
from sparse_autoencoders.training import train_saes, train_sweep

FAST = {"k": 3, "expansion": 2, "epochs": 6, "batch_size": 128, "lr": 3e-3}


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def store():
    return MemoryStore(sparse_combinations(50, 40)[0], splits=["train"] * 40 + ["test"] * 10)


def killed_after(monkeypatch, step):
    """Save a checkpoint at every step, and die when one step's is whole."""
    save = checkpoint.save_checkpoint

    def dying(folder, made_from, record, tensors):
        save(folder, made_from, record, tensors)
        if record["step"] == step:
            raise KilledError

    monkeypatch.setattr("sparse_autoencoders.training.save_checkpoint", dying)


@pytest.mark.parametrize(
    "arch",
    [
        "topk",
        "matryoshka",
        "gated",
        *(pytest.param(a, marks=pytest.mark.slow) for a in ("batchtopk", "standard", "jumprelu")),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bits(store, tmp_path, monkeypatch, arch):
    # restarts, averages and early stopping all have a state of their own
    settings = {**FAST, "arch": arch, "seeds": (0, 3), "ema": 0.9, "patience": 3, "init": "neurons", "anneal_k": 2.0}
    whole = train_saes(store, **settings)
    for step in (13, 44):
        with monkeypatch.context() as patch:
            killed_after(patch, step)
            with pytest.raises(KilledError):
                train_saes(store, **settings, checkpoint_minutes=1e-9, out=tmp_path)
    resumed = train_saes(store, **settings, out=tmp_path)
    for a, b in zip(whole, resumed, strict=True):
        assert a.weights_hash == b.weights_hash
        assert a.provenance["curve"] == b.provenance["curve"]
        assert a.provenance["restarted"] == b.provenance["restarted"]
    assert whole[0].weights_hash != whole[1].weights_hash
    assert not (tmp_path / "checkpoint").exists()


def struck_in(monkeypatch, step, number, times=1):
    """Send this process a signal in the middle of a step, before its first seed takes it."""
    take = SingleTraining.step

    def struck(self, x, at, stream):
        if at + 1 == step and self.seed == 0:
            for _ in range(times):
                signal.raise_signal(number)
        take(self, x, at, stream)

    monkeypatch.setattr(SingleTraining, "step", struck)


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self):
        self.said = []

    def track(self, items, description, total=None):
        yield from items

    def note(self, text):
        self.said.append(text)


def test_an_interruption_waits_for_its_step_and_leaves_a_checkpoint(store, tmp_path, monkeypatch):
    settings, notes, seen = {**FAST, "seeds": (0, 3)}, Notes(), []
    whole = train_saes(store, **settings)
    before = signal.getsignal(signal.SIGINT)
    for step in (1, 44):  # before any checkpoint was due, and after going on
        with monkeypatch.context() as patch:
            struck_in(patch, step, signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                train_saes(store, **settings, out=tmp_path, progress=notes, watch=seen.append)
        assert f"stopped after step {step} of 72: {tmp_path / 'checkpoint'} holds where it was" in notes.said[-1]
        assert [p.name for p in tmp_path.rglob("*.safetensors")] == [f"step-{step}.safetensors"]
        assert seen[-1].step == step
        assert signal.getsignal(signal.SIGINT) is before
    resumed = train_saes(store, **settings, out=tmp_path)
    for a, b in zip(whole, resumed, strict=True):
        assert a.weights_hash == b.weights_hash
        assert a.provenance["curve"] == b.provenance["curve"]
    assert not (tmp_path / "checkpoint").exists()


def test_a_second_interruption_does_not_wait(store, tmp_path, monkeypatch):
    struck_in(monkeypatch, 3, signal.SIGINT, times=2)
    with pytest.raises(KeyboardInterrupt):
        train_saes(store, **FAST, out=tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_an_interruption_without_a_folder_does_not_wait(store, monkeypatch):
    steps = []
    monkeypatch.setattr(SingleTraining, "step", lambda *_args: (signal.raise_signal(signal.SIGINT), steps.append(1)))
    with pytest.raises(KeyboardInterrupt):
        train_saes(store, **FAST)
    assert steps == []


def test_what_ends_a_process_finds_a_checkpoint(store, tmp_path, monkeypatch):
    found = []
    before = signal.signal(signal.SIGTERM, lambda *_args: found.extend(tmp_path.rglob("step-5.safetensors")))
    try:
        with monkeypatch.context() as patch:
            struck_in(patch, 5, signal.SIGTERM)
            train_saes(store, **FAST, out=tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(found) == 1


def test_an_unfinished_training_of_other_settings_is_not_written_over(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(KilledError):
            train_saes(store, **FAST, checkpoint_minutes=1e-9, out=tmp_path)
    with pytest.raises(ConfigError, match=r"^.*checkpoint holds an unfinished training with other settings[^\n]*$"):
        train_saes(store, **{**FAST, "lr": 1e-3}, out=tmp_path)
    # how often it is saved is no part of what it is
    assert train_saes(store, **FAST, checkpoint_minutes=7, out=tmp_path)[0].provenance["steps"] == 72


def test_a_damaged_checkpoint_is_named(store, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, 5)
        with pytest.raises(KilledError):
            train_saes(store, **FAST, checkpoint_minutes=1e-9, out=tmp_path)
    file = tmp_path / "checkpoint" / "step-5.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedFileError, match=r"step-5.safetensors does not match its checksum: remove"):
        train_saes(store, **FAST, out=tmp_path)
    file.unlink()
    with pytest.raises(DamagedFileError, match=r"step-5.safetensors is missing"):
        train_saes(store, **FAST, out=tmp_path)


def test_company_changes_nothing(store):
    alone = train_saes(store, **{**FAST, "seeds": (3,)})[0]
    among = train_saes(store, **{**FAST, "seeds": (0, 3)})[1]
    base = TrainSAEConfig(**FAST)
    sweep = {"k-3": dataclasses.replace(base, seeds=(3,)), "k-5": dataclasses.replace(base, k=5, arch="batchtopk")}
    swept = train_sweep(store, sweep)
    assert alone.weights_hash == among.weights_hash == swept[0].weights_hash
    assert swept[1].provenance["config"]["k"] == 5


def test_a_sweep_is_saved_by_name(store, tmp_path):
    base = TrainSAEConfig(**{**FAST, "epochs": 1})
    train_sweep(store, {"a": base, "b": dataclasses.replace(base, lr=1e-2, seeds=(0, 1))}, out=tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("*/*")) == [
        "a/seed-0",
        "b/seed-0",
        "b/seed-1",
    ]
    with pytest.raises(ConfigError, match="batch_size is 128 and 64: autoencoders on one stream share it"):
        train_sweep(store, {"a": base, "b": dataclasses.replace(base, batch_size=64)})


def test_training_stops_when_held_out_tokens_gain_no_more(store):
    notes = Notes()
    sae = train_saes(store, **{**FAST, "epochs": 60, "patience": 2, "lr": 3e-2, "decay": 0}, progress=notes)[0]
    assert sae.provenance["steps"] < 60 * 11
    assert any("held-out tokens gain no more" in note for note in notes.said)
    one = MemoryStore(store.acts[:1])
    with pytest.raises(ImagesError, match="early stopping wants held-out groups"):
        train_saes(one, k=2, expansion=1, patience=1)


def test_an_average_over_the_steps_is_smoother_than_the_last_step(store):
    long = {**FAST, "epochs": 25, "decay": 0, "lr": 3e-2}
    plain, averaged = (train_saes(store, **long, ema=ema)[0] for ema in (0.0, 0.95))
    variance = [s.provenance["metrics"]["train"]["explained_variance"] for s in (plain, averaged)]
    assert variance[1] > variance[0]
    assert torch.allclose(averaged.directions.norm(dim=-1), torch.ones(32), atol=1e-5)


def test_the_best_weights_are_never_some_that_had_more_features_than_is_saved(store):
    long = {**FAST, "epochs": 20, "patience": 20, "anneal_k": 4.0, "lr": 1e-2}
    sae = train_saes(store, **long)[0]
    # k falls over the first half
    assert sae.provenance["steps"] > 10 * 12
    free = train_saes(store, **{**long, "patience": 0})[0]
    explained = [s.provenance["metrics"]["train"]["explained_variance"] for s in (sae, free)]
    assert explained[0] > explained[1] - 0.02


def test_held_out_tokens_are_shown_to_the_average_where_that_is_saved(store, monkeypatch):
    looked = []
    look = SingleTraining.look_at_held_out

    def watched(training, rows, wanted, *args):
        reconstruct = training.learner.reconstruct
        before = {name: tensor.clone() for name, tensor in training.learner.trained().items()}

        def seeing(x):
            looked.append(torch.equal(training.learner.trained()["encoder"], training.average["encoder"]))
            return reconstruct(x)

        with monkeypatch.context() as patch:
            patch.setattr(training.learner, "reconstruct", seeing)
            look(training, rows, wanted, *args)
        assert all(torch.allclose(before[n], tensor, atol=1e-6) for n, tensor in training.learner.trained().items())

    monkeypatch.setattr(SingleTraining, "look_at_held_out", watched)
    train_saes(store, **FAST, ema=0.9, patience=3)
    assert looked
    assert all(looked)


def test_a_long_average_of_a_short_training_is_not_its_beginning(store):
    short = {**FAST, "epochs": 10}
    plain, averaged = (train_saes(store, **short, ema=ema)[0] for ema in (0.0, 0.9999))
    variance = [s.provenance["metrics"]["train"]["explained_variance"] for s in (plain, averaged)]
    assert variance[1] > variance[0] - 0.1


def test_the_watcher_sees_the_end(store):
    seen = []
    train_saes(store, **{**FAST, "seeds": (0, 1)}, watch=seen.append)
    assert seen[-1].step == seen[-1].steps == 6 * 12
    assert list(seen[-1].curves) == ["seed-0", "seed-1"]
    assert seen[-1].curves["seed-1"]["step"][-1] == 72
    assert seen[-1].silent_epochs["seed-0"].shape == (32,)
    assert seen[-1].rows_per_second > 0


@pytest.mark.parametrize("arch", ["topk", "batchtopk", "matching-pursuit", "standard", "archetypal"])
def test_the_watcher_sees_how_often_each_feature_is_active(store, arch):
    seen = []
    sae = train_saes(store, **{**FAST, "arch": arch, "epochs": 3}, watch=seen.append)[0]
    density = seen[-1].densities["seed-0"]
    rows = store.rows("site")
    expected = (sae.encode(rows) > 0).double().mean(0)
    assert density.shape == (32,)
    assert density.sum() == pytest.approx(float(expected.sum()), rel=0.1)
    assert float(torch.corrcoef(torch.stack([torch.from_numpy(density), expected]))[0, 1]) > 0.95


def test_learning_rate_and_k_follow_their_schedules():
    config = TrainSAEConfig(lr=1.0, warm_up=0.1, decay=0.2, k=10, anneal_k=3.0)
    rates = [learning_rate(at, 100, config) for at in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10:80] == [1.0] * 70
    assert rates[80] == pytest.approx(20 / 21)
    assert rates[-1] == pytest.approx(1 / 21)
    cosine = [learning_rate(at, 100, dataclasses.replace(config, schedule="cosine", decay=0.0)) for at in range(100)]
    assert cosine[55] == pytest.approx(0.5)
    assert cosine[-1] < 0.001
    assert [active_features(at, 100, config, 1000) for at in (0, 25, 50, 99)] == [30, 20, 10, 10]
    assert active_features(0, 100, config, 24) == 24


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clip", 0.0, "clip is 0.0: it must be above 0, or left out"),
        ("ema", 1.0, "ema is 1.0: it must be at least 0 and below 1"),
        ("prefixes", (0.5, 0.25, 1.0), "prefixes are 0.5, 0.25, 1.0: each larger than the last, the last 1"),
        ("prefixes", (0.0, 1.0), "the first prefix is 0.0: it must be above 0"),
        ("schedule", "cosin", "unknown schedule 'cosin': did you mean 'cosine'"),
        ("patience", -1, "patience is -1: it must not be negative"),
        ("anneal_k", 0, "anneal_k is 0: it must be above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_one_line(field, value, message):
    with pytest.raises(ConfigError, match=message):
        TrainSAEConfig(**{field: value})
