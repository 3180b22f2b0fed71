import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import one_thread

from circuits.planted.by_hand import hand_made_cnn, hand_made_vit
from circuits.planted.cnn import planted_cnn
from circuits.planted.dictionary import KnownDictionary, spread_directions
from circuits.planted.pictures import draw_images, pattern_names, patterns, shown_with
from circuits.planted.plan import (
    CircuitPlan,
    Gate,
    and_gate,
    backup_gate,
    inhibit_gate,
    nor_gate,
    sum_gate,
    threshold_gate,
)
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from circuits.planted.scoring import f1, score_edges
from circuits.planted.vit import planted_vit
from mechinterp.capturing import run_with_cache
from mechinterp.errors import ConfigError


@pytest.fixture(autouse=True, scope="module")
def _alone():
    with one_thread():
        yield


def truth_table(gate, *rows):
    names = tuple(gate.weights)
    plan = CircuitPlan(names, (gate,), {gate.name: 1.0})
    return [round(float(v), 9) for v in plan.values(np.array(rows, dtype=float))[gate.name]]


def test_gates_do_what_they_are_called():
    four = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert truth_table(and_gate("g", 1, ["a", "b"]), *four) == [0, 0, 0, 0.7]
    assert truth_table(nor_gate("g", 1, ["a", "b"]), *four) == [1, 0, 0, 0]
    assert truth_table(sum_gate("g", 1, {"a": 1.0, "b": 2.0}), *four) == [0, 2, 1, 3]
    assert truth_table(inhibit_gate("g", 1, "a", "b"), *four) == [0, 0, 1, 0]
    assert truth_table(backup_gate("g", 1, "a", "b"), *four) == [0, 0, 1, 0]
    assert truth_table(threshold_gate("g", 1, "a", 0.5), (0,), (0.5,), (1,)) == [0, 0, 1]


@pytest.mark.parametrize("make", [hand_made_cnn, hand_made_vit], ids=["cnn", "vit"])
def test_hand_made_models_give_the_logit_in_closed_form(make):
    planted = make()
    images = planted.images(40, seed=5)
    logits = planted.model.logits(images.x)
    assert np.abs(logits[:, 1].numpy() - planted.logit(images)).max() < 1e-12
    assert not logits[:, 0].any()


@settings(max_examples=8)
@given(
    kind=st.sampled_from(["cnn", "vit"]),
    seed=st.integers(0, 10_000),
    depth=st.integers(1, 3),
    superposition=st.sampled_from([1.0, 1.5, 2.0]),
)
def test_random_models_give_the_logit_in_closed_form(kind, seed, depth, superposition):
    planted = random_circuit(
        RandomCircuitConfig(kind=kind, depth=depth, superposition=superposition, least_effect=0), seed=seed
    )
    images = planted.images(8, seed=seed)
    assert np.abs(planted.model.logits(images.x)[:, 1].numpy() - planted.logit(images)).max() < 1e-10


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_every_unit_has_its_value_where_the_model_says_it_is(kind):
    planted = random_circuit(RandomCircuitConfig(kind=kind), seed=4)
    images = planted.images(6, seed=2)
    values = planted.plan.values(images.amplitudes)
    acts = run_with_cache(planted.model, images.x, list(planted.sites))
    for gate in planted.plan.gates:
        site, unit = planted.places[gate.name][-1]
        # of a ViT CLS alone is read; a CNN's gates have one cell
        assert np.allclose(acts[site][:, 0, unit].numpy(), values[gate.name], atol=1e-10)
    site, unit = planted.places[planted.plan.inputs[0]][0]
    assert np.allclose(acts[site][:, :, unit].sum(1).numpy(), images.amplitudes[:, 0], atol=1e-10)


def test_distractors_are_decodable_but_nothing_reads_them():
    planted = hand_made_cnn()
    images = planted.images(30, seed=2)
    acts = run_with_cache(planted.model, images.x, ["gates.1"])["gates.1"]
    decoy = planted.places["decoy 2"][0]
    shown = images.amplitudes[:, list(planted.plan.inputs).index("horizontal edge")]
    texture = images.amplitudes[:, list(planted.plan.inputs).index("texture 1")]
    assert np.allclose(acts[:, 0, decoy[1]].numpy(), shown + texture)
    assert decoy not in planted.true_nodes
    assert not [edge for edge in planted.true_edges if decoy in edge]


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_every_edge_of_a_random_circuit_matters(kind):
    planted = random_circuit(RandomCircuitConfig(kind=kind, depth=3), seed=11)
    amplitudes = planted.images(200, seed=9).amplitudes
    assert min(planted.plan.edge_effects(amplitudes).values()) > 0
    assert planted.plan.edges.keys() == planted.plan.edge_effects(amplitudes).keys()


