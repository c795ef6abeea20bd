"""Render the report as one HTML page. All text from files goes through `escape`."""

import datetime
import html
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from ul.core.errors import DataError
from ul.sweeps.report import costs, numbers, pictures, published, swept
from ul.sweeps.report.rows import (
    EvaluationPicture,
    MetricColumn,
    MetricValue,
    ReportFigure,
    SweepReport,
    TrialResult,
    TrialRow,
)
from ul.sweeps.report.skeleton import PAGE

EMPTY_CELL = '<td class="none">–</td>'
# A longer setting is cut in the table; config.json has the whole.
MAX_CELL_LENGTH = 60
# A longer list of notes is folded.
MAX_OPEN_NOTES = 12


def escape(value: Any) -> str:
    """Escape a value for HTML."""
    return html.escape(str(value))


def link_to(path: str) -> str:
    """Return the link from the page in <sweep>/report/ to a path in the sweep's folder."""
    return urllib.parse.quote(f"../{path}")


def render(
    report: SweepReport, figures: Sequence[ReportFigure], created: str, command: str
) -> str:
    """Return the HTML of the page.

    `created` is the time of the report, and `command` is what writes it again.
    """
    parts = [
        _overview(report, created),
        _trial_tables(report),
        _notes(report.notes),
        _plots(figures, "rate", "Bitrate and quality"),
        _plots(figures, "cost", "Quality and cost"),
        _published_results(report),
        _all_pictures(report),
        _plots(figures, "losses", "Loss curves"),
        _differences(report),
        f"<h2>Update this page</h2><p><code>{escape(command)}</code></p>",
    ]
    title = f"{report.sweep.title}: sweep report"
    return PAGE.substitute(title=escape(title), body="\n".join(p for p in parts if p))


