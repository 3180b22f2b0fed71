"""Ten thousand features: the first page within two seconds, a feature's page within half a second, the index without a freeze."""

import time

import pytest
import synthetic_run

from experiments.dashboard.export import export_static

N = 10_000
FIRST_PAGE_S, FEATURE_PAGE_S, INDEX_S = 2.0, 0.5, 1.0


OPENED = (1, 3, 42, 777, 5_000, 9_999)


class OnlyWhatIsOpened:
    """Lets an export write, of ten thousand features' pages, those that the test opens: a browser loads no other either."""

    def track(self, items, description, total=None):
        wanted = {f"feature/{number}" for number in OPENED}
        return (slug for slug in items if not str(slug).startswith("feature/") or slug in wanted)

    def note(self, text):
        pass


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Export a run of ten thousand features, its manifest and index whole: forty drawn ones under ten thousand numbers."""
    results = synthetic_run.results(n_features=40)
    drawn = results["features"]
    results["features"] = [{**drawn[i % len(drawn)], "id": i} for i in range(N)]
    folder = tmp_path_factory.mktemp("many")
    run = synthetic_run.write_run(folder / "run", results)
    return export_static(run, folder / "pages", OnlyWhatIsOpened(), stored_desks=0)


def opened(tab, slug):
    """Return the seconds until a page and all its figures are drawn."""
    started = time.perf_counter()
    tab.go(slug)
    return time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.browser
def test_ten_thousand_features_are_browsed_without_a_freeze(tab, many):
    tab.page.goto(many.as_uri())
    tab.page.wait_for_selector("h1")
    text = tab.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    assert text < FIRST_PAGE_S
    tab.page.wait_for_function("() => document.body.dataset.drawn === 'overview'")
    opened(tab, "feature/1")
    # the best of a few: another process may hold the core during one
    assert min(opened(tab, f"feature/{number}") for number in OPENED[1:]) < FEATURE_PAGE_S
    opened(tab, "features")
    assert tab.page.locator(".count").inner_text().startswith("10,000 of 10,000")
    search = tab.page.get_by_label("Search")
    spent = []
    for words, found in (("feature 9999", "1 of"), ("", "10,000 of"), ("feature 9999", "1 of"), ("", "10,000 of")):
        started = time.perf_counter()
        search.fill(words)
        tab.page.wait_for_function("start => document.querySelector('.count').textContent.startsWith(start)", arg=found)
        spent.append(time.perf_counter() - started)
    assert min(spent) < INDEX_S
    assert tab.page.locator(".feature-table tbody tr").count() <= 50
    assert tab.problems == []
