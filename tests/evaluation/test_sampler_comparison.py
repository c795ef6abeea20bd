"""The comparison of samplers on a run, and the adaptive grid that it measures."""

import json

import numpy as np
import pytest

from tests.lib import untrained
from tests.lib.breaks import Break
from ul.checkpoints import workdir as workdirs
from ul.core.errors import ConfigError
from ul.diffusion.sampling_grids import Adaptive
from ul.evaluation import sampler_comparison
from ul.inference import api
from ul.stages import registry


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the workdirs of both stages with untrained weights."""
    folder = tmp_path_factory.mktemp("runs")
    stage1 = untrained.leave(folder / "s1", untrained.parsed("digits", "smoke"), (2,))
    below = {"workdir": stage1, "step": 2, "weights": "ema"}
    config = untrained.parsed("digits", "smoke2", stage1=below)
    untrained.leave(folder / "s2", config, (2,))
    return folder / "s1", folder / "s2"


@pytest.fixture(
    scope="module",
    params=[pytest.param(i, marks=pytest.mark.slow) for i in (0, 1)],
    ids=["decoder", "base"],
)
def compared(runs, request):
    pairs = ("schedule:ddim", "logsnr:ancestral")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler_comparison, "REFERENCE_STEPS", 32)
        comparison = sampler_comparison.compare(
            runs[request.param], pairs, (3, 17), num_examples=8
        )
    return request.param, comparison


def test_more_calls_come_closer_to_the_flow(compared):
    is_base, comparison = compared
    assert [r.pair for r in comparison.rows[:1]] == ["reference"]
    rows = {(r.pair, r.nfe): r for r in comparison.rows}
    ddim = [r for r in comparison.rows if r.pair == "schedule:ddim"]
    few, many = sorted(ddim, key=lambda r: r.nfe)
    assert many.distance < 0.5 * few.distance
    assert is_base or abs(many.std_ratio - 1) < abs(few.std_ratio - 1) + 0.01
    assert {r.nfe for r in comparison.rows[1:]} == {3, 17}
    # Noise of its own makes a distance to the flow meaningless.
    assert rows["logsnr:ancestral", 3].distance is None
    assert all(np.isfinite(r.frechet) for r in comparison.rows)


def test_the_table_names_the_unit_and_leaves_out_psnr(compared):
    is_base, comparison = compared
    text = sampler_comparison.to_markdown(comparison)
    assert ("noise in z_0.\n" if is_base else "in 8-bit levels.\n") in text
    assert text.count("\n| ") == len(comparison.rows)
    assert all((r.images_per_s is None) is bool(is_base) for r in comparison.rows)


def test_unknown_pairs_are_named():
    for pair in ("logsnr", "cosine:ddim", "logsnr:euler"):
        with pytest.raises(ConfigError, match=f"GRID:KIND .*got {pair}"):
            sampler_comparison.parse_pairs([pair])


def test_a_run_keeps_its_curve_and_samples_on_it(runs, compared):
    is_base, comparison = compared
    run = runs[is_base]
    workdirs.update_sampling(
        str(run),
        {"grid": "adaptive", "nats_per_logsnr": list(comparison.nats_per_logsnr)},
    )
    load = api.load_generator if is_base else api.load_autoencoder
    loaded = load(run)
    sampler = loaded.sampler.sampler if is_base else loaded.codec.decoder.sampler
    assert (
        isinstance(sampler.grid, Adaptive) and len(sampler.grid.nats_per_logsnr) == 30
    )
    # Starting the run again does not forget it.
    record = json.loads((run / "config.json").read_text())
    config = registry.parse(record["config"])
    again = record["config"] | {
        "sampling": record["config"]["sampling"] | {"nats_per_logsnr": []}
    }
    workdirs.write_or_check_config(
        workdirs.epath.Path(run), again, record["provenance"], allow_changes=False
    )
    saved = workdirs.load_run_record(run)["config"]["sampling"]
    assert (
        tuple(saved["nats_per_logsnr"])
        == config.sampling.nats_per_logsnr
        == comparison.nats_per_logsnr
    )


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        ((), []),
        (("runs/student",), ["student"]),
        (("runs/s1", "runs/s2"), ["s1", "s2"]),
        (("runs/two/stage2", "runs/four/stage2"), ["two", "four"]),
        (("runs/a", "runs/a/b"), ["a", "a/b"]),
    ],
)
def test_students_are_named_by_what_differs_in_their_paths(paths, labels):
    assert sampler_comparison.distinct_labels(paths) == labels


BREAKS = (
    Break(
        "students named by the last part of their paths",
        "ul/evaluation/sampler_comparison.py",
        "for end in (0, -1):",
        "for end in (0,):",
        "test_students_are_named_by_what_differs_in_their_paths",
    ),
    Break(
        "a curve that is forgotten",
        "ul/checkpoints/workdir.py",
        'config["sampling"] | {"nats_per_logsnr": before}',
        'config["sampling"] | {"nats_per_logsnr": []}',
        "test_a_run_keeps_its_curve_and_samples_on_it",
    ),
    Break(
        "the decoder's last call left out",
        "ul/evaluation/sampler_comparison.py",
        "sampler.nfe + last_call,",
        "sampler.nfe,",
        "test_more_calls_come_closer_to_the_flow",
    ),
)
