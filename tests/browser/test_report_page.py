"""The evaluation's report in a browser: it runs nothing, fetches nothing, and fits a phone."""

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_fits_and_is_quiet(chromium, watched, report, width):
    context = chromium.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = watched(context.new_page())
    page.goto(report.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # tables scroll in themselves
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    context.close()
