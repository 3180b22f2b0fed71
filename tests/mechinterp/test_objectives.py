import pytest
import torch
from torch import nn

from mechinterp.errors import ConfigError
from mechinterp.models.vision_model import InputContract, VisionModel
from mechinterp.objectives import logit, logit_difference, probability

LOGITS = torch.tensor([[3.0, 1.0, -1.0], [0.0, 0.0, 0.0]])


def a_model(activation="softmax"):
    return VisionModel(
        nn.Identity(), "py:toy", InputContract(4, 4), ("tumour", "none", "cyst"), "logits", activation=activation
    )


def test_values_known_by_hand():
    assert logit(2)(LOGITS).tolist() == [-1, 0]
    assert logit_difference(0, 2)(LOGITS).tolist() == [4, 0]
    assert probability(1)(LOGITS)[1].item() == pytest.approx(1 / 3)


def test_any_leading_axes_are_kept():
    assert logit_difference(0, 1)(LOGITS.expand(5, 4, 2, 3)).shape == (5, 4, 2)


def test_names_become_outputs_of_the_model():
    objective = logit_difference("cyst", "tumour").resolve(a_model())
    assert objective.classes == (2, 0)
    assert objective.name == "logit cyst − logit tumour"
    assert objective(LOGITS).tolist() == [-4, 0]
    assert logit(1).resolve(a_model()).name == "logit of none"


def test_probability_follows_the_model():
    assert probability("tumour").resolve(a_model("sigmoid"))(LOGITS)[1].item() == pytest.approx(0.5)


def test_logit_differences_do_not_notice_a_shift():
    assert torch.allclose(logit_difference(0, 1)(LOGITS + 7), logit_difference(0, 1)(LOGITS))


def test_a_name_without_a_model_says_what_to_do():
    with pytest.raises(ConfigError, match=r"call .resolve\(model\) first, so that 'tumour'"):
        logit("tumour")(LOGITS)


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'tumour'"):
        logit("tumor").resolve(a_model())


def test_a_wrong_output_is_named():
    with pytest.raises(ConfigError, match="outputs 0 to 2, not 3"):
        logit(3).resolve(a_model())


def test_the_difference_to_itself_is_refused():
    with pytest.raises(ConfigError, match="always 0"):
        logit_difference("none", "none")
