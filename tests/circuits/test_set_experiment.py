import numpy as np
import pytest
import torch
from planted_answers import (
    BAND,
    WIDTH,
    ByHand,
    an_always_on_vote,
    experiment_on,
    one_thread,
    some_activations,
    two_drivers,
    two_drivers_that_stand_out,
)

from circuits.ablations import Source, draw, resample
from circuits.bands import Band, two_bands
from circuits.set_experiment import SetExperimentConfig, run_set_experiment
from mechinterp.errors import ConfigError, ImagesError, LeakageError
from mechinterp.feature_encoder import Directions, Neurons
from mechinterp.objectives import logit, logit_difference


@pytest.fixture(scope="module")
def drivers():
    return experiment_on(two_drivers())


def test_both_true_drivers_are_ranked_first_in_both_directions(drivers):
    for way in drivers.select("neurons", "reference"):
        assert set(way.order[:2]) == {5, 9}
        assert way.alive == WIDTH
        assert way.size == 3  # the largest size within 5 % of 64


def test_two_drivers_flip_all_and_one_flips_none(drivers):
    for way in drivers.select("neurons", "reference"):
        for ablation in ("mean", "resample"):
            curve = way.curve(ablation)
            assert curve.at(1).flipped == 0
            assert curve.at(2).flipped == 1
            assert curve.at(2).reference_kept == 1
            assert abs(curve.at(2).reference_delta) < 1.5


def test_the_change_under_the_mean_is_known_in_closed_form(drivers):
    acts, _ = two_drivers()
    lower, upper, reference = acts[:BAND], acts[BAND : 2 * BAND], acts[2 * BAND :]
    halves = {"lower": reference[:BAND], "upper": reference[BAND:]}
    for way, tested in zip(drivers.select("neurons", "reference"), (upper, lower), strict=True):
        change = halves[way.tested_on][:, :, [5, 9]].mean((0, 1)) - tested[:, :, [5, 9]].mean((0, 1))
        assert way.curve("mean").at(2).delta == pytest.approx(4 * float(change.sum()), abs=1e-4)


def test_the_opposite_direction_turns_reference_images_to_the_target(drivers):
    for way in drivers.select("neurons", "reference"):
        assert way.curve("towards").at(2).flipped == 1
        assert way.curve("towards").at(2).delta > 6
        assert way.curve("towards").at(2).reference_kept is None


def test_controls_have_the_norm_and_size_of_the_chosen_set(drivers):
    for way in drivers.select("neurons", "reference"):
        for curve in way.curves:
            for r in curve.results:
                assert r.control_ratio == pytest.approx(1, abs=0.06)
                assert len(r.controls.flipped) == 200


def test_norm_removed_is_that_of_the_activations(drivers):
    acts, _ = two_drivers()
    way = drivers.select("neurons", "reference")[0]
    removed = acts[BAND : 2 * BAND][:, :, list(way.order[:2])].square().sum((1, 2)).mean().sqrt()
    assert way.curve("zero").at(2).norm == pytest.approx(float(removed), rel=1e-5)


def test_zeroing_an_always_on_channel_lies_far_off_the_data_and_its_mean_does_not():
    way = experiment_on(an_always_on_vote()).select("neurons", "zero")[0]
    assert way.order[0] == 3
    assert way.curve("zero").at(1).off_data > 5
    assert way.curve("mean").at(1).off_data < 1.1


def test_all_features_together_are_the_most_that_any_set_can_do(drivers):
    for way in drivers.directions:
        whole = way.curve("mean").everything
        assert whole.size == WIDTH
        assert whole.flipped == 1
        assert whole.controls is None
        assert whole.delta == pytest.approx(
            drivers.select("neurons", way.ranked_by)[0].curve("mean").at(40).delta, abs=1
        )


def test_numbers_equal_a_plain_loop(drivers):
    acts, run = two_drivers()
    way = drivers.select("neurons", "reference")[1]
    assert (way.chosen_on, way.tested_on) == ("upper", "lower")
    ablation, reference = resample(2), list(range(2 * BAND, 3 * BAND))
    picks = draw(ablation, BAND, len(reference), seed=0)
    flips, deltas = [], []
    for i in range(BAND):
        for j in picks[i]:
            changed = acts[i].clone()
            changed[:, list(way.order[:3])] = acts[reference[j]][:, list(way.order[:3])]
            before, after = run.logits(acts[i][None])[0], run.logits(changed[None])[0]
            flips.append(float(after.argmax() != 0))
            deltas.append(float((after[0] - after[1]) - (before[0] - before[1])))
    r = way.curve("resample").at(3)
    assert r.flipped == pytest.approx(np.mean(flips))
    assert r.delta == pytest.approx(np.mean(deltas), abs=1e-4)


