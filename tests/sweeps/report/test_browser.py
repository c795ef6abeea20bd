"""The report in a real browser without a network: every plot is drawn, nothing fails.

make browser
"""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.lib import sweep_folder
from tests.lib.commands import DIGITS, Commands
from ul.sweeps import report

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The title of each picture, and its corners on the whole page.
TITLES_AND_CORNERS = """all => all.map(i => { const r = i.getBoundingClientRect();
  return [i.alt, r.left + scrollX, r.top + scrollY, r.right + scrollX, r.bottom + scrollY] })"""


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium if it has one, else Playwright's."""
    sync_api = pytest.importorskip("playwright.sync_api")
    system = next(filter(None, map(shutil.which, BROWSERS)), None)
    # Chromium refuses to run its sandbox as root, which is common in containers.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as p:
        try:
            browser = p.chromium.launch(executable_path=system, args=args)
        except sync_api.Error as e:
            pytest.skip(f"Chromium cannot be started: {str(e).splitlines()[0]}")
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def example_page(tmp_path_factory):
    """The page of six trials with FIDs that were never trained."""
    out = sweep_folder.write_sweep(tmp_path_factory.mktemp("example"), fid=True)
    return report.write(str(out), predict=True)


@pytest.fixture(scope="module")
def trained_page(tmp_path_factory):
    """The page of a trial that is trained and evaluated, and one with stage 1 only."""
    out, run = tmp_path_factory.mktemp("trained"), Commands()
    no_tensorboard = "--config.log.tensorboard=false"

    def train_stage1(factor):
        workdir = out / f"factor{factor}" / "stage1"
        run(
            "train",
            f"--config={DIGITS}:smoke",
            f"--workdir={workdir}",
            f"--config.loss.weighting.factor={factor}",
            no_tensorboard,
        )
        return workdir

    stage1, stage2 = train_stage1(2.5), out / "factor2.5" / "stage2"
    run("evaluate", f"--workdir={stage1}")
    run(
        "train",
        f"--config={DIGITS}:smoke2",
        f"--workdir={stage2}",
        f"--config.stage1.workdir={stage1}",
        no_tensorboard,
    )
    run("evaluate", f"--workdir={stage2}", "--num_examples=40")
    train_stage1(1.5)
    return run("report", out).splitlines()[-1]


@pytest.fixture
def tab(browser):
    """A browser tab, its errors, and the URLs that it requests."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
    page, errors = context.new_page(), []
    page.on("console", lambda m: errors.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: errors.append(f"uncaught: {e}"))
    page.on("requestfailed", lambda r: errors.append(f"failed: {r.url[:100]}"))
    urls: list[str] = []
    page.on("request", lambda r: urls.append(r.url))
    yield page, errors, urls
    context.close()


@pytest.mark.parametrize("fixture", ["example_page", "trained_page"])
def test_every_plot_is_drawn_and_nothing_fails(tab, fixture, request, tmp_path):
    path = request.getfixturevalue(fixture)
    page, errors, urls = tab
    page.goto(f"file://{path}")
    page.wait_for_load_state("load")
    images = page.locator("img")
    sizes = images.evaluate_all("all => all.map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 9 and all(done and width > 0 for done, width in sizes), sizes
    boxes = page.locator("figure.plot img").evaluate_all(TITLES_AND_CORNERS)
    assert len(boxes) >= 7
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as shot:
        for title, *box in boxes:
            pixels = np.asarray(shot.convert("RGB").crop(box), np.int64)
            packed = pixels @ np.array([65536, 256, 1])
            colors, counts = np.unique(packed, return_counts=True)
            background = counts.max() / counts.sum()
            assert len(colors) > 100 and background < 0.99, title
    assert not errors, errors
    assert [url for url in urls if not url.startswith("data:")] == [f"file://{path}"]


def test_the_table_sorts_by_a_click_on_its_head(tab, example_page):
    page, errors, _ = tab
    page.goto(f"file://{example_page}")
    head = page.locator("#trials th", has_text="PSNR")
    index = head.evaluate("h => h.cellIndex")

    def column():
        cells = page.locator(f"#trials tbody td:nth-child({index + 1})")
        return [float(t.split()[0]) for t in cells.all_inner_texts()]

    head.click()
    assert column() == sorted(column(), reverse=True)
    head.click()
    assert column() == sorted(column())
    assert len(column()) == 6 and not errors


@pytest.mark.parametrize("fixture", ["example_page", "trained_page"])
def test_nothing_is_cut_off_in_a_window_of_1300_pixels(tab, fixture, request):
    page, _, _ = tab
    page.set_viewport_size({"width": 1300, "height": 800})
    page.goto(f"file://{request.getfixturevalue(fixture)}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1300
    cards = page.locator(".scroll").evaluate_all(
        "all => all.filter(c => c.checkVisibility()).map(c => [c.scrollWidth, c.clientWidth])"
    )
    assert cards and all(content <= room for content, room in cards), cards


def test_a_page_in_a_narrow_window_does_not_scroll_sideways(tab, example_page):
    page, _, _ = tab
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(f"file://{example_page}")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 420
