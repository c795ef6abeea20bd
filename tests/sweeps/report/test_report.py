"""The report of a sweep: what stands on the page, links to what, and is never mixed."""

import csv
import html.parser
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lib import sweep_folder
from tests.lib.sweep_folder import evaluation, listed, resolved, run
from ul.core.errors import ConfigError, DataError
from ul.planning.pods import model_flops
from ul.stages import registry
from ul.sweeps import report
from ul.sweeps.report import folder, gather, numbers, page, published, swept
from ul.sweeps.report.rows import DONE, FAILED, MISSING, PARTIAL

EVIL = "<script>alert('x')</script>"


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each table row."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def links(self):
        return [a["href"] for tag, a in self.tags if tag == "a"]

    def row(self, name):
        return next(row for row in self.rows if row and row[0] == name)


def written(path, **how) -> Page:
    return Page(Path(report.write(str(path), **({"predict": False} | how))).read_text())


def rendered(path) -> Page:
    """The page without its plots: quick."""
    report = gather.report(str(path), predict=False)
    return Page(page.render(report, [], "today", "again"))


def trials_csv(path):
    with (path / "report" / "trials.csv").open(newline="") as f:
        return {row["trial"]: row for row in csv.DictReader(f)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sweep of four trials that are done, with FIDs, and its page."""
    out = tmp_path_factory.mktemp("made")
    points = [(1.5, 3.0), (2.0, 3.0), (1.5, 4.0), (2.0, 4.0)]
    listed(out, [sweep_folder.trial(out, *point, fid=True) for point in points])
    return out, written(out, predict=True)


def test_the_page_is_whole_and_stands_alone(made):
    out, found = made
    assert not found.open
    sources = [a["src"] for tag, a in found.tags if tag == "img"]
    assert len(sources) >= 16 and all(s.startswith("data:image/") for s in sources)
    assert not [t for t, a in found.tags if t == "script" and "src" in a]
    outside = [a.get("href", "") for _, a in found.tags]
    assert not [h for h in outside if re.match("[a-z]+:|//", h) and h != "data:,"]


def test_every_link_leads_to_a_file(made):
    out, found = made
    links = found.links()
    assert len(links) > 40
    for link in links:
        assert (out / "report" / link).is_file(), link


def test_a_number_links_to_the_evaluation_that_has_it(made):
    out, found = made
    cells = [
        a
        for tag, a in found.tags
        if tag == "a" and a.get("title", "").startswith("step")
    ]
    assert len(cells) == 4 * 12
    for a in cells:
        record = json.loads((out / "report" / a["href"]).read_text())
        assert float(a["title"].rpartition(" ")[2]) in record.values()


def test_the_csv_has_what_the_evaluations_have(made):
    out, _ = made
    rows = trials_csv(out)
    assert len(rows) == 4
    for name, row in rows.items():
        one = json.loads(next((out / name / "stage1/evals").glob("*.json")).read_text())
        for key in ("rate_bpp", "psnr_db", "ssim", "rfid", "reconstruction_frechet"):
            assert float(row[f"{key}@n=360"]) == one[key]
        assert float(row["rate_bpp@n=360 sem"]) == one["rate_bpp_sem"]
        for file in (out / name / "stage2/evals").glob("*.json"):
            two = json.loads(file.read_text())
            at = f"@n=500@guidance={two['guidance']:g}"
            for key in ("fid", "frechet", "class_accuracy", "frechet_real"):
                assert float(row[f"{key}{at}"]) == two[key]
            assert float(row["base_rate_bpp"]) == two["base_rate_bpp"]
            assert str(file.relative_to(out)) in row["evaluations"].split()
        factor, bias = re.fullmatch("factor(.*)-bias(.*)", name).groups()
        assert (row["set loss.weighting.factor"], row["set loss.weighting.bias"]) == (
            factor,
            bias,
        )


def test_flops_are_three_forward_passes_of_all_steps(made):
    """Stage 2 against what a trace of the whole gradient counts, to a hundredth."""
    row = trials_csv(made[0])["factor2-bias3"]
    one, two = (float(row[f"training FLOPs stage {i}"]) for i in (1, 2))
    first = registry.parse(resolved("stage1"))
    forward = model_flops.closed(first).forward * first.batch_size * first.steps
    assert 2.98 < one / forward <= 3.0
    second = registry.parse(resolved("stage2", **{"stage1.workdir": "x"}))
    np.testing.assert_allclose(two, model_flops.model(second) * second.steps, rtol=1e-2)
    assert float(row["training FLOPs together"]) == one + two


def test_predictions_are_the_planners(made):
    """The README's figures of digits: factor 2, bias 4 is predicted 1.130 bits/pixel."""
    rows = trials_csv(made[0])
    got = {name: float(row["predicted bits/pixel"]) for name, row in rows.items()}
    assert round(got["factor2-bias4"], 3) == 1.130
    assert round(got["factor1.5-bias3"], 3) == 0.320
    (curve,) = gather.report(str(made[0]), predict=True).curves
    psnr = np.interp(got["factor2-bias4"], curve.bpp, curve.sampled_db)
    want = float(rows["factor2-bias4"]["predicted PSNR, dB"])
    np.testing.assert_allclose(psnr, want, atol=0.05)
    gap = np.subtract(curve.mean_db, curve.sampled_db)
    np.testing.assert_allclose(gap, 10 * math.log10(2))


def test_lines_are_of_one_bias_each_with_the_factor_along(made):
    rows = gather.report(str(made[0]), predict=False).rows
    lines = {row.trial.name: (row.series, row.label) for row in rows}
    assert lines["factor1.5-bias3"] == ("loss.weighting.bias = 3", "1.5")
    assert lines["factor2-bias4"] == ("loss.weighting.bias = 4", "2")


def test_only_what_differs_is_listed(made):
    found = gather.report(str(made[0]), predict=False).differences
    assert [(d.stage, d.key) for d in found] == [
        ("stage 1", "loss.weighting.bias"),
        ("stage 1", "loss.weighting.factor"),
    ]


def test_what_is_skipped_is_named_with_its_reason(made):
    out, found = made
    text = (out / "report" / "index.html").read_text()
    assert "LPIPS: lpips_vgg.safetensors is not in &lt;weights&gt;" in text
    assert not [a for _, a in found.tags if "published" == a.get("href")]


def test_counts_and_guidances_never_share_a_column(tmp_path):
    for name, n in (("a", 360), ("b", 100)):
        run(tmp_path / name, resolved("stage1"))
        evaluation(tmp_path / name, "reconstruction", 2000, n, psnr_db=20.0 + n)
    found = rendered(tmp_path)
    head, a, b = found.rows[0], found.row("a"), found.row("b")
    places = [i for i, title in enumerate(head) if title.startswith("PSNR")]
    assert [head[i] for i in places] == ["PSNR, dBn = 100", "PSNR, dBn = 360"]
    assert [a[i] for i in places] == ["–", "380.00"]
    assert [b[i] for i in places] == ["120.00", "–"]


def test_the_newest_step_of_ema_weights_and_the_lowest_seed_is_taken(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    for step, weights, seed, psnr in (
        (2000, "ema", 1, 1.0),
        (2000, "ema", 0, 2.0),
        (2000, "raw", 0, 3.0),
        (1000, "ema", 0, 4.0),
        (3000, "raw", 0, 5.0),
    ):
        evaluation(
            tmp_path / "a", "reconstruction", step, 360, picture=False,
            weights=weights, seed=seed, psnr_db=psnr,
        )  # fmt: skip
    (trial,) = folder.read(str(tmp_path)).trials
    assert [v.value for v in numbers.values(trial).values()] == [2.0]


def test_printed_names_head_the_columns(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    evaluation(
        tmp_path / "a", "reconstruction", 2000, 50_000, rfid=1.5, lpips=0.1,
        printed={"rfid": "rFID"},
    )  # fmt: skip
    (trial,) = folder.read(str(tmp_path)).trials
    titles = [(c.title, c.examples) for c in numbers.values(trial)]
    assert titles == [("LPIPS", 50_000), ("rFID", 50_000)]


def test_all_text_is_escaped(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    evaluation(
        tmp_path / "a", "reconstruction", 2000, 360, psnr_db=20.0, rfid=3.0,
        device=EVIL, printed={"rfid": EVIL}, skipped={"lpips": EVIL}, picture=False,
    )  # fmt: skip
    stage = {"config": EVIL, "workdir": "a", "overrides": {}}
    other = {"config": "x", "workdir": f"b/{EVIL}", "overrides": {}}
    trials = [
        {"name": f"{EVIL} $x_", "overrides": {EVIL: EVIL}, "stages": [stage]},
        {"name": "b", "overrides": {EVIL: 1}, "stages": [other]},
    ]
    listed(tmp_path, trials)
    plan = json.loads((tmp_path / "sweep.json").read_text()) | {"sweep": EVIL}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    written(tmp_path)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 8


def test_partial_failed_and_missing_trials_are_said_to_be(tmp_path):
    plans = [sweep_folder.trial(tmp_path, 2.0, bias) for bias in (3.0, 4.0)]
    third = json.loads(json.dumps(plans[0]).replace("factor2-bias3", "gone"))
    for name in ("half", "broke", "torn"):
        run(tmp_path / name, resolved("stage1"), trained=700)
        stage = {"config": "digits", "workdir": name, "overrides": {}}
        plans.append({"name": name, "overrides": {}, "stages": [stage]})
    (tmp_path / "broke.log").write_text(
        "step 700\rstep 701\nConfigError: an old one\n" + "on\n" * 9
        + "NonFiniteError: the loss is nan at step 701 & <on>\nbye\n"
    )  # fmt: skip
    (tmp_path / "torn" / "config.json").write_text('{"config": ')
    next((tmp_path / "factor2-bias4/stage2/evals").glob("*.json")).write_text('{"rate')
    next((tmp_path / "factor2-bias3/stage1/evals").glob("*.png")).write_text(
        "no picture"
    )
    listed(tmp_path, [*plans, third])
    found = written(tmp_path)
    states = {t.name: t.state for t in folder.read(str(tmp_path)).trials}
    assert states == {
        "factor2-bias3": DONE,
        "factor2-bias4": PARTIAL,
        "half": PARTIAL,
        "broke": FAILED,
        "torn": FAILED,
        "gone": MISSING,
    }
    for name, state in states.items():
        assert found.row(name)[1] == state
    text = (tmp_path / "report" / "index.html").read_text()
    for said in (
        "half: half: 700 of 2000 steps",
        "half: half: not evaluated",
        "broke: NonFiniteError: the loss is nan at step 701 &amp; &lt;on&gt;",
        "evals/generation-guidance1-2500-ema-seed0-n500.json cannot be read",
        "cannot be read as a picture",
        "missing: no evaluation of gone",
        "rFID: not measured",
        "PSNR",
    ):
        assert said in text, said
    assert trials_csv(tmp_path)["half"]["stage 1 steps"] == "700"
    # Without any FID the published ones stand alone, on no axis of ours.
    names = {p.name for p in (tmp_path / "report").glob("*.png")}
    assert "published.png" in names and not any("cost-fid" in n for n in names)
    assert "cost-frechet-n-500-guidance-1.png" in names


def test_a_picture_that_is_not_there_is_named(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    evaluation(tmp_path / "a", "reconstruction", 2000, 9, picture=False, psnr_db=20.0)
    report = gather.report(str(tmp_path), predict=False)
    text = page.render(report, [], "today", "again")
    assert "missing: a/evals/reconstruction-2000-ema-seed0-n9.png is not there" in text


def test_a_large_sheet_is_shrunk_before_it_goes_into_the_page(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    uri = report.page.pictures.of_file(tmp_path / "a.png")
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < (tmp_path / "a.png").stat().st_size / 2


def test_numbers_that_are_none_are_left_out(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    evaluation(
        tmp_path / "a", "reconstruction", 2000, 9,
        psnr_db=math.nan, ssim="high", rate_bpp=None, lpips=math.inf, rfid=2.0,
    )  # fmt: skip
    (trial,) = folder.read(str(tmp_path)).trials
    assert [c.metric for c in numbers.values(trial)] == ["rfid"]
    rendered(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [{"step": "2000"}, {"guidance": "high"}, {"skipped": []}, {"num_examples": 2.5}],
)
def test_damaged_evaluations_are_named_not_read(tmp_path, damage):
    run(tmp_path / "a", resolved("stage1"))
    path = evaluation(tmp_path / "a", "reconstruction", 2000, 9, psnr_db=20.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    (trial,) = folder.read(str(tmp_path)).trials
    assert not trial.records and path.name in trial.reasons[0]


def test_a_folder_of_runs_needs_no_sweep_json(tmp_path):
    """Stage 2 goes with the stage 1 it names, also once the folder was moved."""
    old = "/elsewhere/runs"
    run(tmp_path / "x/stage1", resolved("stage1"))
    run(
        tmp_path / "x/stage2",
        resolved("stage2", **{"stage1.workdir": f"{old}/x/stage1"}),
    )
    run(tmp_path / "ul", resolved("stage1"))
    run(
        tmp_path / "ul_base",
        resolved("stage2", **{"stage1.workdir": str(tmp_path / "ul")}),
    )
    run(tmp_path / "alone/stage1", resolved("stage1", **{"loss.weighting.bias": 2.5}))
    sweep = folder.read(str(tmp_path))
    assert not sweep.listed
    chains = {t.name: [s.workdir for s in t.stages] for t in sweep.trials}
    assert chains == {
        "alone": ["alone/stage1"],
        "ul_base": ["ul", "ul_base"],
        "x": ["x/stage1", "x/stage2"],
    }
    found = swept.table(sweep.trials, swept.differences(sweep.trials))
    assert list(found) == ["loss.weighting.bias"]


def test_one_run_by_itself_has_a_page(tmp_path):
    run(tmp_path / "s1", resolved("stage1"))
    evaluation(tmp_path / "s1", "reconstruction", 2000, 9, psnr_db=20.0, rate_bpp=0.4)
    found = written(tmp_path / "s1")
    assert all((tmp_path / "s1/report" / link).exists() for link in found.links())
    assert found.row("s1")[1] == DONE


def test_published_costs_are_those_of_the_papers_in_flop():
    """EDM2's table 6 says 0.29 zettaMAC for XS and 1.56 for XXL, training included."""
    flops = {p.name: p.training_flops for p in published.POINTS}
    np.testing.assert_allclose(flops["EDM2-XS"], 2 * 0.29e21, rtol=0.02)
    np.testing.assert_allclose(flops["EDM2-XXL"], 2 * 1.56e21, rtol=0.02)
    assert flops["SiD2 UViT/2"] is None
    assert all(p.source for p in published.POINTS)


def test_plots_of_before_do_not_stay(tmp_path):
    run(tmp_path / "a", resolved("stage1"))
    evaluation(tmp_path / "a", "reconstruction", 2000, 9, psnr_db=20.0, rate_bpp=0.4)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "rate-fid.png").touch()
    written(tmp_path)
    assert not (tmp_path / "report" / "rate-fid.png").exists()
    assert (tmp_path / "report" / "rate-psnr-db-n-9.png").exists()


def test_a_folder_with_nothing_in_it_is_refused(tmp_path):
    with pytest.raises(DataError, match="no run's config.json"):
        report.write(str(tmp_path), predict=False)
    with pytest.raises(ConfigError, match="is no folder"):
        report.write(str(tmp_path / "none"), predict=False)
    stage = {"config": "x", "workdir": "a/stage1", "overrides": {}}
    listed(tmp_path, [{"name": "a", "overrides": {}, "stages": [stage]}])
    with pytest.raises(DataError, match="none of its trials has begun"):
        report.write(str(tmp_path), predict=False)
    (tmp_path / "sweep.json").write_text('{"trials": [{"name"')
    with pytest.raises(DataError, match="cannot be read as a sweep"):
        report.write(str(tmp_path), predict=False)
    assert not (tmp_path / "report").exists()


def test_the_command_ends_with_one_line(tmp_path, command):
    output = command("report", tmp_path, code=65)
    assert output.startswith("DataError: ") and len(output.splitlines()) == 1


def test_a_workdir_with_blanks_is_quoted():
    assert page.link("a b/evals/x.json") == "../a%20b/evals/x.json"
