"""brain-encoding from the shell: planted right, and planted wrong in four ways. Claims are held against the simulated voxels."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.cli import entry
from experiments.report import read_report
from experiments.report.report import Report
from experiments.studies.brain_encoding import actions, attribution, localization, study, transparency
from experiments.studies.brain_encoding.bench import EncodingBench
from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.experiment import NOISE_REGION, Experiment, KnownVoxels, planted_responses
from experiments.studies.brain_encoding.fits import Confirmed, Explored, called_in
from mechinterp.claims import Claim
from mechinterp.images.image_set import MedicalImage
from mechinterp.phantoms.stimuli.renderer import StimulusRenderer
from mechinterp.progress import Progress
from probes.encoding_scores import permuted_stimuli

pytestmark = pytest.mark.slow
SMALL = ("--quick", "--subjects", "1", "--voxels", "20", "--exemplars", "240", "--epochs", "3", "--n-random", "20")


@dataclasses.dataclass
class Kept:
    """What one run held in memory."""

    bench: EncodingBench | None = None
    explored: Explored | None = None
    confirmed: Confirmed | None = None

    def simulated(self) -> tuple[EncodingBench, Explored, KnownVoxels]:
        """Return what was explored of voxels whose truth is known."""
        assert self.bench is not None
        assert self.explored is not None
        assert self.bench.experiment.truth is not None
        return self.bench, self.explored, self.bench.experiment.truth


@pytest.fixture(scope="module")
def kept() -> Iterator[Kept]:
    """Render once for all conditions, which differ in the responses alone, and fit once where not even they differ."""
    found, rendered = Kept(), study.studied_experiment
    base: list[Experiment] = []
    explore, confirm, random_sets = study.explore, study.confirm, transparency.matched_sets

    def once(config: BrainEncodingConfig, progress: Progress) -> Experiment:
        if config.data is not None:
            return rendered(config, progress)
        if not base:
            assert config.condition == "as-it-is"
            base.append(rendered(config, progress))
        return dataclasses.replace(base[0], responses=planted_responses(base[0].responses, config))

    def exploring(bench: EncodingBench) -> Explored:
        # the autoencoder has no part in what is fitted
        if bench.config.condition == "frozen-random-sae" and found.explored is not None:
            return found.explored
        explored = explore(bench)
        if found.explored is None:
            found.bench, found.explored = bench, explored
        return explored

    def confirming(bench: EncodingBench, explored: Explored) -> Confirmed:
        if explored is found.explored and found.confirmed is not None:
            return found.confirmed
        confirmed = confirm(bench, explored)
        found.confirmed = found.confirmed or confirmed
        return confirmed

    with pytest.MonkeyPatch.context() as patch:
        # of what a small run costs a third is random features beside the found ones
        patch.setattr(transparency, "matched_sets", lambda driven, n, random: random_sets(driven, min(n, 4), random))
        patch.setattr(study, "studied_experiment", once)
        patch.setattr(study, "explore", exploring)
        patch.setattr(study, "confirm", confirming)
        yield found


def run(out: Path, *more: str) -> Report:
    assert entry.run(["study", "brain-encoding", "--out", str(out), *SMALL, *more, "--json"]) == 0
    return read_report(out)


@pytest.fixture(scope="module")
def planted_right(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(tmp_path_factory.mktemp("brain") / "run")


def claims(report: Report, element: str) -> dict[str, Any]:
    return {claim.test: claim for claim in report.evidence[element].claims}


def control(claim: Any, name: str) -> Any:
    return next(c for c in claim.controls if c.name == name)


def test_responses_to_new_stimuli_are_predicted_and_every_region_is_held_against_its_ceiling(
    planted_right: Report,
) -> None:
    check = planted_right.model_check
    assert check.state == "does its task"
    assert [claim.unit for claim in check.claims] == ["share of the noise ceiling"] * 3
    # no region can be predicted beyond its noise ceiling
    assert all(claim.interval[0] < 1 for claim in check.claims)


def test_receptive_fields_lie_where_the_simulated_voxels_have_them(planted_right: Report) -> None:
    claim = claims(planted_right, "localization")["receptive fields lie where they are"]
    assert claim.strength == "ground-truth-verified"
    fixation, misplaced = (control(claim, n).value for n in ("always fixation", "responses to other stimuli"))
    assert claim.value < min(fixation, misplaced)


def test_chance_is_what_one_in_twenty_orders_of_the_stimuli_reaches_voxel_by_voxel(
    kept: Kept, planted_right: Report
) -> None:
    assert kept.bench is not None
    assert kept.confirmed is not None
    there = np.flatnonzero(kept.bench.experiment.region != NOISE_REGION)
    predicted, measured = kept.confirmed.predicted, kept.confirmed.measured
    orders = permuted_stimuli(kept.confirmed.groups, kept.bench.config.sizes.permutations, kept.bench.config.seed)
    reached = sorted(
        np.mean([np.corrcoef(predicted[:, v], measured[order, v])[0, 1] for v in there]) for order in orders[1:]
    )
    assert planted_right.model_check.chance == pytest.approx(np.quantile(reached, 0.95), abs=1e-9)
    assert 0 < planted_right.model_check.chance < 0.5 * planted_right.model_check.value


def test_voxels_that_see_nothing_are_given_no_field(planted_right: Report) -> None:
    claim = claims(planted_right, "localization")["receptive fields lie where they are"]
    assert control(claim, "voxels of noise alone").passed


def test_predictions_follow_stimuli_that_are_rendered_again_as_the_voxels_do(planted_right: Report) -> None:
    found = claims(planted_right, "physical attribution")
    assert found
    for claim in found.values():
        assert claim.strength == "ground-truth-verified"
        assert 0 < claim.value < 2
        assert claim.value > control(claim, "responses to other stimuli").value


def test_the_plan_was_written_before_the_confirmation_stimuli_were_opened(planted_right: Report) -> None:
    record = planted_right.plan
    assert record.registered is not None
    assert record.opened is not None
    assert record.registered <= record.opened
    assert record.plan.discovery != record.plan.confirmation


def test_the_report_says_that_it_is_not_about_other_people(planted_right: Report) -> None:
    assert any("not for other people" in limit for limit in planted_right.limits)


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("random-network", "untrained"),
        ("shuffled-responses", "at chance"),
        ("noise-only", "at chance"),
    ],
)
def test_where_nothing_is_predicted_nothing_is_claimed(
    condition: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], planted_right: Report
) -> None:
    report = run(tmp_path / "run", "--condition", condition)
    assert report.model_check.state == "at chance"
    for name in report.use_case.needs:
        assert report.verdicts[name].word == "not met"
        assert why in " ".join(report.verdicts[name].reasons)
    assert not any(element.claims for element in report.elements)
    assert json.loads(capsys.readouterr().out)["strict"] == 1


def test_features_that_were_never_trained_fall_and_nothing_else_does(tmp_path: Path, planted_right: Report) -> None:
    report = run(tmp_path / "run", "--condition", "frozen-random-sae")
    for element, control in (
        ("model transparency", "frozen-random"), ("visual recognizability", "frozen-random")
    ):  # fmt: skip
        assert report.verdicts[element].word == "not met"
        assert any(control in reason for reason in report.verdicts[element].reasons)
    for element in ("localization", "physical attribution", "actionability"):
        assert report.verdicts[element].word == planted_right.verdicts[element].word
        assert [c.value for c in report.evidence[element].claims] == pytest.approx(
            [c.value for c in planted_right.evidence[element].claims]
        )
    assert report.strict() == 1


def failed(claim: Claim) -> list[str]:
    return [control.name for control in claim.controls if control.passed is False]


def test_each_control_of_the_receptive_fields_falls_when_it_is_spoiled(kept: Kept, planted_right: Report) -> None:
    bench, explored, truth = kept.simulated()
    voxels = np.flatnonzero(explored.called & (bench.experiment.region != NOISE_REGION))

    def fields(of: Explored, known: Any = truth) -> Claim:
        return localization._fields(bench, of, known, voxels)

    assert failed(fields(explored)) == []
    spoiled = dataclasses.replace(explored, misplaced=explored.encoding)
    assert failed(fields(spoiled)) == ["responses to other stimuli"]
    assert fields(spoiled).verdict == "not met"
    calling = dataclasses.replace(
        explored, vouched=dataclasses.replace(explored.vouched, p_corrected=np.zeros_like(explored.vouched.p_corrected))
    )
    assert failed(fields(calling)) == ["voxels of noise alone"]
    # all voxels truly at fixation: to answer fixation is then the best there is
    middle = dataclasses.replace(truth.fields, up_deg=0 * truth.fields.up_deg, right_deg=0 * truth.fields.right_deg)
    assert "always fixation" in failed(fields(explored, dataclasses.replace(truth, fields=middle)))
    # fields of other voxels: the metric itself falls
    strange = dataclasses.replace(
        explored,
        encoding=dataclasses.replace(
            explored.encoding, fields=explored.encoding.fields[np.roll(np.arange(len(explored.called)), 7)]
        ),
    )
    assert fields(strange).outcome == "fails"


@pytest.mark.parametrize("change", attribution.CHANGES[:2], ids=["height", "scrambling"])
def test_the_change_that_a_prediction_should_follow_is_held_against_each_control(
    change: attribution.Change, kept: Kept, planted_right: Report
) -> None:
    bench, explored, truth = kept.simulated()
    images = attribution.changed_stimuli(bench, truth, change)
    rendered = truth.changes([(images, added) for added in change.renderings])

    def claim(of: Explored, by: float = 1.0) -> Claim:
        return attribution._claim(bench, of, change, images, [(shown, by * true) for shown, true in rendered])

    assert failed(claim(explored)) == []
    assert failed(claim(dataclasses.replace(explored, misplaced=explored.encoding))) == ["responses to other stimuli"]
    # a prediction that moves twice as far as what it predicts
    assert "true counterfactual" in failed(claim(explored, by=0.4))
    turned = claim(explored, by=-1.0)
    assert turned.outcome == "fails"
    assert turned.verdict == "not met"
    # every voxel's prediction is that of another of its region
    voxels = called_in(bench, explored, "face")
    order = np.arange(len(explored.called))
    order[voxels] = np.random.default_rng(0).permutation(voxels)
    strange = dataclasses.replace(explored, encoding=explored.encoding.of(order))
    assert "other voxels' changes" in failed(claim(strange))


@pytest.mark.parametrize("network", ["model", "untrained"])
@pytest.mark.parametrize("change", attribution.CHANGES[:2], ids=["height", "scrambling"])
def test_how_much_of_a_change_is_predicted_is_what_rendering_and_weighing_pixels_by_hand_says(
    change: attribution.Change, network: str, kept: Kept, planted_right: Report
) -> None:
    """A slow twin: each stimulus rendered and run alone; a voxel's true response is how much of its field a face covers."""
    bench, explored, truth = kept.simulated()
    images = attribution.changed_stimuli(bench, truth, change)[:3]
    voxels = called_in(bench, explored, "face")
    renderer, phantoms = StimulusRenderer(96, 17.0), truth.phantoms
    assert bench.ceiling is not None
    unit = np.maximum(bench.ceiling.correlation[voxels], 0.1)
    looking, fitted = (bench.model, explored.encoding) if network == "model" else (bench.untrained, explored.untrained)

    def seen(image: int, **becomes: Any) -> tuple[Any, Any]:
        phantom = renderer(dataclasses.replace(phantoms.parameters[image], **becomes), phantoms.identities[image])
        x = bench.model.prepare([MedicalImage("one", phantom.pixels)])
        covered = phantom.coverage["face"] * phantom.parameters.contrast
        cells = [[covered[4 * r : 4 * r + 4, 4 * c : 4 * c + 4].mean() for c in range(24)] for r in range(24)]
        responses = []
        for v in voxels:
            up, right, size = (getattr(truth.fields, name)[v] for name in ("up_deg", "right_deg", "size_deg"))
            total = weight = 0.0
            for r in range(24):
                for c in range(24):
                    # a cell's middle, in degrees from fixation
                    at = 17 / 2 - (r + 0.5) * 17 / 24 - up, (c + 0.5) * 17 / 24 - 17 / 2 - right
                    w = np.exp(-(at[0] ** 2 + at[1] ** 2) / (2 * size**2))
                    total, weight = total + w * cells[r][c], weight + w
            responses.append(total / weight)
        return fitted.predict(bench.maps(x, looking))[0, voxels] / unit, np.array(responses)

    # of a grating a face voxel sees nothing: what it answers less then is how many deviations its response is
    (no_face, *_) = (i for i, p in enumerate(phantoms.parameters) if p.content == "gabor")
    predicted, true = [], []
    for image in images:
        up = phantoms.parameters[image].up_deg
        here, response = seen(image)
        deviation = response / (truth.signals[image, voxels] - truth.signals[no_face, voxels])

        def changed(was: Any = (here, response), one: Any = deviation, of: int = image, **becomes: Any) -> Any:
            now = seen(of, **becomes)
            return np.stack([now[0] - was[0], (now[1] - was[1]) / one])

        if change.moved:
            scrambled = changed(arrangement="random-phases")
            there = changed(arrangement="random-phases", up_deg=up + 1.5)
            both = changed(up_deg=up + 1.5) - there + scrambled
            both = [[x - sum(row) / len(row) for x in row] for row in both]
        else:
            both = changed(arrangement="random-phases")
        predicted.append(both[0])
        true.append(both[1])
    slow = np.linalg.lstsq(np.ravel(true)[:, None], np.ravel(predicted), rcond=None)[0][0]
    claim = attribution._claim(
        bench, explored, change, images, truth.changes([(images, added) for added in change.renderings])
    )
    found = claim.value if network == "model" else control(claim, "untrained network").value
    assert found == pytest.approx(slow, rel=2e-3, abs=2e-3)


