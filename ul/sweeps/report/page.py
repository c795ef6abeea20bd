"""The report as one HTML page. Every text from outside goes through `esc`."""

import datetime
import html
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath

from ul.core.errors import DataError
from ul.sweeps.report import costs, numbers, pictures, published, swept
from ul.sweeps.report.rows import Column, Figure, Picture, Report, Row, Trial, Value
from ul.sweeps.report.skeleton import PAGE

NONE = '<td class="none">–</td>'
# A cell is cut beyond; the whole is in config.json.
LONGEST = 60
# More notes than this are folded.
MOST_OPEN = 12


def esc(value: Any) -> str:
    return html.escape(str(value))


def link(source: str) -> str:
    """A file below the sweep, from the page in <sweep>/report/."""
    return urllib.parse.quote(f"../{source}")


def render(report: Report, figures: Sequence[Figure], made: str, command: str) -> str:
    """`made`: when; `command`: what makes the page again."""
    parts = [
        _head(report, made),
        _table(report),
        _notes(report.notes),
        _plots(figures, "rate", "Bitrate and quality"),
        _plots(figures, "cost", "Quality and training cost"),
        _published(),
        _sheets(report),
        _plots(figures, "losses", "Loss curves"),
        _differences(report),
        f"<h2>Again</h2><p><code>{esc(command)}</code></p>",
    ]
    title = f"{report.sweep.title}: sweep report"
    return PAGE.substitute(title=esc(title), body="\n".join(p for p in parts if p))


def _head(report: Report, made: str) -> str:
    trials = report.sweep.trials
    stages = [s for t in trials for s in t.stages if s.config is not None]
    records = [r.numbers for t in trials for r in t.records]
    states = [t.state for t in trials]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    written = sorted(str(r["written"]) for r in records if r.get("written"))
    when = f"{_day(written[0])} to {_day(written[-1])}" if written else "not evaluated"
    code = _several([report.sweep.code, *(s.code for s in stages)])
    judged = _several(r.get("code_version", "") for r in records)
    machine = _several(
        f"{r.get('device', 'unknown device')}, jax {r.get('jax', 'unknown')}"
        for r in records
    )
    mesh = _several(
        f"{p.get('devices', 'unknown devices')}, mesh {_axes(p.get('mesh'))}"
        for p in (s.provenance for s in stages)
    )
    facts = {
        "sweep": report.sweep.title
        if report.sweep.listed
        else f"{report.sweep.title} (a folder of runs, without sweep.json)",
        "trials": f"{len(trials)}: {counts}",
        "swept": ", ".join(report.swept) or "nothing: the trials do not differ",
        "code": f"{code}; evaluated with {judged}" if judged else code,
        "evaluated": when,
        "machine": f"trained on {mesh}; evaluated on {machine or 'none'}",
        "this page": made,
    }
    items = "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in facts.items())
    return f'<h1>{esc(report.sweep.title)}</h1><dl class="facts">{items}</dl>'


def _axes(mesh: Any) -> str:
    return "x".join(map(str, mesh.values())) if isinstance(mesh, dict) else "unknown"


def _several(values: Iterable[Any]) -> str:
    return " | ".join(dict.fromkeys(str(v) for v in values if v))


def _day(written: str) -> str:
    try:
        return datetime.datetime.fromisoformat(written).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return written


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{esc(note)}</li>" for note in notes)
    shown = " open" if len(notes) <= MOST_OPEN else ""
    return (
        f"<details{shown}><summary>Missing: {len(notes)}</summary>"
        f'<ul class="notes" id="notes">{items}</ul></details>'
    )


def _table(report: Report) -> str:
    """One row a trial; every number links to the evaluation it comes from."""
    shown = [c for c in report.columns if numbers.metric(c).shown]
    keys = swept.table(report.sweep.trials, report.differences)
    heads = ['<th class="left">trial</th>', '<th class="left">state</th>']
    heads += [f"<th>{esc(key)}</th>" for key in keys]
    heads += [_th("predicted", "bits/pixel")]
    heads += [_th(c.title, _under(c)) for c in shown]
    heads += [_th("training FLOPs", s) for s in ("stage 1", "stage 2", "together")]
    body = []
    for row in report.rows:
        cells = [f"<td>{esc(row.trial.name)}</td>", _state(row.trial)]
        cells += [_setting(values, row.trial.name) for values in keys.values()]
        p = row.prediction
        cells += [_number("{:.3f}", p.bpp) if p else NONE]
        cells += [
            _measured(c, row.values[c]) if c in row.values else NONE for c in shown
        ]
        flops = (row.cost.stage1, row.cost.stage2, row.cost.together)
        cells += [NONE if f is None else _number("{:.2e}", f) for f in flops]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<h2>Trials</h2><div class="card scroll"><table class="sorts" id="trials"><thead>'
        f"<tr>{''.join(heads)}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="soft">Each number links to the evaluation it comes from: EMA weights, '
        "newest step, lowest seed. Numbers of different counts of examples (n) never share "
        f'a column. All numbers: <a href="trials.csv">trials.csv</a>.</p>'
        f'<p class="soft">{esc(costs.CONVENTION)}</p>'
    )


def _th(title: str, below: str) -> str:
    return f"<th>{esc(title)}<small>{esc(below)}</small></th>"


