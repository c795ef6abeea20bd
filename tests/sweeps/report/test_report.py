"""The report of a sweep: its page, its links, its CSV, and what it must not mix."""

import csv
import dataclasses
import html.parser
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from tests.lib import sweep_folder
from tests.lib.breaks import Break
from tests.lib.sweep_folder import (
    resolved_config,
    write_evaluation,
    write_run,
    write_sweep_json,
)
from ul.core.errors import ConfigError, DataError
from ul.planning.pods import model_flops
from ul.runs.train_spec import TrainSpec
from ul.stages import registry
from ul.sweeps import report
from ul.sweeps.report import (
    folder,
    gather,
    numbers,
    page,
    published,
    spreadsheet,
    swept,
)
from ul.sweeps.report.plots import calls as calls_plot
from ul.sweeps.report.plots import cost, rate
from ul.sweeps.report.rows import DONE, FAILED, MISSING, PARTIAL

SCRIPT = "<script>alert('x')</script>"


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the cells of each table row."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br", "wbr"):
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


def write_page(path, predict=False) -> Page:
    return Page(Path(report.write(str(path), predict=predict)).read_text())


def render_page(path) -> Page:
    """Render the page without its plots, which is quick."""
    report = gather.gather_report(str(path), predict=False)
    return Page(page.render(report, [], "today", "the command"))


