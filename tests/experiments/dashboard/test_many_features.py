"""Ten thousand features: the first page within two seconds, a feature's page within half a second, the index without a freeze."""

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


class Clock:
    """Seconds of the processor that a tab's own thread spent: the wall's seconds on a core of its own, whatever else runs here."""

    def __init__(self, page):
        self.session = page.context.new_cdp_session(page)
        self.session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def now(self):
        metrics = self.session.send("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "TaskDuration")

    def of(self, act):
        started = self.now()
        act()
        return self.now() - started


def first_text_s(page):
    page.wait_for_selector("h1")
    return page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000


@pytest.mark.slow
@pytest.mark.browser
def test_ten_thousand_features_are_browsed_without_a_freeze(tab, many):
    page = tab.page
    page.goto(many.as_uri())
    first = [first_text_s(page)]
    for _ in range(2):
        page.wait_for_function("() => document.body.dataset.drawn === 'overview'")
        page.reload()
        first.append(first_text_s(page))
    assert min(first) < FIRST_PAGE_S
    page.wait_for_function("() => document.body.dataset.drawn === 'overview'")

    clock = Clock(page)
    tab.go("feature/1")
    for number in OPENED[1:]:  # until every figure is drawn
        assert clock.of(lambda number=number: tab.go(f"feature/{number}")) < FEATURE_PAGE_S

    tab.go("features")
    count = page.locator(".count")
    assert count.inner_text().startswith("10,000 of 10,000")
    search = page.get_by_label("Search")
    for words, found in (("feature 9999", "1 of"), ("", "10,000 of")):

        def searched(words=words, found=found):
            search.fill(words)
            page.wait_for_function("start => document.querySelector('.count').textContent.startsWith(start)", arg=found)

        assert clock.of(searched) < INDEX_S
    assert page.locator(".feature-table tbody tr").count() <= 50
    assert tab.problems == []