def test_before_and_after_are_probabilities_of_the_tested_images(drivers):
    way = drivers.select("neurons", "reference")[0]
    shown = {b.ablation: b for b in way.before_after}
    assert shown["mean"].images == tuple(range(BAND, 2 * BAND))
    assert shown["towards"].images == tuple(range(3 * BAND, 4 * BAND))
    assert all(b > 0.5 > a for b, a in zip(shown["mean"].before, shown["mean"].after, strict=True))


def test_the_same_seed_gives_the_same_numbers():
    settings = {"sizes": (1, 2), "n_controls": 40, "contrast": False}
    first, again = (experiment_on(two_drivers(), **settings).to_json() for _ in range(2))
    assert first == again


def test_several_kinds_stand_beside_each_other():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator))[0]
    random = Directions("stage", basis, torch.zeros(WIDTH), kind="random")
    found = experiment_on(two_drivers(), [Neurons("stage", WIDTH), random], sizes=(2,), n_controls=40)
    assert found.unit_kinds == ("neurons", "random")
    assert set(found.to_json()["verdicts"]) == {"neurons", "random"}
    assert max(c.at(2).flipped for w in found.select("random", "reference") for c in w.curves[:3]) < 0.5


def test_single_units_take_a_short_cut_to_the_same_numbers():
    axes = Directions("stage", torch.eye(WIDTH) * torch.tensor(1.0), torch.zeros(WIDTH), kind="axes")
    tilted = Directions("stage", torch.eye(WIDTH) + 1e-30 * torch.ones(WIDTH, WIDTH), torch.zeros(WIDTH), kind="tilted")
    short, product = (
        experiment_on(two_drivers_that_stand_out(), [e], sizes=(1, 2), n_controls=40).to_json()["directions"]
        for e in (axes, tilted)
    )
    for a, b in zip(short, product, strict=True):
        assert a["chosen"] == b["chosen"]
        for one, other in zip(a["curves"], b["curves"], strict=True):
            for key in ("delta", "norm_removed", "off_data"):
                assert one[key] == pytest.approx(other[key], rel=1e-4)
            assert one["control_delta"]["median"] == pytest.approx(other["control_delta"]["median"], abs=1e-3)


def test_kinds_beside_the_primary_one_have_random_sets_where_it_decides():
    axes = Directions("stage", torch.eye(WIDTH), torch.zeros(WIDTH), kind="axes")
    found = experiment_on(two_drivers(), [Neurons("stage", WIDTH), axes], sizes=(2,), n_controls=40)
    controlled = {w.kind: [c.ablation.name for c in w.curves if c.at(2).controls] for w in found.directions[::2]}
    assert controlled == {"neurons": ["zero", "mean", "resample", "towards"], "axes": ["mean", "resample"]}


def test_fewer_images_are_evenly_spread():
    way = experiment_on(two_drivers(), max_images=3, sizes=(2,), n_controls=40).directions[0]
    assert way.before_after[0].images == (BAND, BAND + 6, 2 * BAND - 1)


def test_whole_forward_passes_get_the_images_of_every_row():
    acts, plain = two_drivers()

    class Bypassed:
        def logits(self, acts_bnd, x=None):
            assert x.shape == (len(acts_bnd), 1, 2, 2)
            out = plain.logits(acts_bnd)
            out[:, 0] += x[:, 0, 0, 0]  # an image-wise shift that a wrong pairing would not give
            return out

    shift = torch.linspace(-0.1, 0.1, len(acts))
    x = shift[:, None, None, None].expand(-1, 1, 2, 2)
    bands = two_bands(range(BAND), range(BAND, 2 * BAND), range(2 * BAND, 4 * BAND))
    config = SetExperimentConfig(sizes=(2,), n_controls=20)
    encoders = [Neurons("stage", WIDTH)]
    objective = logit_difference(0, 1)
    with one_thread():
        shifted = run_set_experiment(Bypassed(), encoders, acts, bands, objective, config, x=x)
        usual = run_set_experiment(plain, encoders, acts, bands, objective, config)
    for a, b in zip(shifted.directions, usual.directions, strict=True):
        assert [c.at(2).delta for c in a.curves] == pytest.approx([c.at(2).delta for c in b.curves], abs=1e-4)


