"""A user's own recordings: what is read, how it is divided, and what each stumble says."""

import csv

import numpy as np
import pytest
from PIL import Image

from experiments.studies.brain_encoding.config import BrainEncodingConfig
from experiments.studies.brain_encoding.folder import recorded_experiment
from mechinterp.errors import ConfigError, ImagesError
from mechinterp.images.opening import open_images
from mechinterp.progress import SILENT

STIMULI, REPEATS, VOXELS = 80, 2, 3


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = [["file_name", "group"]]
    for i in range(STIMULI):
        Image.fromarray(random.integers(0, 255, (24, 24), dtype=np.uint8)).save(tmp_path / "images" / f"{i:03d}.png")
        rows.append([f"images/{i:03d}.png", f"session{i}"])
    write_table(tmp_path / "metadata.csv", rows)
    np.save(tmp_path / "responses.npy", random.standard_normal((STIMULI, REPEATS, VOXELS)))
    write_table(
        tmp_path / "voxels.csv",
        [["voxel", "region", "subject"], ["a", "V1", "s1"], ["b", "V1", "s1"], ["c", "FFA", "s2"]],
    )
    return tmp_path


def opened(folder, **settings):
    return recorded_experiment(BrainEncodingConfig(data=str(folder), extent_deg=8.4, **settings), SILENT)


def test_responses_regions_and_subjects_are_read(folder):
    found = opened(folder)
    assert found.responses.shape == (STIMULI, REPEATS, VOXELS)
    assert found.regions == ("V1", "FFA")
    assert found.subject.tolist() == ["s1", "s1", "s2"]
    assert found.extent_deg == 8.4
    assert found.truth is None


def test_no_group_stands_in_two_parts_and_every_stimulus_in_one(folder):
    rows = [["file_name", "group"], *([f"images/{i:03d}.png", f"g{max(0, i - 9)}"] for i in range(STIMULI))]
    write_table(folder / "metadata.csv", rows)
    found = opened(folder)
    parts = [set(found.groups[p]) for p in (found.fit, found.check, found.confirm)]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    assert sorted(np.concatenate([found.fit, found.check, found.confirm])) == list(range(STIMULI))


def test_splits_of_the_folder_are_kept(folder):
    names = ["test" if i < 20 else "validation" if i < 32 else "train" for i in range(STIMULI)]
    write_table(
        folder / "metadata.csv", [["file_name", "split"], *([f"images/{i:03d}.png", s] for i, s in enumerate(names))]
    )
    found = opened(folder)
    assert found.confirm.tolist() == list(range(20))
    assert found.check.tolist() == list(range(20, 32))
    assert "every stimulus was counted as one" in " ".join(found.notes)


@pytest.mark.parametrize("named", [True, False])
def test_stimuli_confirmed_on_are_the_test_split_when_the_folder_is_opened_again(folder, named):
    if not named:
        write_table(folder / "metadata.csv", [["file_name"], *([f"images/{i:03d}.png"] for i in range(STIMULI))])
    found = opened(folder)
    again = open_images(found.divided.source)
    assert np.flatnonzero(np.array(again.splits) == "test").tolist() == found.confirm.tolist()
    assert again.splits == found.divided.splits


def test_a_table_of_responses_says_the_same_as_the_array(folder):
    responses = np.load(folder / "responses.npy")
    (folder / "responses.npy").unlink()
    rows = [["file_name", "a", "b", "c"]]
    order = np.random.default_rng(1).permutation(STIMULI)
    rows += [[f"images/{i:03d}.png", *map(repr, map(float, responses[i, k]))] for k in range(REPEATS) for i in order]
    write_table(folder / "responses.csv", rows)
    assert opened(folder).responses == pytest.approx(responses)


def test_one_response_a_stimulus_is_one_repeat(folder):
    np.save(folder / "responses.npy", np.zeros((STIMULI, VOXELS)))
    assert opened(folder).responses.shape == (STIMULI, 1, VOXELS)


def test_responses_are_counted_in_deviations_of_the_stimuli_explored(folder):
    found = opened(folder)
    among = found.measured[found.explored]
    assert among.mean(0) == pytest.approx(np.zeros(VOXELS), abs=1e-12)
    assert among.std(0) == pytest.approx(np.ones(VOXELS))