def _under(column: Column) -> str:
    named = column.examples is None or "@" in column.title
    parts = [] if named else [f"n = {column.examples:,}"]
    if column.guidance is not None:
        parts.append(f"guidance {column.guidance:g}")
    return ", ".join(parts)


def _state(trial: Trial) -> str:
    why = esc("; ".join(trial.reasons))
    return (
        f'<td class="left"><span class="state {trial.state}" title="{why}">'
        f"{trial.state}</span></td>"
    )


def _setting(values, name: str) -> str:
    if name not in values:
        return NONE
    text = swept.text(values[name])
    cut = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return f'<td title="{esc(text)}">{esc(cut)}</td>'


def _number(form: str, value: float) -> str:
    return f'<td data-value="{value!r}">{form.format(value)}</td>'


def _measured(column: Column, value: Value) -> str:
    form = numbers.metric(column).form
    shown = form.format(value.value)
    sem = f"<small>± {form.format(value.sem)}</small>" if value.sem is not None else ""
    r = value.record.numbers
    said = (
        f"step {r['step']}, {r['weights']} weights, seed {r['seed']}: {value.value!r}"
    )
    other = "" if r["weights"] == "ema" else f"<small>{esc(r['weights'])}</small>"
    return (
        f'<td data-value="{value.value!r}"><a href="{esc(link(value.record.source))}" '
        f'title="{esc(said)}">{shown}</a>{sem}{other}</td>'
    )


def _plots(figures: Sequence[Figure], group: str, title: str) -> str:
    """The figures of one group; the prediction goes with the rates."""
    groups = {"rate": ("rate", "predicted"), "cost": ("cost", "published")}
    chosen = [f for f in figures if f.name.startswith(groups.get(group, (group,)))]
    if not chosen:
        return f"<h2>{esc(title)}</h2>{_gone('no numbers to draw')}"

    def size(name: str) -> str:
        double = " double" if name.endswith("published") else ""
        return " wide" if group == "losses" else double

    drawn = "".join(
        f'<figure class="card plot{size(f.name)}">'
        f'<a href="{esc(f.name)}.png"><img alt="{esc(f.title)}" '
        f'src="{pictures.of_png(f.png)}"></a>'
        f"<figcaption>{esc(f.caption)}</figcaption></figure>"
        for f in chosen
    )
    return f'<h2>{esc(title)}</h2><div class="plots">{drawn}</div>'


def _published() -> str:
    rows = "".join(
        f"<tr><td>{esc(p.name)}</td><td>{'yes' if p.guided else 'no'}</td>"
        f"<td>{p.fid:g}</td>"
        + (f"<td>{p.training_flops:.2e}</td>" if p.training_flops else NONE)
        + f'<td class="left">{esc(p.source)}</td></tr>'
        for p in published.POINTS
    )
    return (
        f"<details><summary>Published points and their sources ({esc(published.DATA)}, FID "
        "of 50,000 samples; generator only, 6 x MACs x images)</summary>"
        '<div class="card scroll"><table><thead><tr><th>model</th><th>guided</th>'
        '<th>FID</th><th>training FLOPs</th><th class="left">source</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _sheets(report: Report) -> str:
    trials = "".join(_sheet(report, row) for row in report.rows)
    return (
        f'<h2>Reconstructions and samples</h2><div class="pictures">{trials}</div>'
        '<p class="soft">Reconstructions: held-out images in the first row of each pair, '
        "what the autoencoder makes of them below. Samples: labels in turn.</p>"
    )


def _sheet(report: Report, row: Row) -> str:
    shown = "".join(_picture(report, p) for p in row.pictures)
    inner = shown or _gone(f"no evaluation of {row.trial.name}")
    return (
        f'<section class="card trial"><h3>{esc(row.trial.name)}</h3>'
        f'<div class="pair">{inner}</div></section>'
    )


def _picture(report: Report, picture: Picture) -> str:
    path = epath.Path(report.sweep.path) / picture.source
    try:
        uri = pictures.of_file(path)
    except DataError as e:
        return _gone(str(e) if path.exists() else f"{picture.source} is not there")
    return (
        f'<figure><a href="{esc(link(picture.source))}"><img class="sheet" '
        f'alt="{esc(picture.title)}" src="{uri}"></a>'
        f"<figcaption>{esc(picture.title)}</figcaption></figure>"
    )


def _gone(what: str) -> str:
    return f'<div class="gone">missing: {esc(what)}</div>'


def _differences(report: Report) -> str:
    if not report.differences:
        return "<h2>Config differences</h2><p>None: the configs are the same.</p>"
    names = [row.trial.name for row in report.rows]
    heads = "".join(f"<th>{esc(name)}</th>" for name in names)
    body = "".join(
        f'<tr><td>{esc(d.key)}</td><td class="left">{esc(d.stage)}</td>'
        + "".join(_setting(d.values, name) for name in names)
        + "</tr>"
        for d in report.differences
    )
    return (
        '<h2>Config differences</h2><div class="card scroll"><table id="differences">'
        f'<thead><tr><th>key</th><th class="left">stage</th>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        '<p class="soft">Only settings that are not the same in all trials, from each run\'s '
        "config.json; a dash: the trial has no such key. Where the runs lie is left out.</p>"
    )