def _overview(report: SweepReport, created: str) -> str:
    """Return the title and the list of what was run where, and when."""
    sweep = report.sweep
    runs = [s for t in sweep.trials for s in t.stages if s.config is not None]
    evaluations = [r.fields for t in sweep.trials for r in t.records]
    states = [t.state for t in sweep.trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    code = _join_distinct([sweep.code, *(r.code for r in runs)])
    evaluation_code = _join_distinct(e.get("code_version", "") for e in evaluations)
    training_hardware = _join_distinct(
        f"{p.get('devices', 'unknown devices')}, mesh {_mesh_shape(p.get('mesh'))}"
        for p in (run.provenance for run in runs)
    )
    evaluation_hardware = _join_distinct(
        f"{e.get('device', 'unknown device')}, jax {e.get('jax', 'unknown')}"
        for e in evaluations
    )
    items = {
        "sweep": sweep.title
        if sweep.has_sweep_json
        else f"{sweep.title} (a folder of runs without sweep.json)",
        "trials": f"{len(sweep.trials)}: {counts}",
        "swept settings": ", ".join(report.swept_keys)
        or "none, because the trials do not differ",
        "code": _join_known({"trained with": code, "evaluated with": evaluation_code}),
        "hardware": _join_known(
            {"trained on": training_hardware, "evaluated on": evaluation_hardware}
        ),
        "evaluated": _time_span(evaluations),
        "page written": created,
    }
    rows = "".join(
        f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items()
    )
    return f'<h1>{escape(sweep.title)}</h1><dl class="overview">{rows}</dl>'


def _mesh_shape(mesh: Any) -> str:
    return "x".join(map(str, mesh.values())) if isinstance(mesh, dict) else "unknown"


def _join_distinct(values: Iterable[Any]) -> str:
    return " | ".join(dict.fromkeys(str(v) for v in values if v))


def _join_known(phrases: Mapping[str, str]) -> str:
    """Join phrases of a verb and its object, without those whose object is empty."""
    return "; ".join(f"{verb} {known}" for verb, known in phrases.items() if known)


def _time_span(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return when the first and the last of the evaluations were written."""
    written = sorted(str(e["date"]) for e in evaluations if e.get("date"))
    if not written:
        return "never"
    return f"{_format_time(written[0])} to {_format_time(written[-1])}"


def _format_time(written: str) -> str:
    try:
        return datetime.datetime.fromisoformat(written).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return written


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    is_open = " open" if len(notes) <= MAX_OPEN_NOTES else ""
    return (
        f"<details{is_open}><summary>Missing or incomplete: {len(notes)}</summary>"
        f'<ul class="notes" id="notes">{items}</ul></details>'
    )


def _trial_tables(report: SweepReport) -> str:
    """Return the tables with one row per trial, whose numbers link to the evaluations.

    Numbers of samples, which have a guidance, are in a table of their own: one table of
    everything would be wider than a window.
    """
    columns = [c for c in report.columns if numbers.metric(c).in_page]
    settings = swept.swept_settings(report.sweep.trials, report.differences)
    of_samples = [c for c in columns if c.guidance is not None]
    of_runs = [c for c in columns if c.guidance is None]
    heads = ['<th class="left">trial</th>', '<th class="left">state</th>']
    heads += [f"<th>{_breakable(key)}</th>" for key in settings]
    heads += [_head("predicted", "bits/pixel")]
    heads += [_head(c.title, _column_note(c)) for c in of_runs]
    heads += [_head("training FLOPs", s) for s in ("stage 1", "stage 2", "total")]
    rows = [_run_row(row, of_runs, settings) for row in report.rows]
    tables = f"<h2>Trials</h2>{_sorted_table('trials', heads, rows)}"
    if of_samples:
        heads = ['<th class="left">trial</th>']
        heads += [_head(c.title, _column_note(c)) for c in of_samples]
        rows = [_sample_row(row, of_samples) for row in report.rows]
        tables += f"<h2>Samples</h2>{_sorted_table('samples', heads, rows)}"
    return (
        f"{tables}"
        '<p class="soft">Each number links to the evaluation that it comes from: the one of '
        "the EMA weights at the newest step with the lowest seed. Numbers over different "
        "counts of examples (n) are in separate columns. "
        '<a href="trials.csv">trials.csv</a> has all numbers. Click on a heading to sort.</p>'
        f'<p class="soft">{escape(costs.CONVENTION)}</p>'
    )


def _sorted_table(name: str, heads: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table that a click on a head sorts."""
    return (
        f'<div class="card scroll"><table class="sorts" id="{name}"><thead>'
        f"<tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _breakable(key: str) -> str:
    """Return a dotted key that may be broken after its dots."""
    return escape(key).replace(".", ".<wbr>")


def _run_row(
    row: TrialRow,
    columns: Sequence[MetricColumn],
    settings: Mapping[str, Mapping[str, Any]],
) -> str:
    cells = [f"<td>{escape(row.trial.name)}</td>", _state_cell(row.trial)]
    cells += [_setting_cell(values, row.trial.name) for values in settings.values()]
    prediction = row.prediction
    cells += [_number_cell("{:.3f}", prediction.bpp) if prediction else EMPTY_CELL]
    cells += _metric_cells(row, columns)
    flops = (row.cost.stage1, row.cost.stage2, row.cost.total)
    cells += [EMPTY_CELL if f is None else _number_cell("{:.2e}", f) for f in flops]
    return f"<tr>{''.join(cells)}</tr>"


def _sample_row(row: TrialRow, columns: Sequence[MetricColumn]) -> str:
    cells = [f"<td>{escape(row.trial.name)}</td>", *_metric_cells(row, columns)]
    return f"<tr>{''.join(cells)}</tr>"


def _metric_cells(row: TrialRow, columns: Sequence[MetricColumn]) -> list[str]:
    return [
        _metric_cell(c, row.values[c]) if c in row.values else EMPTY_CELL
        for c in columns
    ]


def _head(title: str, note: str) -> str:
    return f"<th>{escape(title)}<small>{escape(note)}</small></th>"


def _column_note(column: MetricColumn) -> str:
    """Return the number of examples, unless the title has it, and the guidance."""
    parts = []
    if column.num_examples is not None and "@" not in column.title:
        parts.append(f"n = {column.num_examples:,}")
    if column.guidance is not None:
        parts.append(f"guidance {column.guidance:g}")
    return ", ".join(parts)


def _state_cell(trial: TrialResult) -> str:
    reasons = escape("; ".join(trial.reasons))
    return (
        f'<td class="left"><span class="state {trial.state}" title="{reasons}">'
        f"{trial.state}</span></td>"
    )


def _setting_cell(values: Mapping[str, Any], trial: str) -> str:
    if trial not in values:
        return EMPTY_CELL
    text = swept.format_setting(values[trial])
    is_long = len(text) > MAX_CELL_LENGTH
    cell = f"{text[:MAX_CELL_LENGTH]}…" if is_long else text
    return f'<td title="{escape(text)}">{escape(cell)}</td>'


def _number_cell(form: str, value: float) -> str:
    return f'<td data-value="{value!r}">{form.format(value)}</td>'


def _metric_cell(column: MetricColumn, value: MetricValue) -> str:
    form = numbers.metric(column).format
    sem = f"<small>± {form.format(value.sem)}</small>" if value.sem is not None else ""
    fields, link = value.record.fields, link_to(value.record.path)
    weights = str(fields["weights"])
    title = (
        f"step {fields['step']}, {weights} weights, seed {fields['seed']}: "
        f"{value.value!r}"
    )
    other_weights = "" if weights == "ema" else f"<small>{escape(weights)}</small>"
    return (
        f'<td data-value="{value.value!r}"><a href="{escape(link)}" '
        f'title="{escape(title)}">{form.format(value.value)}</a>{sem}{other_weights}</td>'
    )


def _plots(figures: Sequence[ReportFigure], group: str, title: str) -> str:
    """Return the figures of one group, which the names of the figures begin with."""
    prefixes = {"rate": ("rate", "predicted"), "cost": ("cost", "calls")}
    group_figures = [
        f for f in figures if f.name.startswith(prefixes.get(group, (group,)))
    ]
    if not group_figures:
        return f"<h2>{escape(title)}</h2>{_placeholder('there is nothing to plot')}"

    def size_class(name: str) -> str:
        if group == "losses":
            return " wide"
        return " double" if name.endswith("published") else ""

    plots = "".join(
        f'<figure class="card plot{size_class(f.name)}">'
        f'<a href="{escape(f.name)}.png"><img alt="{escape(f.title)}" '
        f'src="{pictures.png_data_uri(f.png)}"></a>'
        f'<figcaption>{escape(f.caption)} <a href="{escape(f.name)}.svg">Vector graphics'
        "</a></figcaption></figure>"
        for f in group_figures
    )
    return f'<h2>{escape(title)}</h2><div class="plots">{plots}</div>'


def _published_results(report: SweepReport) -> str:
    """Return the table of results on ImageNet-512, if the sweep was trained on its like."""
    if not published.is_comparable(report.sweep.trials):
        return ""
    rows = "".join(
        f"<tr><td>{escape(r.name)}</td><td>{'yes' if r.guided else 'no'}</td>"
        f"<td>{r.fid:g}</td>"
        + (f"<td>{r.training_flops:.2e}</td>" if r.training_flops else EMPTY_CELL)
        + f'<td class="left">{escape(r.source)}</td></tr>'
        for r in published.RESULTS
    )
    return (
        "<details><summary>Published results and their sources "
        f"({escape(published.DATASET)}, FID of 50,000 samples; training FLOPs of the "
        "generator alone, 6 x MACs x images)</summary>"
        '<div class="card scroll"><table><thead><tr><th>model</th><th>guided</th>'
        '<th>FID</th><th>training FLOPs</th><th class="left">source</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _all_pictures(report: SweepReport) -> str:
    trials = "".join(_trial_pictures(report, row) for row in report.rows)
    return (
        f'<h2>Reconstructions and samples</h2><div class="pictures">{trials}</div>'
        '<p class="soft">Reconstructions: the first row of each pair shows held-out images, '
        "and the second row shows the autoencoder's reconstructions of them. Samples: the "
        "classes follow each other in turn.</p>"
    )


def _trial_pictures(report: SweepReport, row: TrialRow) -> str:
    content = "".join(_picture(report, p) for p in row.pictures)
    content = content or _placeholder(f"{row.trial.name} has no evaluation")
    return (
        f'<section class="card trial"><h3>{escape(row.trial.name)}</h3>'
        f'<div class="pair">{content}</div></section>'
    )


def _picture(report: SweepReport, picture: EvaluationPicture) -> str:
    path = epath.Path(report.sweep.path) / picture.path
    try:
        uri = pictures.file_data_uri(path)
    except DataError as e:
        return _placeholder(
            str(e) if path.exists() else f"{picture.path} does not exist"
        )
    return (
        f'<figure><a href="{escape(link_to(picture.path))}"><img class="sheet" '
        f'alt="{escape(picture.title)}" src="{uri}"></a>'
        f"<figcaption>{escape(picture.title)}</figcaption></figure>"
    )


def _placeholder(reason: str) -> str:
    """Return a box in the place of something that is missing."""
    return f'<div class="placeholder">missing: {escape(reason)}</div>'


def _differences(report: SweepReport) -> str:
    title = "<h2>Config differences</h2>"
    runs = [t for t in report.sweep.trials if any(s.config for s in t.stages)]
    if len(runs) < 2:
        return f"{title}<p>Fewer than two trials have begun.</p>"
    if not report.differences:
        return f"{title}<p>The configs of all trials that have begun are equal.</p>"
    names = [row.trial.name for row in report.rows]
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f'<tr><td>{escape(d.key)}</td><td class="left">{escape(d.stage)}</td>'
        + "".join(_setting_cell(d.values, name) for name in names)
        + "</tr>"
        for d in report.differences
    )
    return (
        f'{title}<div class="card scroll"><table id="differences">'
        f'<thead><tr><th>key</th><th class="left">stage</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        '<p class="soft">Settings from each run\'s config.json that differ between the '
        "trials. A dash means that the trial has no such key. The paths of the runs are "
        "left out.</p>"
    )
