"""Circuits of a run are tested under all four ablations, each image's counterfactual a real one of another patient."""

import numpy as np
import pytest
import torch

from circuits import find_circuit
from circuits.finding_config import FindConfig
from circuits.inputs import Batch
from circuits.planted.random_circuits import RandomCircuitConfig, random_circuit
from experiments.analysis.held_out_circuits import answered_otherwise, measured_alone
from mechinterp import logit


class Sign:
    """Answers 1 where the first pixel is above 0."""

    activation = "softmax"

    def logits(self, x):
        return torch.stack([torch.zeros(len(x)), x[:, 0, 0, 0]], 1)


def pixel(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def test_a_partner_is_the_nearest_of_another_patient_that_is_answered_otherwise():
    images = Batch(pixel(1.0, -1.0, 3.0), np.array(["a", "a", "b"]))
    others = Batch(pixel(-2.0, 2.0, -0.5), np.array(["c", "c", "b"]))
    # -1 is the first one's own patient's; -0.5 is nearer than -2; of the last one's, -0.5 is the own patient's
    assert answered_otherwise(Sign(), images, others).tolist() == [5, 4, 1]


def test_where_all_are_answered_alike_there_is_none():
    images, others = Batch(pixel(1.0, 2.0), np.array([0, 1])), Batch(pixel(3.0), np.array([2]))
    assert answered_otherwise(Sign(), images, others) is None


class Findings:
    """One finding where the first pixel is above 0, and, where there are two, another above 2."""

    activation = "sigmoid"

    def __init__(self, outputs):
        self.outputs = outputs

    def logits(self, x):
        return torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 0] - 2][: self.outputs], 1)


@pytest.mark.parametrize(
    ("outputs", "about", "partners"), [(1, None, [3, 3]), (2, None, [1, 0]), (2, [0], [3, 3]), (2, [1], [1, 0])]
)
def test_findings_are_answered_otherwise_each_by_its_own_half(outputs, about, partners):
    images, others = Batch(pixel(1.0, 3.0), np.array([0, 1])), Batch(pixel(-2.0, -1.5), np.array([2, 3]))
    assert answered_otherwise(Findings(outputs), images, others, about=about).tolist() == partners


@pytest.mark.parametrize("constant", [False, True])
def test_a_true_circuit_keeps_the_answer_under_all_four(constant):
    planted = random_circuit(RandomCircuitConfig(kind="cnn"), seed=3)
    shown, held = planted.images(40, seed=1), planted.images(12, seed=5)
    config = FindConfig(method="attribution" if constant else "exact", threshold=0.001, boot=100)
    circuit = find_circuit(
        planted.model,
        shown.x,
        metric=logit(1),
        sites=planted.sites,
        groups=shown.groups,
        config=config,
    )
    held_x = held.x[:1].repeat(12, 1, 1, 1) if constant else held.x
    others = Batch(held_x, held.groups + 1000) if constant else Batch(shown.x, shown.groups + 1000)
    notes = []

    class Noted:
        def track(self, things, *_):
            return things

        def note(self, text):
            notes.append(text)

    found = measured_alone(circuit, Batch(held_x, held.groups), others, random_circuits=0, progress=Noted())
    names = [u.ablation.name for u in found.under]
    if constant:
        assert "counterfactual" not in names
        assert "the same answer" in notes[0]
        return
    assert names == ["zero", "mean", "resample", "counterfactual"]
    values = [u.faithfulness.value for u in found.under]
    assert 0.9 < min(values) <= max(values) < 1.1