def test_stimuli_are_chosen_for_nothing_where_predictions_are_others(kept: Kept, planted_right: Report) -> None:
    bench, explored, confirmed = kept.bench, kept.explored, kept.confirmed
    assert bench is not None
    assert explored is not None
    assert confirmed is not None
    voxels = np.flatnonzero(explored.called & (bench.experiment.region != NOISE_REGION))
    assert actions._chosen(bench, explored, confirmed, voxels).verdict == "met"
    # every voxel's own prediction is its neighbour's: those chosen for others do as well
    order = np.arange(len(confirmed.predicted.T))
    for region in bench.experiment.regions:
        mine = np.flatnonzero(bench.experiment.of(region))
        order[mine] = np.roll(mine, 1)
    neighbours = dataclasses.replace(confirmed, predicted=confirmed.predicted[:, order])
    assert "stimuli chosen for other voxels of the region" in failed(
        actions._chosen(bench, explored, neighbours, voxels)
    )
    alike = dataclasses.replace(
        confirmed, predicted=np.random.default_rng(0).standard_normal(confirmed.predicted.shape)
    )
    claim = actions._chosen(bench, explored, alike, voxels)
    assert {"as many at random", "stimuli of the content it likes best"} <= set(failed(claim))
    assert claim.verdict == "not met"


