"""Rendered stimuli and known voxels: three parts, true changes, and a network's cells at their place in degrees."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from experiments.analysis.stagewise import images_of
from experiments.run_directory import Run
from experiments.studies.brain_encoding import transparency
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.experiment import NOISE_REGION, simulated_experiment
from experiments.studies.brain_encoding.features import N_FEATURES, Driving, as_far, driving, moved_by, taken_away
from experiments.studies.brain_encoding.fits import Confirmed, Explored
from mechinterp.feature_encoder import Neurons
from mechinterp.models.loading import load_model
from mechinterp.phantoms.stimuli.voxels import record
from mechinterp.progress import SILENT
from mechinterp.reference import stimulus_networks
from probes.encoding import EncodingModel
from probes.encoding_scores import VoxelTest
from probes.receptive_fields import ReceptiveFields

CONFIG = BrainEncodingConfig(exemplars=80, subjects=1, voxels=5)


@pytest.fixture(scope="module")
def experiment():
    return simulated_experiment(CONFIG, SILENT)


@pytest.fixture(scope="module")
def bench(experiment, tmp_path_factory):
    model = load_model(f"py:{stimulus_networks.__file__}:stimulus_cnn", "random", seed=0)
    return EncodingBench(CONFIG, Run.create(tmp_path_factory.mktemp("run")), model, experiment, SILENT)


def test_no_exemplar_stands_in_two_parts(experiment):
    parts = [set(experiment.groups[p]) for p in (experiment.fit, experiment.check, experiment.confirm)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 80


def test_what_was_captured_can_be_opened_again_with_the_stimuli_confirmed_on_as_test(bench, experiment):
    store = bench.stored()
    images = images_of(store)
    order = np.concatenate([experiment.explored, experiment.confirm])
    assert list(images.ids) == [experiment.images.ids[i] for i in order]
    confirmed = {experiment.images.ids[i] for i in experiment.confirm}
    for splits in (images.splits, store.images["split"]):
        assert list(splits) == ["test" if name in confirmed else "train" for name in images.ids]
    assert not set(experiment.groups[experiment.explored]) & set(experiment.groups[experiment.confirm])
    # in the order of exploring first, whatever the stimuli's own
    for at in (0, len(order) - 1):
        assert images[at].pixels == pytest.approx(experiment.images[int(order[at])].pixels)


def test_voxels_of_noise_stand_beside_those_of_the_regions(experiment):
    assert experiment.regions == ("V1", "face", "scene")
    noise = experiment.of(NOISE_REGION)
    assert noise.sum() == 10
    assert np.isnan(experiment.truth.fields.up_deg[noise]).all()
    assert (experiment.truth.ceiling[noise] == 0).all()


def test_true_changes_are_none_where_nothing_is_changed_and_only_of_who_sees_it(experiment):
    parameters = experiment.truth.phantoms.parameters
    gabors = np.array([i for i, p in enumerate(parameters) if p.content == "gabor"])[:3]
    faces = np.array([i for i, p in enumerate(parameters) if p.content == "face" and p.right_deg < 2])[:4]
    (_, same), (moved, by_faces), (_, by_gabors) = experiment.truth.changes(
        [(faces, {}), (faces, {"right_deg": 1.5}), (gabors, {"contrast": -0.3})]
    )
    assert same == pytest.approx(np.zeros_like(same), abs=1e-9)
    assert [
        p.right_deg - parameters[i].right_deg for i, p in zip(faces, moved.parameters, strict=True)
    ] == pytest.approx([1.5] * 4)
    assert np.abs(by_faces[:, experiment.of("face")]).max() > 0.1
    # a fainter grating is seen by early voxels alone
    assert by_gabors[:, experiment.of("V1")].min() < 0
    assert by_gabors[:, experiment.of("face")] == pytest.approx(0, abs=1e-9)
    assert (by_faces[:, experiment.of(NOISE_REGION)] == 0).all()


def test_true_changes_are_those_of_a_recording_of_everything(experiment):
    """A slow twin: all stimuli and the changed ones shown together."""
    known = experiment.truth
    scenes = np.array([
        i for i, p in enumerate(known.phantoms.parameters) if p.content == "scene" and p.up_deg < 2
    ])[:5]  # fmt: skip
    ((changed, found),) = known.changes([(scenes, {"up_deg": 1.5})])
    together = dataclasses.replace(
        known.phantoms,
        **{
            name: (*getattr(known.phantoms, name), *getattr(changed, name))
            for name in ("parameters", "identities", "splits")
        },
    )
    signals = np.concatenate(record(together, known.study).signals, axis=1)
    n = len(known.phantoms)
    slow = (signals[n:] - signals[scenes]) / signals[:n].std(0)
    assert found[:, : slow.shape[1]] == pytest.approx(slow, abs=1e-6)


def test_cells_lie_where_they_look_in_degrees(bench):
    assert bench.in_degrees(np.array([[48.0, 48.0]])) == pytest.approx(np.zeros((1, 2)))
    # the first cell of 8 pixels: 44 pixels up, 44 to the left of fixation, 17 degrees over 96 pixels
    assert bench.places["stages.2"][0] == pytest.approx([44 * 17 / 96, -44 * 17 / 96])
    assert {name: len(at) for name, at in bench.places.items()} == {"stages.1": 24 * 24, "stages.2": 12 * 12}


def test_a_prediction_goes_through_features_as_its_gradient_says(bench, experiment):
    """With each unit a feature, what the features' site does not carry is what the earlier site does."""
    random = np.random.default_rng(0)
    n = len(experiment.region)
    fields = ReceptiveFields(random.uniform(-3, 3, n), random.uniform(-3, 3, n), np.full(n, 1.5))
    weights = random.standard_normal((32 + 64, n))
    weights[:32] = 0
    model = EncodingModel(bench.places, (32, 64), fields, weights, np.zeros(n), np.ones(n), np.ones(n))
    test = VoxelTest(np.ones(n), np.zeros(n), 0.0, np.zeros(1), 0.05, "none")
    found = driving(bench, Explored(model, model, model, {}, test), Neurons("stages.2", 64))
    assert set(found) == set(experiment.regions)
    for driven in found.values():
        # nothing goes past the site, so the units' shares are the whole
        assert driven.share.sum() == pytest.approx(1, abs=1e-4)
        assert (np.diff(driven.share[driven.features]) <= 0).all()


