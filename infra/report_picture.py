"""Recipe of `infra/report.webp`: the report page of the demo's output, as a browser on a desk shows it.

    python infra/report_picture.py --run demo-output [--output infra/report.webp]

Needs Chromium or Chrome on the PATH, and what the tests need. Takes a search as a person would type it, so that the
picture has images of several tasks and a chart without being long; folders of this machine are left out of it.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from jobs.reporting.report import make_report  # noqa: E402
from manifests import storage  # noqa: E402

#: A desktop's window; how wide the picture is, and how many bytes it may have.
WIDTH, SHOWN_WIDTH, MOST_BYTES = 1280, 1000, 150_000

#: What is looked for in the page, of which size, and the first heading that the picture has no more.
SEARCH, SIZE, UNTIL = "rocket", "128 x 128", "#times"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

#: Leaves the folders out of what the page says of its output.
_SHORTEN = """folders => {
  for (const one of document.querySelectorAll("h1, header pre"))
    for (const folder of folders) one.textContent = one.textContent.replaceAll(folder, "");
}"""


def screenshot(page_file: Path, folders: list[str]) -> Image.Image:
    """The page as far as the picture has it."""
    browsers = filter(None, map(shutil.which, BROWSERS))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=next(browsers), args=["--no-sandbox"], timeout=120_000)
        page = browser.new_page(viewport={"width": WIDTH, "height": 6000})
        page.goto(page_file.as_uri())
        page.fill("#search", SEARCH)
        page.select_option("#size", SIZE)
        page.evaluate(_SHORTEN, folders)
        # Pictures come into view as soon as the window is that high, but not at the same moment.
        page.wait_for_function(
            "[...document.querySelectorAll('figure:not([hidden]) img')].every(one => one.naturalWidth)"
        )
        bottom = page.locator(UNTIL).bounding_box()
        assert bottom is not None
        png = page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom["y"]})
        browser.close()
    return Image.open(io.BytesIO(png)).convert("RGB")


def main() -> None:
    """Make the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--run", required=True, help="output of `make demo`")
    parser.add_argument("--output", type=Path, default=ROOT / "infra" / "report.webp", help="file to write")
    given = parser.parse_args()
    run = Path(storage.absolute(given.run))
    picture = screenshot(Path(make_report(str(run))), [f"{run.parent}/", f"{ROOT}/"])
    picture = picture.resize((SHOWN_WIDTH, round(picture.height * SHOWN_WIDTH / WIDTH)), Image.Resampling.LANCZOS)
    for quality in range(90, 20, -5):
        sink = io.BytesIO()
        picture.save(sink, "WEBP", quality=quality, method=6)
        if sink.tell() <= MOST_BYTES:
            break
    given.output.write_bytes(sink.getvalue())
    print(f"{given.output}: {picture.width} x {picture.height}, {sink.tell():,} bytes, quality {quality}")


if __name__ == "__main__":
    main()