def test_blanking_is_what_rendering_and_running_everything_stimulus_by_stimulus_says(
    kept: Kept, planted_right: Report
) -> None:
    """A slow twin: discs drawn into each picture by loops over pixels, each picture run alone."""
    bench, explored = kept.bench, kept.explored
    assert bench is not None
    assert explored is not None
    images = bench.experiment.confirm[:2]
    voxels = np.flatnonzero(explored.called & (bench.experiment.region != NOISE_REGION))[:4]
    discs, moved = localization.blanked_changes(bench, explored, images, voxels)
    # standard deviations over the stimuli fitted to
    spread = explored.encoding.predict(explored.maps)[:, voxels].std(0)
    side = 96
    for d in (0, len(discs) // 2, len(discs) - 3):
        for i, image in enumerate(images):
            picture = bench.inputs([int(image)])
            drawn = picture.clone()
            for channel in range(3):
                values = sorted(picture[0, channel].flatten().tolist())
                # of an even number of pixels torch takes the lower of the two in the middle
                grey = values[len(values) // 2 - 1]
                for row in range(side):
                    for column in range(side):
                        up = (side / 2 - row - 0.5) * 17 / side
                        right = (column + 0.5 - side / 2) * 17 / side
                        if (up - discs.up_deg[d]) ** 2 + (right - discs.right_deg[d]) ** 2 <= 1.5**2:
                            drawn[0, channel, row, column] = grey
            before, after = (explored.encoding.predict(bench.maps(x))[0, voxels] for x in (picture, drawn))
            assert moved[d, i] == pytest.approx(np.abs(after - before) / spread, rel=1e-3, abs=1e-4)


def test_a_users_own_recordings_are_reported_without_truth(tmp_path: Path, kept: Kept) -> None:
    from experiments.studies.brain_encoding.experiment import simulated_experiment
    from mechinterp.progress import SILENT

    known = simulated_experiment(BrainEncodingConfig(exemplars=120, subjects=1, voxels=15), SILENT)
    assert known.truth is not None
    folder = known.truth.phantoms.write_image_folder(tmp_path / "scans", masks=False)
    np.save(folder / "responses.npy", known.responses)
    region = {"V1": "early", "face": "late", "scene": "late", "noise": "early"}
    rows = "".join(f"v{i},{region[name]}\n" for i, name in enumerate(known.region))
    (folder / "voxels.csv").write_text(f"voxel,region\n{rows}")
    report = run(tmp_path / "run", "--data", str(folder), "--extent-deg", "17")
    assert not report.use_case.truth_known
    assert report.model_check.state == "does its task"
    assert report.verdicts["physical attribution"].word == "not addressed"
    assert all(claim.strength != "ground-truth-verified" for e in report.elements for claim in e.claims)