def test_taking_features_away_moves_the_activation_as_far_as_it_says(bench, experiment):
    neurons, chosen = Neurons("stages.2", 64), np.array([1, 2])
    mean = torch.zeros(64)
    seen = torch.from_numpy(bench.maps(bench.inputs(experiment.fit[:64]))["stages.2"])
    slow = (taken_away(neurons, chosen, mean)(seen.clone()) - seen).square().sum(-1).mean().sqrt()
    assert moved_by(bench, neurons, chosen, mean) == pytest.approx(float(slow), rel=1e-5)
    assert float(slow) == pytest.approx(float(seen[..., [1, 2]].square().sum(-1).mean().sqrt()), rel=1e-5)


def test_as_many_features_as_it_takes_move_as_far_and_none_goes_beyond_what_replaces_it(bench):
    neurons, mean, random = Neurons("stages.2", 64), torch.zeros(64), np.random.default_rng(0)
    seen = bench.maps(bench.inputs(bench.experiment.fit[:64]))["stages.2"]
    driven = Driving(np.arange(N_FEATURES), random.uniform(size=64), mean, np.sqrt(np.square(seen).mean((0, 1))))
    order = [j for j in np.argsort(-driven.share) if driven.norm[j] > 0]
    all_of_them = moved_by(bench, neurons, np.array(order), mean)
    for far in (0.2 * all_of_them, 0.9 * all_of_them):
        *fewer, (features, part) = as_far(bench, neurons, driven, far, mean)
        assert all(moved_by(bench, neurons, some, mean) < far and whole == 1 for some, whole in fewer)
        assert features.tolist() == order[: len(features)]
        # as far to the digit, and never by going beyond the mean
        assert part * moved_by(bench, neurons, features, mean) == pytest.approx(far, rel=1e-6)
        assert 0 < part <= 1
    *_, (features, part) = as_far(bench, neurons, driven, 2 * all_of_them, mean)
    assert (len(features), part) == (len(order), 1.0)
    silent = dataclasses.replace(driven, norm=np.zeros(64))
    assert as_far(bench, neurons, silent, 1.0, mean)[0][0].size == 0


