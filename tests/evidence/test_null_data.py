"""A small run of the check on data that hold nothing: its rates lie where so few runs let them, and the page says them."""

import pytest

from evidence import null_data
from mechinterp.progress import SILENT


@pytest.fixture(scope="module")
def figures():
    return null_data.run(True, SILENT)


def test_nothing_is_found_in_nothing_and_images_taken_for_patients_find_it(figures):
    high = null_data.bounds(0.05, null_data.SMALL_RUNS)[1]
    for found in figures["discoveries"]:
        assert found["fdr"] <= high
        assert found["maximum"] <= high
    shared = next(f for f in figures["discoveries"] if "three images" in f["data"])
    assert shared["naive"] > 0.5
    assert figures["volume"]["maximum"] <= high
    assert figures["volume"]["naive"] > 0.5


def test_what_is_there_is_found_and_its_intervals_hold_it(figures):
    mixed = figures["mixed"]
    assert mixed["power"] > 0.3
    assert mixed["fdr"] < 0.2
    assert mixed["cover"] >= mixed["cover_unadjusted"] > 0.8


def test_intervals_cover_as_often_as_so_few_runs_let_them(figures):
    low = null_data.bounds(0.95, null_data.SMALL_RUNS)[0]
    for found in figures["cover"]:
        assert found["cover"] >= low - 1 / null_data.SMALL_RUNS or found["refused"] > 0.5
    assert figures["equivalence"]["at_zero"] > figures["equivalence"]["at_margin"]


def test_the_page_names_every_statistic(figures):
    page = null_data.render(figures)
    for text in (
        "three images a patient",
        "smooth along it",
        "Student's t over patients",
        "Equivalence test",
        "69 % zeros",
    ):
        assert text in page
    assert "nan" not in page


def test_bounds_are_the_binomial_ones():
    assert null_data.bounds(0.05, 2000) == pytest.approx((0.038, 0.063), abs=0.0011)
