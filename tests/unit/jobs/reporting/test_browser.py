"""The report in a real browser: filters, search, a click, the keyboard, lazy loading, and paging to the last image."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from jobs.reporting.report import make_report
from tests.unit.jobs.output.test_product import finished, product_rows
from tests.unit.jobs.reporting.serving import serving

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

#: A desktop's window, and a phone's.
WIDE, NARROW = (1200, 900), (400, 700)

#: Longest wait of a person's patience on a busy machine, in milliseconds.
PATIENCE = 240_000

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens an address; a page that reports an error fails its test."""
    pages, errors = [], []

    def open_page(address: str, size: tuple[int, int] = WIDE, dark: bool = False) -> Page:
        window = {"width": size[0], "height": size[1]}
        page = browser.new_page(viewport=window, color_scheme="dark" if dark else "light")
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: errors.append(error))
        pages.append(page)
        page.goto(address)
        page.locator("figure:not([hidden])").first.wait_for()
        return page

    expect.set_options(timeout=PATIENCE)
    yield open_page
    for page in pages:
        page.close()
    assert errors == []


@pytest.fixture
def report(output: Path) -> str:
    """Address of the page as a file."""
    return Path(make_report(str(output))).as_uri()


@pytest.fixture
def served(output: Path) -> Iterator[str]:
    """Address of the server's page."""
    with serving(str(output)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def large(large_output: str) -> Iterator[str]:
    """The same of 100,000 rows."""
    with serving(large_output) as port:
        yield f"http://127.0.0.1:{port}/"


def figures(page: Page) -> list[str]:
    """Keys of the rows that are seen."""
    labels = page.locator("figure:visible button").evaluate_all("all => all.map(one => one.ariaLabel)")
    return [label.split()[2].rstrip(":") for label in labels]


def test_a_search_and_filters_show_what_fits(visit: Open, report: str) -> None:
    page = visit(report)
    shown = page.locator("#shown")
    expect(shown).to_have_text("6 of 8 shown")
    page.keyboard.press("/")
    page.keyboard.type("BLUE cat")
    expect(shown).to_have_text("1 of 8 shown")
    assert figures(page) == ["000000002"]
    page.fill("#search", "")
    page.select_option("#task", "inpaint")
    expect(shown).to_have_text("1 of 8 shown")
    assert figures(page) == ["000020000"]
    assert page.locator(".bucket:visible").count() == 1
    page.select_option("#size", "64 x 64")
    expect(shown).to_have_text("1 of 8 shown")


def test_failed_rows_are_found_by_status_and_words_with_the_keyboard_alone(visit: Open, report: str) -> None:
    page = visit(report)
    shown = page.locator("#shown")
    assert figures(page) == sorted(figures(page))
    # From the search over task and size to the status, and there from "success" down to the first kind of failure.
    page.keyboard.press("/")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "status"
    page.keyboard.press("ArrowDown")
    expect(shown).to_have_text("1 of 8 shown")
    (key,) = figures(page)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("why it failed")
    expect(dialog).to_contain_text(f"--key {key}")
    # A row alone among what is shown is before and behind itself.
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text(f"--key {key}")
    page.keyboard.press("Escape")
    page.select_option("#status", "failed_to_load")
    expect(page.locator("figure:visible")).to_contain_text("missing.png")
    page.select_option("#status", "")
    expect(shown).to_have_text("8 of 8 shown")
    page.fill("#search", "five")
    expect(shown).to_have_text("1 of 8 shown")
    expect(page.locator("figure:visible")).to_contain_text("task: 'nonsense' is not a task")


def test_a_grid_opens_its_images_and_scrolls_on_a_phone(visit: Open, tmp_path: Path) -> None:
    output = finished(tmp_path, product_rows()).output
    page = visit(Path(make_report(output)).as_uri(), NARROW)
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    grid = page.locator(".grid").first
    header = grid.locator("th[scope=row]").first
    before = header.bounding_box()
    grid.evaluate("one => { one.scrollLeft = 200; }")
    assert grid.evaluate("one => one.scrollLeft") > 0
    # What a line shows is still beside it.
    assert header.bounding_box() == before
    page.locator(".grid").nth(1).locator("tbody tr").nth(1).locator("button").nth(2).click()
    for words in ("a hen in chalk", "seed5"):
        expect(page.locator("dialog")).to_contain_text(words)
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog")).to_contain_text("seed4")
    # Grids are apart from the sample: no filter hides them, and they are not counted.
    page.keyboard.press("Escape")
    page.fill("#search", "no such words")
    expect(page.locator("#shown")).to_contain_text("0 of ")
    assert page.locator(".grid figure:visible").count() == 24


@pytest.mark.parametrize("address", ["report", "served"])
def test_a_click_shows_all_settings_and_keys_go_on(
    visit: Open, address: str, request: pytest.FixtureRequest, output: Path
) -> None:
    page = visit(request.getfixturevalue(address))
    dialog = page.locator("dialog")
    expect(dialog).to_be_hidden()
    page.locator("figure button").first.click()
    expect(dialog).to_be_visible()
    for words in ("a red fox", "000000000", f"python jobs/redo.py --output {output} --key 000000000"):
        expect(dialog).to_contain_text(words)
    assert dialog.evaluate("one => one.scrollTop") == 0
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("--key 000000001")
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("--key 000000000")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.ariaLabel").startswith("Details of 000000000")


@pytest.mark.parametrize("address", ["report", "served"])
def test_it_fits_a_phone_and_follows_light_and_dark(visit: Open, address: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(address)
    grounds = set()
    for dark in (False, True):
        page = visit(url, NARROW, dark)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        page.locator("figure button").first.click()
        assert page.locator("dialog").evaluate("one => one.scrollWidth - one.clientWidth") <= 0
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


def test_the_server_shows_failed_rows_with_their_reasons(visit: Open, served: str) -> None:
    page = visit(served)
    expect(page.locator("#shown")).to_have_text("1 to 6 of 6")
    page.select_option("#status", "failed_to_validate")
    expect(page.locator("#shown")).to_have_text("1 to 1 of 1")
    expect(page.locator("figure")).to_contain_text("task: 'nonsense' is not a task")
    page.select_option("#status", "")
    expect(page.locator("#shown")).to_have_text("1 to 8 of 8")


def test_texts_of_a_prompt_stay_texts_on_the_servers_page(visit: Open, output: Path, served: str) -> None:
    index = pq.read_table(output / "00000.parquet")
    place = index.schema.get_field_index("caption")
    captions = ["<img src=x onerror=alert(1)>", '" onload="x', "</template>", "x"][: index.num_rows]
    pq.write_table(index.set_column(place, index.schema.field("caption"), [captions]), output / "00000.parquet")
    page = visit(served)
    assert page.locator("figcaption").first.text_content() == captions[0]
    assert page.locator("img[onerror]").count() == 0


def test_paging_leads_to_the_last_of_a_hundred_thousand(visit: Open, large: str) -> None:
    page = visit(large)
    shown = page.locator("#shown")
    expect(shown).to_have_text("1 to 60 of 99,800")
    assert page.locator("#previous").is_disabled()
    began = time.process_time()
    page.click("#last")
    expect(shown).to_have_text("99,781 to 99,800 of 99,800")
    took = time.process_time() - began
    assert figures(page)[-1] == "000990998"
    assert page.locator("#next").is_disabled()
    last = page.locator("figure:has(button)").last
    last.scroll_into_view_if_needed()
    last.locator("button").click()
    full = page.locator("dialog img")
    assert full.evaluate("one => new URL(one.src).pathname") == "/full/000990998/0"
    # The file itself, whose colour says which row it is of; the small picture may be there before it.
    width, height, *colour = full.evaluate(
        """async one => { await one.decode();
        const canvas = new OffscreenCanvas(1, 1).getContext("2d"); canvas.drawImage(one, 0, 0);
        return [one.naturalWidth, one.naturalHeight, ...canvas.getImageData(0, 0, 1, 1).data].slice(0, 5); }"""
    )
    assert (width, height) == (16, 16)
    assert colour == [99_998 >> 16 & 255, 99_998 >> 8 & 255, 99_998 & 255]
    # A tenth of a second of the server's work, of which this process does no other.
    assert took < 5


def test_the_arrow_keys_go_over_the_end_of_a_page(visit: Open, large: str) -> None:
    page = visit(large)
    page.locator("figure button").last.click()
    expect(page.locator("dialog")).to_contain_text("--key 000000059")
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog")).to_contain_text("--key 000000060")
    expect(page.locator("#shown")).to_have_text("61 to 120 of 99,800")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("dialog")).to_contain_text("--key 000000059")


def test_a_page_by_its_number_and_words_over_all_images(visit: Open, large: str) -> None:
    page = visit(large)
    page.fill("#number", "900")
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_have_text("53,941 to 54,000 of 99,800")
    page.reload()
    expect(page.locator("#number")).to_have_value("900")
    page.fill("#search", "request-70123")
    expect(page.locator("#shown")).to_have_text("1 to 1 of 1")
    assert figures(page) == ["000700123"]
    page.fill("#search", "no such words")
    expect(page.locator("#shown")).to_have_text("nothing found")


def test_a_page_that_is_asked_for_before_the_first_one_has_come(visit: Open, large: str) -> None:
    page = visit(large)
    held: list[Route] = []
    holding = True

    def hold(route: Route) -> None:
        held.append(route) if holding else route.continue_()

    page.route("**/rows?*", hold)
    page.reload()
    for number in ("900.5", "1e300"):
        page.fill("#number", number)
        page.keyboard.press("Enter")
    holding = False
    # Answers to what nobody wants any more, then one that there is no such page, and then the last one.
    for route in held:
        route.continue_()
    expect(page.locator("#shown")).to_have_text("99,781 to 99,800 of 99,800")
    page.fill("#number", "900.5")
    page.keyboard.press("Enter")
    expect(page.locator("#shown")).to_have_text("53,941 to 54,000 of 99,800")


def test_pictures_are_asked_for_when_they_come_into_view(visit: Open, large: str) -> None:
    # A set: the page that is loaded first may still be asking for the same ones.
    asked: set[str] = set()
    page = visit(large, NARROW)
    page.on("request", lambda request: asked.add(request.url) if "/small/" in request.url else None)
    with page.expect_request("**/small/**"):
        page.reload()
    expect(page.locator("#shown")).to_have_text("1 to 60 of 99,800")
    page.wait_for_load_state("networkidle")
    assert 0 < len(asked) < 60
    assert not any(url.endswith("/small/000000059/0") for url in asked)
    with page.expect_request("**/small/000000059/0"):
        page.locator("figure:has(button)").last.scroll_into_view_if_needed()
