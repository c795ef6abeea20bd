"""The report in a real browser, without a network: nothing fails, every plot is drawn.

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
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What each picture shows, and its corners on the whole page.
BOXES = """all => all.map(i => { const r = i.getBoundingClientRect();
  return [i.alt, r.left + scrollX, r.top + scrollY, r.right + scrollX, r.bottom + scrollY] })"""


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium if there is one, else Playwright's."""
    sync_api = pytest.importorskip("playwright.sync_api")
    system = next(filter(None, map(shutil.which, NAMES)), None)
    # Chromium has no sandbox for root, as in containers.
    args = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as p:
        try:
            found = p.chromium.launch(executable_path=system, args=args)
        except sync_api.Error as e:
            pytest.skip(f"no Chromium to be had: {str(e).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six trials made by hand, with FIDs."""
    out = sweep_folder.sweep(tmp_path_factory.mktemp("made"), fid=True)
    return report.write(str(out), predict=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, cache):
    """A trial trained and evaluated for real, in seconds, and one that was cut short."""
    out, run = tmp_path_factory.mktemp("trained"), Commands(cache)
    quiet = "--config.log.tensorboard=false"

    def stage1(factor):
        where, changed = (
            out / f"factor{factor}" / "stage1",
            f"--config.loss.weighting.factor={factor}",
        )
        run("train", f"--config={DIGITS}:smoke", f"--workdir={where}", changed, quiet)
        return where

    one, two = stage1(2.5), out / "factor2.5" / "stage2"
    run("evaluate", f"--workdir={one}")
    below = f"--config.stage1.workdir={one}"
    run("train", f"--config={DIGITS}:smoke2", f"--workdir={two}", below, quiet)
    run("evaluate", f"--workdir={two}", "--num_examples=40")
    stage1(1.5)
    return run("report", out).splitlines()[-1]


@pytest.fixture
def opened(browser):
    """A page as a user sees it, and what went wrong in it."""
    context = browser.new_context(offline=True, viewport={"width": 1400, "height": 900})
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(f"{m.type}: {m.text}"))
    page.on("pageerror", lambda e: wrong.append(f"uncaught: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url[:100]}"))
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    yield page, wrong, asked
    context.close()


@pytest.mark.parametrize("which", ["made", "trained"])
def test_every_plot_is_drawn_and_nothing_fails(opened, which, request, tmp_path):
    path = request.getfixturevalue(which)
    page, wrong, asked = opened
    page.goto(f"file://{path}")
    page.wait_for_load_state("load")
    images = page.locator("img")
    sizes = images.evaluate_all("all => all.map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 9 and all(done and width > 0 for done, width in sizes), sizes
    boxes = page.locator("figure.plot img").evaluate_all(BOXES)
    assert len(boxes) >= 7
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    with Image.open(tmp_path / "page.png") as shot:
        for title, *box in boxes:
            pixels = np.asarray(shot.convert("RGB").crop(box), np.int64)
            packed = pixels @ np.array([65536, 256, 1])
            colours, counts = np.unique(packed, return_counts=True)
            blank = counts.max() / counts.sum()
            assert len(colours) > 100 and blank < 0.99, title
    assert not wrong, wrong
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{path}"]


def test_the_table_sorts_by_a_click_on_its_head(opened, made):
    page, wrong, _ = opened
    page.goto(f"file://{made}")
    head = page.locator("#trials th", has_text="PSNR")
    at = head.evaluate("h => h.cellIndex")

    def column():
        cells = page.locator(f"#trials tbody td:nth-child({at + 1})")
        return [float(t) for t in cells.all_inner_texts()]

    head.click()
    assert column() == sorted(column(), reverse=True)
    head.click()
    assert column() == sorted(column())
    assert len(column()) == 6 and not wrong


def test_a_narrow_window_scrolls_no_page_sideways(opened, made):
    page, _, _ = opened
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(f"file://{made}")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 420
