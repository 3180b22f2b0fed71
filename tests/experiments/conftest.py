"""One browser for all tests that look at a page: a second one cannot be started in the same process."""

import shutil

import pytest

CHROMIUM_ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


class Watched:
    """A tab that remembers everything a reader would call broken."""

    def __init__(self, context):
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.problems = []
        self.requested = []
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def go(self, slug):
        """Open a page of the export and wait until all of it is drawn."""
        self.page.evaluate("slug => { location.hash = '#/' + slug; }", slug)
        self.page.wait_for_function("slug => document.body.dataset.drawn === slug", arg=slug)


@pytest.fixture
def tab(browser):
    """A tab without any network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_offline(True)
    yield Watched(context)
    context.close()


@pytest.fixture
def online_tab(browser):
    """A tab that may reach this machine; what it asks for is remembered."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Watched(context)
    context.close()