def read_csv(path):
    """Return the rows of trials.csv by trial."""
    with (path / "report" / "trials.csv").open(newline="") as f:
        return {row["trial"]: row for row in csv.DictReader(f)}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep of four finished trials with FIDs: its folder and its page."""
    out = tmp_path_factory.mktemp("sweep")
    points = [(1.5, 3.0), (2.0, 3.0), (1.5, 4.0), (2.0, 4.0)]
    trials = [sweep_folder.write_trial(out, *point, fid=True) for point in points]
    write_sweep_json(out, trials)
    return out, write_page(out, predict=True)


def test_the_page_is_complete_and_needs_no_other_file(sweep):
    _, page = sweep
    assert not page.open
    sources = [a["src"] for tag, a in page.tags if tag == "img"]
    assert len(sources) >= 16 and all(s.startswith("data:image/") for s in sources)
    assert not [t for t, a in page.tags if t == "script" and "src" in a]
    links = [a.get("href", "") for _, a in page.tags]
    assert not [h for h in links if re.match("[a-z]+:|//", h) and h != "data:,"]


def test_every_link_leads_to_a_file(sweep):
    out, page = sweep
    links = page.links()
    assert len(links) > 40
    for link in links:
        assert (out / "report" / link).is_file(), link


def test_a_number_links_to_the_evaluation_that_has_it(sweep):
    out, page = sweep
    links = [
        a
        for tag, a in page.tags
        if tag == "a" and a.get("title", "").startswith("step")
    ]
    assert len(links) == 4 * 12
    for a in links:
        record = json.loads((out / "report" / a["href"]).read_text())
        assert float(a["title"].rpartition(" ")[2]) in record.values()


def test_the_csv_has_the_numbers_of_the_evaluations(sweep):
    out, _ = sweep
    rows = read_csv(out)
    assert len(rows) == 4
    for name, row in rows.items():
        reconstruction, *_ = (out / name / "stage1/evals").glob("*.json")
        fields = json.loads(reconstruction.read_text())
        for key in ("rate_bpp", "psnr_db", "ssim", "rfid", "reconstruction_frechet"):
            assert float(row[f"{key}@n=360"]) == fields[key]
        assert float(row["rate_bpp@n=360 sem"]) == fields["rate_bpp_sem"]
        for generation in (out / name / "stage2/evals").glob("*.json"):
            fields = json.loads(generation.read_text())
            suffix = f"@n=500@guidance={fields['guidance']:g}"
            for key in ("fid", "frechet", "class_accuracy", "frechet_real"):
                assert float(row[f"{key}{suffix}"]) == fields[key]
            assert float(row["base_rate_bpp"]) == fields["base_rate_bpp"]
            assert str(generation.relative_to(out)) in row["evaluations"].split()
        factor, bias = re.fullmatch("factor(.*)-bias(.*)", name).groups()
        assert (row["set loss.weighting.factor"], row["set loss.weighting.bias"]) == (
            factor,
            bias,
        )


def test_flops_are_three_forward_passes_of_all_steps(sweep):
    """Stage 2 agrees with a trace of the whole gradient to one percent."""
    row = read_csv(sweep[0])["factor2-bias3"]
    flops1, flops2 = (float(row[f"training FLOPs stage {i}"]) for i in (1, 2))
    stage1 = registry.parse(resolved_config("stage1"))
    per_example = model_flops.closed_form_flops(registry.build(stage1)).forward
    assert 2.98 < flops1 / (per_example * stage1.batch_size * stage1.steps) <= 3.0
    stage2 = registry.parse(resolved_config("stage2", **{"stage1.workdir": "x"}))
    traced = model_flops.model_flops(TrainSpec(stage2)) * stage2.steps
    np.testing.assert_allclose(flops2, traced, rtol=1e-2)
    assert float(row["training FLOPs total"]) == flops1 + flops2


def test_predictions_are_the_planners(sweep):
    """The planner predicts 1.130 bits/pixel for digits at factor 2 and bias 4."""
    rows = read_csv(sweep[0])
    bpp = {name: float(row["predicted bits/pixel"]) for name, row in rows.items()}
    assert round(bpp["factor2-bias4"], 3) == 1.130
    assert round(bpp["factor1.5-bias3"], 3) == 0.320
    (curve,) = gather.gather_report(str(sweep[0]), predict=True).curves
    psnr = np.interp(bpp["factor2-bias4"], curve.bpp, curve.sample_psnr_db)
    predicted = float(rows["factor2-bias4"]["predicted PSNR, dB"])
    np.testing.assert_allclose(psnr, predicted, atol=0.05)
    gap = np.subtract(curve.mean_psnr_db, curve.sample_psnr_db)
    np.testing.assert_allclose(gap, 10 * math.log10(2))


def test_lines_have_one_bias_each_and_run_along_the_factor(sweep):
    rows = gather.gather_report(str(sweep[0]), predict=False).rows
    lines = {row.trial.name: (row.series, row.label) for row in rows}
    assert lines["factor1.5-bias3"] == ("loss.weighting.bias = 3", "1.5")
    assert lines["factor2-bias4"] == ("loss.weighting.bias = 4", "2")


def test_only_differences_are_listed(sweep):
    differences = gather.gather_report(str(sweep[0]), predict=False).differences
    assert [(d.stage, d.key) for d in differences] == [
        ("stage 1", "loss.weighting.bias"),
        ("stage 1", "loss.weighting.factor"),
    ]


def test_skipped_metrics_are_named_with_their_reason(sweep):
    out, page = sweep
    text = (out / "report" / "index.html").read_text()
    assert "LPIPS: lpips_vgg.safetensors is not in &lt;weights&gt;" in text
    assert "ImageNet-512" not in text  # these are digits


def test_every_plot_is_also_vector_graphics(sweep):
    written = sweep[0] / "report"
    pngs, svgs = (
        sorted(p.stem for p in written.glob(f"*.{k}")) for k in ("png", "svg")
    )
    assert len(pngs) >= 8 and pngs == svgs
    (plot,) = written.glob("rate-psnr*.svg")
    texts = [
        e.text or "" for e in ElementTree.parse(plot).iter() if e.tag.endswith("text")
    ]
    assert "bits/pixel" in texts


def test_quality_has_error_bars_as_well_as_the_rate(sweep, monkeypatch):
    drawn, draw = set(), Axes.errorbar

    def errorbar(self, *args, xerr, yerr, **options):
        drawn.update(zip(xerr, yerr, strict=True))
        return draw(self, *args, xerr=xerr, yerr=yerr, **options)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    rate.quality_against_rate(gather.gather_report(str(sweep[0]), predict=False))
    # PSNR is a mean over images and has an error; metrics of whole sets have none.
    assert drawn == {(0.01, 0.2), (0.01, 0.0)}


def test_quality_against_decoder_calls_follows_each_kind_of_student(
    tmp_path, monkeypatch
):
    """A sweep with one number of calls has no such plot."""
    trials = []
    for seed in (0, 1):
        for calls in (4, 1, 2):
            stage1, name = tmp_path / f"shared/{seed}", f"seed{seed}-calls{calls}"
            student = tmp_path / name / "stage2"
            if not stage1.exists():
                write_run(stage1, resolved_config("stage1"))
            settings = {"distillation.num_calls": calls, "sampling.num_steps": calls}
            settings |= {"stage1.workdir": str(stage1)}
            write_run(student, resolved_config("distill", **settings))
            distance = seed + 1 / calls
            write_evaluation(
                student, "reconstruction", 1200, 360, reconstruction_frechet=distance
            )
            overrides = {"seed": seed, "stage2:distillation.num_calls": calls}
            stages = [
                {
                    "config": f"digits:{variant}",
                    "workdir": str(path.relative_to(tmp_path)),
                    "overrides": {},
                }
                for variant, path in (("stage1", stage1), ("distill", student))
            ]
            trials.append({"name": name, "overrides": overrides, "stages": stages})
    write_sweep_json(tmp_path, trials)
    content = gather.gather_report(str(tmp_path), predict=False)
    lines, plot = {}, Axes.plot

    def record(self, x, y, **options):
        lines[options["label"]] = list(zip(x, y, strict=True))
        return plot(self, x, y, **options)

    monkeypatch.setattr(Axes, "plot", record)
    (figure,) = calls_plot.quality_against_calls(content)
    assert lines == {
        f"seed = {seed}": [(1, seed + 1.0), (2, seed + 0.5), (4, seed + 0.25)]
        for seed in (0, 1)
    }
    assert f"{figure.name}.png" in page.render(content, [figure], "today", "command")
    one = dataclasses.replace(content, rows=content.rows[:1])
    assert calls_plot.quality_against_calls(one) == []


@pytest.mark.parametrize("size", [512, 256])
def test_published_results_are_shown_beside_their_own_data_only(sweep, size):
    report = gather.gather_report(str(sweep[0]), predict=False)
    for row in report.rows:
        for stage in row.trial.stages:
            stage.config["data"] |= {
                "image_shape": [size, size, 3],
                "num_classes": 1000,
            }
    figures = cost.quality_against_flops(report)
    text = page.render(report, figures, "today", "the command")
    assert ("FID@500 against training FLOPs" in text) and (
        ("Published results and their sources" in text) == (size == 512)
    )
    assert ("cost-fid-n-500-guidance-1-published.png" in text) == (size == 512)


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@sum", "\tx", "-1e3"])
def test_no_text_cell_is_a_formula(tmp_path, text):
    write_run(tmp_path / text, resolved_config("stage1"))
    out = spreadsheet.trials(gather.gather_report(str(tmp_path), predict=False))
    cell = next(csv.reader(out.splitlines()[1:]))[0]
    assert cell == ("-1e3" if text == "-1e3" else f"'{text}")  # a number stays one


def test_counts_and_guidances_never_share_a_column(tmp_path):
    for name, n in (("a", 360), ("b", 100)):
        write_run(tmp_path / name, resolved_config("stage1"))
        workdir = tmp_path / name
        write_evaluation(workdir, "reconstruction", 2000, n, psnr_db=20.0 + n)
    page = render_page(tmp_path)
    head, a, b = page.rows[0], page.row("a"), page.row("b")
    columns = [i for i, title in enumerate(head) if title.startswith("PSNR")]
    assert [head[i] for i in columns] == ["PSNR, dBn = 100", "PSNR, dBn = 360"]
    assert [a[i] for i in columns] == ["–", "380.00"]
    assert [b[i] for i in columns] == ["120.00", "–"]


def test_the_newest_step_of_ema_weights_and_the_lowest_seed_is_taken(tmp_path):
    write_run(tmp_path / "a", resolved_config("stage1"))
    for step, weights, seed, psnr in (
        (2000, "ema", 1, 1.0),
        (2000, "ema", 0, 2.0),
        (2000, "raw", 0, 3.0),
        (1000, "ema", 0, 4.0),
        (3000, "raw", 0, 5.0),
    ):
        write_evaluation(
            tmp_path / "a", "reconstruction", step, 360, picture=False,
            weights=weights, seed=seed, psnr_db=psnr,
        )  # fmt: skip
    (trial,) = folder.read_sweep(str(tmp_path)).trials
    assert [v.value for v in numbers.values(trial).values()] == [2.0]


def test_printed_names_are_the_column_titles(tmp_path):
    write_run(tmp_path / "a", resolved_config("stage1"))
    write_evaluation(
        tmp_path / "a", "reconstruction", 2000, 50_000, rfid=1.5, lpips=0.1,
        titles={"rfid": "rFID"},
    )  # fmt: skip
    (trial,) = folder.read_sweep(str(tmp_path)).trials
    titles = [(c.title, c.num_examples) for c in numbers.values(trial)]
    assert titles == [("LPIPS", 50_000), ("rFID", 50_000)]


def test_all_text_is_escaped(tmp_path):
    write_run(tmp_path / "a", resolved_config("stage1"))
    write_evaluation(
        tmp_path / "a", "reconstruction", 2000, 360, psnr_db=20.0, rfid=3.0,
        device=SCRIPT, titles={"rfid": SCRIPT}, skipped={"lpips": SCRIPT}, picture=False,
    )  # fmt: skip
    stage = {"config": SCRIPT, "workdir": "a", "overrides": {}}
    other = {"config": "x", "workdir": f"b/{SCRIPT}", "overrides": {}}
    trials = [
        {"name": f"{SCRIPT} $x_", "overrides": {SCRIPT: SCRIPT}, "stages": [stage]},
        {"name": "b", "overrides": {SCRIPT: 1}, "stages": [other]},
    ]
    write_sweep_json(tmp_path, trials)
    content = json.loads((tmp_path / "sweep.json").read_text()) | {"sweep": SCRIPT}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    write_page(tmp_path)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert") >= 8


def test_partial_failed_and_missing_trials_are_marked(tmp_path):
    trials = [sweep_folder.write_trial(tmp_path, 2.0, bias) for bias in (3.0, 4.0)]
    missing = json.loads(json.dumps(trials[0]).replace("factor2-bias3", "absent"))
    for name in ("half", "broke", "torn"):
        write_run(tmp_path / name, resolved_config("stage1"), trained_steps=700)
        stage = {"config": "digits", "workdir": name, "overrides": {}}
        trials.append({"name": name, "overrides": {}, "stages": [stage]})
    (tmp_path / "broke.log").write_text(
        "step 700\rstep 701\nConfigError: an old one\n" + "on\n" * 9
        + "NonFiniteError: the loss is nan at step 701 & <on>\nbye\n"
    )  # fmt: skip
    (tmp_path / "torn" / "config.json").write_text('{"config": ')
    next((tmp_path / "factor2-bias4/stage2/evals").glob("*.json")).write_text('{"rate')
    next((tmp_path / "factor2-bias3/stage1/evals").glob("*.png")).write_text(
        "no picture"
    )
    write_sweep_json(tmp_path, [*trials, missing])
    page = write_page(tmp_path)
    states = {t.name: t.state for t in folder.read_sweep(str(tmp_path)).trials}
    assert states == {
        "factor2-bias3": DONE,
        "factor2-bias4": PARTIAL,
        "half": PARTIAL,
        "broke": FAILED,
        "torn": FAILED,
        "absent": MISSING,
    }
    for name, state in states.items():
        assert page.row(name)[1] == state
    text = (tmp_path / "report" / "index.html").read_text()
    for expected in (
        "half: half: 700 of 2000 steps",
        "half: half: not evaluated",
        "broke: NonFiniteError: the loss is nan at step 701 &amp; &lt;on&gt;",
        "evals/generation-guidance1-2500-ema-seed0-n500.json cannot be read",
        "must be a PNG image, but cannot be read",
        "missing: absent has no evaluation",
        "rFID: not measured",
        "PSNR",
    ):
        assert expected in text, expected
    assert read_csv(tmp_path)["half"]["stage 1 steps"] == "700"
    names = {p.name for p in (tmp_path / "report").glob("*.png")}
    assert not any("cost-fid" in n for n in names)
    assert "cost-frechet-n-500-guidance-1.png" in names


def test_a_picture_that_does_not_exist_is_named(tmp_path):
    workdir = tmp_path / "a"
    write_run(workdir, resolved_config("stage1"))
    write_evaluation(workdir, "reconstruction", 2000, 9, picture=False, psnr_db=20.0)
    report = gather.gather_report(str(tmp_path), predict=False)
    text = page.render(report, [], "today", "the command")
    picture = "a/evals/reconstruction-2000-ema-seed0-n9.png"
    assert f"missing: {picture} does not exist" in text


def test_a_large_picture_is_shrunk_before_it_goes_into_the_page(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    uri = report.page.pictures.file_data_uri(tmp_path / "a.png")
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < (tmp_path / "a.png").stat().st_size / 2


def test_values_that_are_not_finite_numbers_are_left_out(tmp_path):
    write_run(tmp_path / "a", resolved_config("stage1"))
    write_evaluation(
        tmp_path / "a", "reconstruction", 2000, 9,
        psnr_db=math.nan, ssim="high", rate_bpp=None, lpips=math.inf, rfid=2.0,
    )  # fmt: skip
    (trial,) = folder.read_sweep(str(tmp_path)).trials
    assert [c.metric for c in numbers.values(trial)] == ["rfid"]
    render_page(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [{"step": "2000"}, {"guidance": "high"}, {"skipped": []}, {"num_examples": 2.5}],
)
def test_damaged_evaluations_are_named_and_left_out(tmp_path, damage):
    write_run(tmp_path / "a", resolved_config("stage1"))
    path = write_evaluation(tmp_path / "a", "reconstruction", 2000, 9, psnr_db=20.0)
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    (trial,) = folder.read_sweep(str(tmp_path)).trials
    assert not trial.records and path.name in trial.reasons[0]


def test_a_folder_of_runs_needs_no_sweep_json(tmp_path):
    """A stage 2 is joined to the stage 1 that it names, even if the folder was moved."""
    old = "/elsewhere/runs"
    write_run(tmp_path / "x/stage1", resolved_config("stage1"))
    write_run(
        tmp_path / "x/stage2",
        resolved_config("stage2", **{"stage1.workdir": f"{old}/x/stage1"}),
    )
    write_run(tmp_path / "ul", resolved_config("stage1"))
    write_run(
        tmp_path / "ul_base",
        resolved_config("stage2", **{"stage1.workdir": str(tmp_path / "ul")}),
    )
    write_run(
        tmp_path / "alone/stage1",
        resolved_config("stage1", **{"loss.weighting.bias": 2.5}),
    )
    sweep = folder.read_sweep(str(tmp_path))
    assert not sweep.has_sweep_json
    chains = {t.name: [s.workdir for s in t.stages] for t in sweep.trials}
    assert chains == {
        "alone": ["alone/stage1"],
        "ul_base": ["ul", "ul_base"],
        "x": ["x/stage1", "x/stage2"],
    }
    differences = swept.config_differences(sweep.trials)
    assert list(swept.swept_settings(sweep.trials, differences)) == [
        "loss.weighting.bias"
    ]


def test_a_single_run_has_a_page(tmp_path):
    workdir = tmp_path / "s1"
    write_run(workdir, resolved_config("stage1"))
    write_evaluation(workdir, "reconstruction", 2000, 9, psnr_db=20.0, rate_bpp=0.4)
    page = write_page(workdir)
    assert all((workdir / "report" / link).exists() for link in page.links())
    assert page.row("s1")[1] == DONE


def test_published_costs_are_those_of_the_papers_in_flop():
    """EDM2's table 6 gives 0.29 zettaMAC of training for XS and 1.56 for XXL."""
    flops = {r.name: r.training_flops for r in published.RESULTS}
    np.testing.assert_allclose(flops["EDM2-XS"], 2 * 0.29e21, rtol=0.02)
    np.testing.assert_allclose(flops["EDM2-XXL"], 2 * 1.56e21, rtol=0.02)
    assert flops["SiD2 UViT/2"] is None
    assert all(r.source for r in published.RESULTS)


