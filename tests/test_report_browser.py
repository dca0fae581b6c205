"""The page in a real browser: loads without a complaint or a request, filters, sorts, and answers mouse and keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from steerlab.report import write_report
from tests.browser import Browser, find_browser
from tests.reported_run import reported_run

SHOWN = "[...document.querySelectorAll('#t-samples tbody tr')].filter((row) => !row.hidden)"
COUNT = f"{SHOWN}.length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    command = find_browser()
    folder = tmp_path_factory.mktemp("page")
    write_report([reported_run(folder / "run")], folder / "page.html")
    with Browser(command, folder / "profile") as found:
        found.open((folder / "page.html").as_uri())
        yield found


def _set(browser: Browser, what: str, value: str) -> None:
    browser.run(
        f"(() => {{ const one = document.querySelector({what!r}); one.value = {value!r};"
        " one.dispatchEvent(new Event('input')); one.dispatchEvent(new Event('change')); })()"
    )


def test_the_page_loads_without_a_complaint_or_a_request(browser: Browser) -> None:
    assert browser.complaints() == []
    assert [url.split(":")[0] for url in browser.requests() if not url.startswith("data:")] == ["file"]
    assert browser.run("document.querySelectorAll('script').length") == 1  # nothing that a text smuggled in
    assert browser.run(COUNT) == 16


def test_the_filters_leave_what_fits(browser: Browser) -> None:
    _set(browser, "#filters select[data-name=language]", "he")
    assert browser.run(COUNT) == 8
    _set(browser, "#filters .find", "nameless travel")
    assert browser.run(COUNT) == 2
    assert browser.run("document.querySelector('#filters .count').textContent") == "2 of 16 rows"
    browser.run("document.getElementById('clear').click()")
    assert browser.run(COUNT) == 16


def test_a_heading_orders_its_table_numbers_as_numbers(browser: Browser) -> None:
    cells = "[...document.querySelectorAll('#t-1-1 tbody tr')].map((row) => row.cells[1].textContent)"
    heading = "document.querySelectorAll('#t-1-1 .sort')[1]"
    browser.run(f"{heading}.click(); {heading}.click()")
    assert browser.run(cells) == ["100", "20", "3"]
    assert browser.run(f"{heading}.closest('th').getAttribute('aria-sort')") == "descending"


def test_a_mark_says_its_numbers_and_opens_its_samples_by_keyboard(browser: Browser) -> None:
    visible = "document.querySelectorAll('.chart:not([hidden])').length"
    assert browser.run(visible) == 1
    _set(browser, "#metric", "")
    assert browser.run(visible) == 4
    browser.run("document.querySelector('.mark').focus()")
    assert "0.3 [0.2, 0.4]" in browser.run("document.getElementById('tip').textContent")
    browser.key("ArrowDown")
    assert "steered: 0.6" in browser.run("document.getElementById('tip').textContent")
    browser.key("Enter")
    assert browser.run(COUNT) == 4
    assert browser.run(f"{SHOWN}.every((row) => row.dataset.condition === 'steered' && row.dataset.language === 'jv')")
    assert browser.run("document.activeElement.classList.contains('find')")
    browser.run("document.getElementById('clear').click()")


def test_hebrew_runs_from_the_right(browser: Browser) -> None:
    directions = "[...document.querySelectorAll('.text')].map((one) => one.lang + getComputedStyle(one).direction)"
    assert set(browser.run(directions)) == {"hertl", "jvltr"}


def test_everything_that_can_be_pressed_has_a_name(browser: Browser) -> None:
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "textbox", "searchbox", "combobox", "img", "table", "region", "image"}
    named = [node for node in nodes if node.get("role", {}).get("value") in roles and not node.get("ignored")]
    assert len(named) > 40
    assert [node["role"]["value"] for node in named if not node.get("name", {}).get("value")] == []


def test_a_picture_can_be_taken(browser: Browser, tmp_path: Path) -> None:
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