@pytest.mark.parametrize("condition", ["shuffled-responses", "noise-only"])
def test_what_is_planted_wrong_is_other_responses(folder, condition):
    plain, planted = opened(folder).responses, opened(folder, condition=condition).responses
    assert planted.shape == plain.shape
    assert not np.allclose(planted, plain)
    assert (sorted(planted.ravel()) == sorted(plain.ravel())) == (condition == "shuffled-responses")


def test_the_extent_must_be_given(folder):
    with pytest.raises(ConfigError, match="--extent-deg"):
        recorded_experiment(BrainEncodingConfig(data=str(folder)), SILENT)


def test_a_folder_without_responses_says_what_belongs_there(folder):
    (folder / "responses.npy").unlink()
    with pytest.raises(ImagesError, match=r"has no responses: give metadata\.csv, responses\.npy"):
        opened(folder)


def test_responses_to_other_stimuli_are_refused(folder):
    np.save(folder / "responses.npy", np.zeros((STIMULI - 1, REPEATS, VOXELS)))
    with pytest.raises(ImagesError, match=r"\(79, 2, 3\) for 80 stimuli"):
        opened(folder)
    (folder / "responses.npy").write_bytes(b"no array")
    with pytest.raises(ImagesError, match="is no array of numbers"):
        opened(folder)


def test_missing_responses_are_counted(folder):
    broken = np.zeros((STIMULI, REPEATS, VOXELS))
    broken[4, 1] = np.nan
    np.save(folder / "responses.npy", broken)
    with pytest.raises(ImagesError, match=r"3 responses .* are missing"):
        opened(folder)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["name", "a"], ["images/000.png", "1"]], "does not begin with the column file_name"),
        ([["file_name", "a"], ["images/999.png", "1"]], "line 2 .* 'images/999.png', which is no stimulus"),
        ([["file_name", "a"], ["images/000.png", "much"]], "line 2 .* holds no number"),
        ([["file_name", "a"], ["images/000.png", "1"]], "0, 1 times"),
    ],
)
def test_a_table_that_cannot_be_meant_names_its_line(folder, rows, said):
    (folder / "responses.npy").unlink()
    write_table(folder / "responses.csv", rows)
    with pytest.raises(ImagesError, match=said):
        opened(folder)


def test_voxels_must_be_described_one_by_one(folder):
    write_table(folder / "voxels.csv", [["voxel", "region"], ["a", "V1"]])
    with pytest.raises(ImagesError, match="describes 1 voxels, the responses are of 3"):
        opened(folder)
    write_table(folder / "voxels.csv", [["voxel", "region"], ["a", "V1"], ["b", "noise"], ["c", "V1"]])
    with pytest.raises(ImagesError, match="kept for planted voxels"):
        opened(folder)
    (folder / "voxels.csv").unlink()
    with pytest.raises(ImagesError, match=r"has no voxels\.csv"):
        opened(folder)


def test_too_few_stimuli_are_refused(folder):
    write_table(folder / "metadata.csv", [["file_name"], *([f"images/{i:03d}.png"] for i in range(20))])
    np.save(folder / "responses.npy", np.zeros((20, 2, VOXELS)))
    with pytest.raises(ImagesError, match="the study needs 60"):
        opened(folder)


def test_stimuli_of_several_sizes_are_refused(folder):
    Image.fromarray(np.zeros((30, 24), dtype=np.uint8)).save(folder / "images" / "001.png")
    with pytest.raises(ImagesError, match="2 sizes"):
        opened(folder)


def test_settings_that_cannot_be_meant_are_refused():
    for settings, said in (
        ({"condition": "wrong"}, "condition is 'wrong'"),
        ({"exemplars": 10}, "exemplars is 10"),
        ({"k": 0}, "k is 0"),
        ({"extent_deg": 0.0, "data": "x"}, "between 0 and 180"),
        ({"extent_deg": 8.4}, "--extent-deg without --data"),
        ({"weights": "x"}, "--weights without --model"),
    ):
        with pytest.raises(ConfigError, match=said):
            BrainEncodingConfig(**settings)