def test_sizes_beyond_the_alive_features_are_left_out():
    assert [r.size for r in experiment_on(two_drivers(), sizes=(2, 100)).directions[0].curves[0].results] == [2]


def test_silent_features_are_never_drawn():
    acts, run = two_drivers()
    acts[:, :, 30:] = 0
    way = experiment_on((acts, run), sizes=(1, 2), n_controls=40).directions[0]
    assert way.alive == 30
    assert max(way.order) < 30


def test_progress_sees_every_step():
    class Seen:
        steps = 0

        def track(self, items, description, total=None):
            for item in items:
                Seen.steps += 1
                yield item

        def note(self, text): ...

    experiment_on(two_drivers(), progress=Seen(), sizes=(1,), n_controls=20)
    assert Seen.steps == 2 * (3 * BAND + 4)


def test_reference_images_are_split_by_position():
    first, second = two_bands([0], [9], [8, 2, 3, 7], names=("low", "high"))
    assert (first.reference, second.reference) == ((2, 3), (7, 8))
    assert (first.name, second.name) == ("low", "high")


def test_no_group_is_split_between_the_halves():
    groups = ["t", "t", "a", "b", "b", "b", "b", "c"]
    first, second = two_bands([0], [1], [2, 3, 4, 5, 6, 7], groups=groups)
    assert {groups[i] for i in first.reference}.isdisjoint({groups[i] for i in second.reference})


def test_too_few_reference_images_are_refused():
    with pytest.raises(ImagesError, match="reference of second"):
        two_bands([0], [1], [2])


def test_an_image_in_both_bands_is_refused():
    acts, run = two_drivers()
    bands = (Band("a", (0, 1), (30,)), Band("b", (1, 2), (40,)))
    with pytest.raises(LeakageError, match="image 1 stands in 'a' and again in 'b'"):
        run_set_experiment(run, [Neurons("stage", WIDTH)], acts, bands, logit_difference(0, 1))


def test_an_image_that_is_answered_otherwise_is_refused():
    acts, run = two_drivers()
    bands = (Band("a", (0, 30), (31,)), Band("b", (1, 2), (40,)))
    with pytest.raises(ImagesError, match="image 30 of band 'a' is not answered '0'"):
        run_set_experiment(run, [Neurons("stage", WIDTH)], acts, bands, logit_difference(0, 1))


@pytest.mark.parametrize("objective", [logit(0), logit_difference("a", "b")])
def test_only_a_resolved_logit_difference_will_do(objective):
    acts, run = two_drivers()
    bands = (Band("a", (0,), (31,)), Band("b", (1,), (40,)))
    with pytest.raises(ConfigError, match="resolved logit difference"):
        run_set_experiment(run, [Neurons("stage", WIDTH)], acts, bands, objective)


def test_two_encoders_of_one_kind_are_refused():
    acts, run = two_drivers()
    bands = (Band("a", (0,), (31,)), Band("b", (1,), (40,)))
    with pytest.raises(ConfigError, match="one of each kind"):
        run_set_experiment(run, [Neurons("stage", WIDTH)] * 2, acts, bands, logit_difference(0, 1))


def test_a_site_that_is_silent_everywhere_is_named():
    acts = torch.zeros_like(some_activations())

    class Fixed(ByHand):
        def logits(self, acts_bnd, x=None):
            out = super().logits(acts_bnd)
            out[:, 0] = 1.0
            return out

    bands = (Band("a", (0,), ()), Band("b", (1,), ()))
    with pytest.raises(ConfigError, match="only 0 features of kind 'neurons' are ever active"):
        run_set_experiment(
            Fixed(torch.zeros(WIDTH), 0.0), [Neurons("stage", WIDTH)], acts, bands, logit_difference(0, 1)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sizes": (2, 1)}, "ascending"),
        ({"sizes": ()}, "ascending"),
        ({"n_controls": 0}, "n_controls is 0"),
        ({"share": 1.5}, r"share is 1.5: it must lie in \(0, 1\]"),
        ({"n_controls": 50}, "give at least 139, or fewer sizes"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        SetExperimentConfig(**settings)


def test_sources_are_never_the_image_itself():
    source = Source(Neurons("stage", 3), torch.eye(3).reshape(3, 1, 3))
    assert torch.equal(source.codes(1), torch.tensor([[0.0, 1.0, 0.0]]))