def test_a_sought_patch_takes_the_attention_that_the_softmax_gives():
    planted = hand_made_vit(sharpness=3.0)
    images = planted.images(10, seed=1, present=1.0)
    tag = list(planted.plan.inputs).index("tag")
    site, unit = planted.places["tag"][1]
    acts = run_with_cache(planted.model, images.x, [site])[site]
    a = images.amplitudes[:, tag]
    assert np.allclose(acts[:, 0, unit].numpy(), a * np.exp(3 * a) / (np.exp(3 * a) + 16))


def test_patterns_do_not_see_each_other_and_look_like_their_names():
    shapes = patterns(9, 6).reshape(9, -1)
    assert np.allclose(shapes @ shapes.T, np.eye(9))
    blob, vertical = patterns(2, 7)
    assert blob.argmax() == 24  # the middle
    assert (vertical[:, 4:] > vertical[:, :3]).all()
    assert pattern_names(8)[-2:] == ("texture 1", "texture 2")


def test_the_same_seed_draws_the_same_images_and_two_are_of_one_patient():
    shapes = patterns(3, 4)
    one, again = (draw_images(shapes, 2, 6, seed=3) for _ in range(2))
    assert torch.equal(one.x, again.x)
    assert one.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(one) == 6


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_a_counterfactual_shows_what_was_absent_where_it_lies_and_nothing_else(kind):
    planted = random_circuit(RandomCircuitConfig(kind=kind), seed=1)
    images = planted.images(6, seed=2)
    other = planted.counterfactual(images)
    assert ((other.amplitudes > 0) == (images.amplitudes == 0)).all()
    with torch.no_grad():
        said = planted.model.logits(other.x)[:, 1].numpy()
    assert np.abs(said - planted.logit(other)).max() < 1e-9
    size = planted.shapes.shape[1]
    for i, at in ((0, 0), (3, 2)):
        row, column = (int(k) * size for k in images.cells[i, at])
        tile = (other.x - images.x)[i, 0, row : row + size, column : column + size].numpy()
        step = other.amplitudes[i, at] - images.amplitudes[i, at]
        assert np.abs(tile - step * planted.shapes[at]).max() < 1e-9
    untouched = shown_with(images, planted.shapes, images.amplitudes)
    assert torch.equal(untouched.x, images.x)


def test_directions_are_orthogonal_while_they_can_be_and_spread_otherwise():
    few = spread_directions(3, 5, seed=0)
    assert torch.allclose(few @ few.T, torch.eye(3, dtype=torch.float64))
    many = spread_directions(6, 4, seed=0)
    random = torch.nn.functional.normalize(
        torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1
    )
    worst = (many @ many.T - torch.eye(6)).abs().max()
    assert worst < (random @ random.T - torch.eye(6)).abs().max()


def test_a_known_dictionary_reads_what_was_written_alone():
    dictionary = KnownDictionary("s", spread_directions(6, 4, seed=1))
    codes = torch.eye(6, dtype=torch.float64)
    assert torch.allclose(dictionary.encode(dictionary.decode(codes)).diagonal(), torch.ones(6, dtype=torch.float64))
    assert (dictionary.d_in, dictionary.width) == (4, 6)
    assert len(dictionary.weights_hash) == 64


def test_what_cannot_be_planted_is_refused():
    skipping = CircuitPlan(("a",), (sum_gate("g", 1, {"a": 1.0}), sum_gate("h", 2, {"a": 1.0})), {"h": 1.0})
    with pytest.raises(ConfigError, match="reads 'a' of layer 0: a CNN without skips needs a carry gate"):
        planted_cnn(skipping)
    with pytest.raises(ConfigError, match="give one of the patterns a"):
        planted_vit(skipping, seek={"b": 1.0})
    with pytest.raises(ConfigError, match="40 patterns do not fit a cell of 6 × 6"):
        patterns(40, 6)
    with pytest.raises(ConfigError, match="5 patterns do not fit 2 × 2 cells"):
        draw_images(patterns(5, 6), 2, 4, seed=0)
    with pytest.raises(ConfigError, match="depth is 0"):
        RandomCircuitConfig(depth=0)
    with pytest.raises(ConfigError, match=r"superposition is 0\.5"):
        RandomCircuitConfig(superposition=0.5)
    with pytest.raises(ConfigError, match="no circuit of this shape was found"):
        random_circuit(RandomCircuitConfig(inputs=2, gates=1, depth=1, distractors=0, least_effect=100))


def test_scores_by_hand():
    assert f1({1, 2}, {2, 3}) == 0.5
    assert f1(set(), set()) == 1
    planted = planted_cnn(CircuitPlan(("a", "b"), (Gate("g", "inhibit", 1, {"a": 1.0, "b": -2.0}),), {"g": 1.0}))
    a, b, g, m = ("detect", 0), ("detect", 1), ("gates.0", 0), ("metric", 0)
    found = score_edges(planted, {(a, g): 1, (b, g): 1, (g, m): 1})
    assert (found.nodes, found.edges, found.signs) == (1, 1, 2 / 3)
    assert score_edges(planted, {(a, g): 1, (a, m): 1}).missed == {(b, g), (g, m)}