@pytest.mark.parametrize("kind", ["cnn", "vit"])
def test_both_reference_models_are_read_at_a_fine_and_a_coarse_site(experiment, tmp_path, kind):
    model = load_model(f"py:{stimulus_networks.__file__}:stimulus_{kind}", "random", seed=0)
    config = dataclasses.replace(CONFIG, architecture=kind)
    found = EncodingBench(config, Run.create(tmp_path / "run"), model, experiment, SILENT)
    assert [len(at) for at in found.places.values()] == [24 * 24, 12 * 12]
    maps = found.maps(found.inputs(experiment.fit[:2]))
    assert [maps[site].shape[:2] for site in found.sites] == [(2, 24 * 24), (2, 12 * 12)]
    # the same cell lies at the same place, prefix tokens left out
    assert found.places[found.feature_site][0] == pytest.approx([44 * 17 / 96, -44 * 17 / 96])


def test_of_frozen_features_what_loses_most_counts(bench, experiment):
    random, neurons = np.random.default_rng(0), Neurons("stages.2", 64)
    n = len(experiment.region)
    fields = ReceptiveFields(random.uniform(-3, 3, n), random.uniform(-3, 3, n), np.full(n, 1.5))
    model = EncodingModel(
        bench.places, (32, 64), fields, random.standard_normal((96, n)), np.zeros(n), np.ones(n), np.ones(n)
    )
    test = VoxelTest(np.ones(n), np.zeros(n), 0.0, np.zeros(1), 0.05, "none")
    explored = Explored(model, model, model, {}, test)
    x = bench.inputs(experiment.confirm)
    predicted = model.predict(bench.maps(x))
    measured = predicted + random.standard_normal(predicted.shape) * predicted.std(0)
    confirmed = Confirmed({}, measured, predicted, predicted, predicted, experiment.groups[experiment.confirm])
    driven = driving(bench, explored, neurons)
    # more than half of the units: too few others for random sets
    found = {region: dataclasses.replace(d, features=np.argsort(-d.share)[:40]) for region, d in driven.items()}
    claims = transparency.confirm(bench, explored, confirmed, neurons, found, neurons, driven).claims
    assert len(claims) == 4
    first, voxels = driven["face"], np.flatnonzero(experiment.of("face"))
    far = moved_by(bench, neurons, found["face"].features, first.codes)
    losses = [
        transparency.lost(
            predicted[:, voxels],
            model.predict(bench.maps(x, edit=taken_away(neurons, features, first.codes, part)))[:, voxels],
            measured[:, voxels],
        )
        for features, part in as_far(bench, neurons, first, far, first.codes)
    ]
    controls = {control.name: control for control in claims[0].controls}
    assert controls[transparency.FROZEN].value == pytest.approx(max(losses))
    assert controls[transparency.RANDOM].value is None
    assert claims[0].verdict != "met"
    # what is lost under one kind of replacement must be lost under the other
    mean, resample = claims[0], claims[2]
    assert (mean.test, resample.test) == tuple(
        f"few features carry the prediction of the face region ({how} replacement)" for how in transparency.HOW
    )
    for claim, rest in ((mean, resample), (resample, mean)):
        (agrees,) = (control for control in claim.controls if control.name == transparency.AGREES)
        assert rest.interval is not None
        assert agrees.value == rest.interval[0]
        assert agrees.passed == (rest.interval[0] >= transparency.LEAST.threshold)