def test_plots_of_an_earlier_report_are_removed(tmp_path):
    workdir = tmp_path / "a"
    write_run(workdir, resolved_config("stage1"))
    write_evaluation(workdir, "reconstruction", 2000, 9, psnr_db=20.0, rate_bpp=0.4)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "rate-fid.png").touch()
    write_page(tmp_path)
    assert not (tmp_path / "report" / "rate-fid.png").exists()
    assert (tmp_path / "report" / "rate-psnr-db-n-9.png").exists()


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(DataError, match="it contains no run. Train there first"):
        report.write(str(tmp_path), predict=False)
    with pytest.raises(ConfigError, match="No folder found in"):
        report.write(str(tmp_path / "none"), predict=False)
    stage = {"config": "x", "workdir": "a/stage1", "overrides": {}}
    write_sweep_json(tmp_path, [{"name": "a", "overrides": {}, "stages": [stage]}])
    with pytest.raises(DataError, match="none of its trials has started"):
        report.write(str(tmp_path), predict=False)
    (tmp_path / "sweep.json").write_text('{"trials": [{"name"')
    with pytest.raises(DataError, match="must describe a sweep, but cannot be read"):
        report.write(str(tmp_path), predict=False)
    assert not (tmp_path / "report").exists()


def test_errors_of_the_command_are_one_line(tmp_path, command):
    output = command("report", tmp_path, code=65)
    assert output.startswith("DataError: ") and len(output.splitlines()) == 1


def test_a_path_with_blanks_is_quoted():
    assert page.link_to("a b/evals/x.json") == "../a%20b/evals/x.json"


BREAKS = (
    Break(
        "a report with unescaped text",
        "ul/sweeps/report/page.py",
        "return html.escape(str(value))",
        "return str(value)",
        "test_all_text_is_escaped",
    ),
    Break(
        "a link with an unquoted path",
        "ul/sweeps/report/page.py",
        'urllib.parse.quote(f"../{path}")',
        'f"../{path}"',
        "test_a_path_with_blanks_is_quoted",
    ),
    Break(
        "a report that counts the forward pass alone",
        "ul/sweeps/report/costs.py",
        "closed_form_flops(stage.stage).training",
        "closed_form_flops(stage.stage).forward",
        "test_flops_are_three_forward_passes_of_all_steps",
    ),
)
