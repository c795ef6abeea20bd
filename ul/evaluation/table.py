"""The evaluations of several runs as one table."""

from typing import Any, NamedTuple

from etils import epath

from ul.core import files, sealed_json
from ul.core.errors import DataError
from ul.metrics import registry
from ul.metrics.metric import GENERATION

# Columns after the metrics: title, key and format.
SETTINGS = (
    ("guidance", "guidance", "{:g}"),
    ("autoguidance", "autoguidance", "{}"),
    ("decoder run", "decoder_run", "{}"),
    ("n", "num_examples", "{}"),
    ("seed", "seed", "{}"),
    ("step", "step", "{}"),
    ("weights", "weights", "{}"),
    ("run", "workdir", "{}"),
)


class _TableColumn(NamedTuple):
    title: str
    key: str
    format: str
    default_title: str

    def cell(self, result: dict) -> str:
        """The number of a result with its standard error; "" if it has no such number."""
        number = result.get(self.key)
        if number is None or _title(result, self) != self.title:
            return ""
        sem = result.get(f"{self.key}_sem")
        error = "" if sem is None else f" ± {self.format.format(sem)}"
        return self.format.format(number) + error


def _title(result: dict, column: _TableColumn) -> str:
    """The title of a column for this result, such as "FID@500"."""
    return result.get("titles", {}).get(column.key, column.default_title)


def _name(result: dict) -> str:
    """The evaluation, with its guidance if it has one."""
    if result["evaluation"] == GENERATION:
        return f"{GENERATION}-guidance{result['guidance']:g}"
    return result["evaluation"]


def _columns(results: list[dict]) -> list[_TableColumn]:
    """The columns that some result has a number for; one for each title of a key."""
    known = [(c.title, c.key, c.format) for _, c in registry.columns()]
    columns = []
    for title, key, form in (*known, *SETTINGS):
        column = _TableColumn(title, key, form, title)
        having = [r for r in results if r.get(key) is not None]
        titles = dict.fromkeys(_title(result, column) for result in having)
        columns += [column._replace(title=t) for t in titles]
    return columns


def table(results: list[dict]) -> str:
    """Return evaluations as a Markdown table; a column that is empty is left out.

    Numbers of different sample counts have columns of their own: they do not compare.
    """
    columns = _columns(results)
    rows = [["evaluation", *(column.title for column in columns)]]
    for result in results:
        rows.append([_name(result), *(column.cell(result) for column in columns)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def report(results: list[dict]) -> str:
    """Return the table and the protocols of evaluations as lines; "" if there are none."""
    return f"{table(results)}\n{protocols(results)}\n" if results else ""


def protocols(results: list[dict]) -> str:
    """Return each protocol of a table's numbers once."""
    names: dict[str, list[str]] = {}
    for result in results:
        lines = [f"  {k}: {_flat(v)}" for k, v in result["protocol"].items()]
        name = f"{_name(result)} step {result['step']} {result['weights']}"
        names.setdefault("\n".join(lines), []).append(name)
    return "\n".join(f"{', '.join(n)}\n{text}" for text, n in names.items())


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "; ".join(map(_flat, value))
    return str(value)


def evaluations(workdir) -> list[dict]:
    """Return all evaluations of a workdir, oldest first; an empty list if it has none.

    Raises:
      DataError: one is damaged, or has no date, as those of older versions.
    """
    results = []
    folder = epath.Path(workdir) / "evals"
    for file in (folder / name for name in files.names(folder, ".json")):
        try:
            results.append(sealed_json.unseal(files.read_text(file)))
        except ValueError as e:
            raise DataError(
                f"{file} must be an evaluation of this project, unchanged; {e}. Delete it "
                "and evaluate again."
            ) from e
        if "date" not in results[-1]:
            raise DataError(
                f"An evaluation must have a date; {file} has none, because an older "
                "version wrote it. Delete it and evaluate again."
            )
    return sorted(results, key=lambda result: result["date"])


def merge_defaults(*workdirs) -> dict:
    """Merge the default evaluations of all stages of a trial; later ones override earlier.

    These are the evaluations with the default settings of `ul evaluate`: EMA weights,
    seed 0, no guidance, and the decoder of stage 1.
    """
    results = [r for workdir in workdirs for r in evaluations(workdir)]
    default = [r for r in results if r["weights"] == "ema" and r["seed"] == 0]
    default = [r for r in default if "decoder_run" not in r]
    unguided = [r for r in default if r.get("guidance", 1.0) == 1.0]
    return {key: value for result in unguided for key, value in result.items()}


def read(workdirs: list[str]) -> list[dict]:
    """Return all evaluations in the workdirs.

    Raises:
      DataError: there is none, or one is of an older version.
    """
    results = [r for workdir in workdirs for r in evaluations(workdir)]
    if not results:
        raise DataError(
            f"No evaluations found in {', '.join(workdirs)}; run python -m ul evaluate first."
        )
    return results
