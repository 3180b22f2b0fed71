import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mechinterp.phantoms.random_streams import Identity, stream


def test_the_same_key_gives_the_same_numbers_and_another_key_others():
    assert np.array_equal(stream(1, "vessels").random(5), stream(1, "vessels").random(5))
    assert not np.array_equal(stream(1, "vessels").random(5), stream(2, "vessels").random(5))
    assert not np.array_equal(stream("1", "vessels").random(5), stream(1, "vessels").random(5))


@given(st.integers(0, 10**6), st.integers(0, 1000), st.integers(0, 20))
def test_images_of_a_patient_share_anatomy_and_nothing_else(seed, patient, image):
    one, other = Identity(seed, patient, image), Identity(seed, patient, image + 1)
    assert one.of_patient("vessels").random() == other.of_patient("vessels").random()
    assert one.of_image("noise").random() != other.of_image("noise").random()


def test_streams_of_neighbouring_keys_are_independent():
    drawn = np.stack([Identity(0, patient).of_patient("eye").standard_normal(400) for patient in range(40)])
    correlation = np.corrcoef(drawn)[np.triu_indices(40, 1)]
    # 780 pairs of 400 draws: the largest of as many standard normals / sqrt(400) is about 3.2 / 20
    assert np.abs(correlation).max() < 0.23
    assert abs(correlation.mean()) < 0.01


def test_numbers_do_not_change_between_versions():
    assert stream(0, "a").integers(0, 1000, 4).tolist() == [164, 175, 517, 437]
