import pytest

from experiments.cli.commands.train_sae import said_of_idle_flags, said_of_silence, swept
from mechinterp.errors import ConfigError
from sparse_autoencoders.config import TrainSAEConfig


def test_every_combination_has_a_folder_of_its_own():
    configs = swept(TrainSAEConfig(epochs=3), ["k=16,32", "batch-size=64", "arch=topk,batchtopk"])
    assert list(configs) == [
        "k-16_batch-size-64_arch-topk",
        "k-16_batch-size-64_arch-batchtopk",
        "k-32_batch-size-64_arch-topk",
        "k-32_batch-size-64_arch-batchtopk",
    ]
    assert [(c.k, c.arch, c.epochs) for c in configs.values()][1] == (16, "batchtopk", 3)


def test_without_a_sweep_there_is_one_without_a_name():
    assert list(swept(TrainSAEConfig(), [])) == [""]


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("kk=1", r"^--sweep kk=1: no setting 'kk' to sweep; [^\n]*$"),
        ("k=one", "^--sweep k=one: 'one' is no int$"),
        ("lr=fast", "^--sweep lr=fast: 'fast' is no float$"),
        ("k=", "^--sweep k=: give values, as k="),
        ("seeds=1,2", "no setting 'seeds' to sweep"),
        ("arch=topp", "unknown architecture 'topp'"),
        ("skip=maybe", "^--sweep skip=maybe: 'maybe' is neither true nor false$"),
    ],
)
def test_what_cannot_be_swept_is_one_line(sweep, message):
    with pytest.raises(ConfigError, match=message):
        swept(TrainSAEConfig(), [sweep])


def test_what_is_on_or_off_is_swept_as_such():
    assert {name: config.skip for name, config in swept(TrainSAEConfig(), ["skip=false,True"]).items()} == {
        "skip-false": False,
        "skip-true": True,
    }


def test_a_setting_named_twice_takes_the_values_of_both():
    assert list(swept(TrainSAEConfig(), ["k=16", "k=32,16"])) == ["k-16", "k-32"]


def test_a_setting_that_may_be_left_out_is_a_number_too():
    assert swept(TrainSAEConfig(), ["clip=0.5"])["clip-0.5"].clip == 0.5
    assert swept(TrainSAEConfig(), ["steps=7"])["steps-7"].steps == 7


def test_many_dead_features_are_said_with_what_helps_and_few_are_not():
    configs = {"": TrainSAEConfig(arch="batchtopk", wake=0.0)}
    said = said_of_silence({"seed-0": 0.5, "seed-1": 0.93}, configs)
    assert said.startswith("93% of the features of seed-1 are dead: without --wake 0 ")
    assert said_of_silence({"seed-0": 0.1, "seed-1": 0.2}, configs) is None


def test_nothing_is_advised_to_who_woke_them_or_cannot():
    configs = {
        "wake-0.0": TrainSAEConfig(wake=0.0),
        "wake-0.1": TrainSAEConfig(),
        "arch": TrainSAEConfig(arch="matching-pursuit", wake=0.0),
    }
    silent = {f"{name}/seed-0": 0.9 for name in configs}
    assert "of wake-0.0/seed-0 are dead" in said_of_silence(silent, configs)
    del silent["wake-0.0/seed-0"]
    assert said_of_silence(silent, configs) is None


def test_a_flag_that_does_not_act_is_said():
    said = said_of_idle_flags({"": TrainSAEConfig(aux=0.03)})
    assert said == "--aux 0.03 does not act on topk while silent features are woken: --wake 0 lets it"
    assert said_of_idle_flags({"": TrainSAEConfig(arch="archetypal", aux=0.03)}) is None
    assert said_of_idle_flags({"": TrainSAEConfig(aux=0.03, wake=0.0)}) is None
    assert said_of_idle_flags({"": TrainSAEConfig()}) is None
