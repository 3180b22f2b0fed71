import pytest
import torch
from torch import nn

from mechinterp.errors import WeightsError
from mechinterp.models.fitting import classes_in, fit, load_into


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


@pytest.fixture
def trained():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.", "module.model.", "_orig_mod.module."])
def test_a_prefix_that_all_names_carry_is_stripped_and_noted(net, trained, prefix):
    notes = load_into(net, {prefix + k: v for k, v in trained.items()}, "w.pt")
    assert all(net.state_dict()[k].equal(v) for k, v in trained.items())
    assert notes == ((f"prefix '{prefix}' stripped from the names in w.pt",) if prefix else ())


def test_a_prefix_that_belongs_to_the_model_is_kept():
    module = nn.ModuleDict({"model": nn.Linear(2, 2)})
    state = {k: torch.ones_like(v) for k, v in module.state_dict().items()}
    assert fit(state, module.state_dict(), "w").state == state
    assert load_into(module, state, "w") == ()


def test_a_prefix_that_the_model_has_and_the_file_lacks_is_put_there(net, trained):
    module = nn.ModuleDict({"encoder": net})
    assert load_into(module, trained, "folder/w.pt") == ("names in w.pt put under 'encoder.'",)
    assert module.encoder[3].weight.equal(trained["3.weight"])


def test_a_head_beside_a_prefixed_backbone_is_kept(trained):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    state = {k if k.startswith("3.") else f"backbone.{k}": v for k, v in trained.items()}
    assert load_into(module, state, "w.pt") == ("prefix 'backbone.' stripped from the names in w.pt",)
    assert module[3].weight.equal(trained["3.weight"])


def test_what_a_checkpoint_holds_beside_the_network_is_left_out_and_counted(net, trained):
    others = {"text.weight": torch.zeros(2), "logit_scale": torch.zeros(1)}
    notes = load_into(net, {f"visual.{k}": v for k, v in trained.items()} | others, "clip.pt")
    assert notes[1] == "2 tensors in clip.pt are no part of the model and were left out (text.weight, logit_scale)"


def test_the_decoder_of_a_masked_autoencoder_is_left_out_and_counted(net, trained):
    state = trained | {"mask_token": torch.zeros(1), "decoder_blocks.0.weight": torch.zeros(1)}
    assert load_into(net, state, "mae.pth") == (
        "2 tensors in mae.pth are no part of the model and were left out (mask_token, decoder_blocks.0.weight)",
    )


def test_a_part_the_model_would_have_computed_with_is_never_left_out(net, trained):
    with pytest.raises(WeightsError, match=r"1 unexpected \(1\.gamma\)"):
        load_into(net, trained | {"1.gamma": torch.zeros(2)}, "w")


def test_a_student_and_its_teacher_in_one_file_are_not_told_apart_by_guess(net, trained):
    state = {f"{who}.{k}": v for k, v in trained.items() for who in ("student", "teacher")}
    with pytest.raises(WeightsError, match=r"holds the model more than once \(student\., teacher\.\): save the one"):
        load_into(net, state, "dino.pth")


def test_the_number_of_classes_is_read_off_a_head_that_alone_differs(net, trained):
    own = net.state_dict()
    assert classes_in(trained, own, "w") is None
    tuned = trained | {"3.weight": torch.zeros(5, 8), "3.bias": torch.zeros(5)}
    assert classes_in({f"module.{k}": v for k, v in tuned.items()}, own, "w") == 5
    assert classes_in(tuned | {"0.weight": torch.zeros(9, 1, 3, 3)}, own, "w") is None
    assert classes_in(trained | {"3.weight": torch.zeros(3, 9)}, own, "w") is None


def test_a_file_of_another_kind_of_model_says_so(net):
    with pytest.raises(
        WeightsError, match=r"0 have a match by name: it holds another kind of model \(its first name is a\.b\)"
    ):
        load_into(net, {"a.b": torch.zeros(1)}, "w")


def test_a_source_may_say_what_to_do(net, trained):
    del trained["0.weight"]
    with pytest.raises(WeightsError, match=r"match by name: the missing one is 0\.weight$"):
        load_into(net, trained, "w", lambda found: f"the missing one is {found.missing[0]}")


def test_what_does_not_fit_is_counted_and_listed(net, trained):
    wrong = {k: v for k, v in trained.items() if not k.startswith("1.")} | {
        "3.weight": torch.zeros(5, 8),
        "head.a": torch.zeros(1),
    }
    with pytest.raises(WeightsError) as caught:
        load_into(net, wrong, "other.safetensors")
    message = str(caught.value)
    assert message.startswith(
        "'other.safetensors' does not fit the model: 4 missing (1.weight, 1.bias, 1.running_mean, …)"
    )
    assert "1 unexpected (head.a)" in message
    assert "1 of another shape (3.weight (5, 8) for (3, 8))" in message
    assert "\n" not in message


def test_nothing_is_loaded_when_something_does_not_fit(net, trained):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(WeightsError):
        load_into(net, trained | {"extra": torch.zeros(1)}, "w")
    assert all(net.state_dict()[k].equal(v) for k, v in before.items())


def test_a_batch_norms_counter_may_be_missing(net, trained):
    load_into(net, {k: v for k, v in trained.items() if "num_batches" not in k}, "w")
    assert net[0].weight.equal(trained["0.weight"])
