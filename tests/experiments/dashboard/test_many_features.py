"""Ten thousand features: the first page within two seconds, a feature's page within half a second, the index without a freeze."""

import time

import pytest
import synthetic_run

from experiments.dashboard.export import export_static

N = 10_000
FIRST_PAGE_S, FEATURE_PAGE_S, INDEX_S = 2.0, 0.5, 1.0


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Export a run of ten thousand features: forty drawn ones under ten thousand numbers."""
    results = synthetic_run.results(n_features=40)
    drawn = results["features"]
    results["features"] = [{**drawn[i % len(drawn)], "id": i} for i in range(N)]
    folder = tmp_path_factory.mktemp("many")
    return export_static(synthetic_run.write_run(folder / "run", results), folder / "pages", stored_desks=0)


def opened(tab, slug):
    """Return the seconds until a page and all its figures are drawn."""
    started = time.perf_counter()
    tab.go(slug)
    return time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.browser
def test_ten_thousand_features_are_browsed_without_a_freeze(tab, many):
    assert len(list((many.parent / "pages" / "feature").iterdir())) == N
    tab.page.goto(many.as_uri())
    tab.page.wait_for_selector("h1")
    text = tab.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    assert text < FIRST_PAGE_S
    tab.page.wait_for_function("() => document.body.dataset.drawn === 'overview'")
    opened(tab, "feature/1")
    # the best of a few: another process may hold the core during one
    assert min(opened(tab, f"feature/{number}") for number in (3, 5_000, 9_999, 42, 777)) < FEATURE_PAGE_S
    opened(tab, "features")
    search = tab.page.get_by_label("Search")
    spent = []
    for words in ("feature 9999", "grey", "feature 12"):
        started = time.perf_counter()
        search.fill(words)
        tab.page.wait_for_function("n => !document.querySelector('.count').textContent.startsWith('10,000 of')", arg=0)
        spent.append(time.perf_counter() - started)
    assert min(spent) < INDEX_S
    assert tab.page.locator(".feature-table tbody tr").count() <= 50
    assert tab.problems == []
