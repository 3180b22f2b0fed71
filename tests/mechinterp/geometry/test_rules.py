import torch

from mechinterp.geometry.call import Call
from mechinterp.geometry.rules import RULES, geometry_after, is_pointwise
from mechinterp.geometry.spans import Geometry, Span, plain, row

IMAGE = Geometry((plain(1), plain(2), row(Span(0, 4, 1, 0, 1)), row(Span(1, 4, 1, 0, 1))))


def call(name, output, **given):
    x = torch.zeros(1, 2, 4, 4)
    return Call(name, {"self": x, **given}, lambda t: IMAGE if t is x else None, [output])


def test_an_overload_with_other_arguments_is_taken_to_mix_everything():
    (found,) = geometry_after(call("permute", torch.zeros(4, 4)), pointwise=False)
    assert found == Geometry((plain(4), plain(4)), frozenset({0, 1}))


def test_a_rule_whose_answer_has_another_shape_is_not_believed():
    (found,) = geometry_after(call("clone", torch.zeros(3)), pointwise=False)
    assert found == Geometry((plain(3),), frozenset({0, 1}))


def test_an_operator_is_pointwise_if_pytorch_says_so():
    assert is_pointwise(torch.ops.aten.gelu.default)
    assert not is_pointwise(torch.ops.aten.mm.default)
    x = torch.zeros(1, 2, 4, 4)
    known = Call("no_such_operator", {"self": x}, lambda t: IMAGE, [x])
    assert geometry_after(known, pointwise=True) == [IMAGE]
    assert geometry_after(known, pointwise=False)[0].everywhere == {0, 1}


def test_further_outputs_have_no_place():
    x = torch.zeros(1, 2, 4, 4)
    norm = Call(
        "native_batch_norm", {"input": x, "training": False}, lambda t: IMAGE if t is x else None, [x, torch.zeros(2)]
    )
    first, second = geometry_after(norm, pointwise=False)
    assert first == IMAGE
    assert second.dims == (plain(2),)


def test_every_rule_names_an_operator_of_pytorch():
    missing = {name for name in RULES if not hasattr(torch.ops.aten, name) and not hasattr(torch.ops.aten, f"{name}_")}
    assert not missing
