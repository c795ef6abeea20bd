"""Every ablation and baseline trains, resumes and is evaluated; the tables of them all."""

import importlib
import json

import pytest

from ul import evaluation
from ul.checkpoints import reading
from ul.evaluation import paper_tables, table
from ul.metrics import extractors
from ul.runs import session
from ul.stages import registry

KINDS = importlib.import_module("experiments.ablations").KINDS
SINGLE = importlib.import_module("experiments.single_stage").VARIANTS


def small(file, variant, steps, **changes):
    """The experiment at a size of seconds."""
    c = importlib.import_module(f"experiments.{file}").get_config(variant).unlock()
    c.update(steps=steps, batch_size=8)
    c.log.every = c.checkpoint.every = 2
    c.validation.update(every=steps, num_images=4, num_examples=8)
    c.eval.update(batch_size=8, num_examples=8, num_draws=2)
    c.sampling.num_steps = 2
    for name in ("prior", "base"):
        if name in c:
            c[name].update(widths=(32,), depths=(1,))
    if "decoder" in c:
        c.decoder.update(width=32, depth=1, channels=(16,))
    if "encoder" in c:
        c.encoder.update(channels=(16, 16), blocks=(1, 1))
    c.update(changes)
    return registry.parse(registry.to_dict(c))


def trained(where, file, variant, **changes):
    """Two steps, and two more by a second session."""
    for steps in (2, 4):
        session.train(small(file, variant, steps, **changes), str(where))
    assert reading.verified_steps(where)[-1] == 4
    steps = [
        json.loads(line)["step"]
        for line in (where / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps) and steps[0] == 2 and steps[-1] == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS + SINGLE)
def test_trains_resumes_and_is_evaluated(name, tmp_path):
    file = "ablations" if name in KINDS else "single_stage"
    trained(tmp_path / name, file, name)
    last = tmp_path / name
    if name in KINDS:
        below = dict(workdir=str(last), step=None, weights="ema")
        last = tmp_path / f"{name}_base"
        trained(last, file, f"{name}_base", stage1=below)
    shared = evaluation.EvaluationContext(extractors.FeatureNetworks(None))
    if "autoencoder" in evaluation.kinds_of(tmp_path / name):
        few = evaluation.Request(workdir=str(tmp_path / name), num_examples=8)
        evaluation.evaluate_autoencoder(few, shared)
    assert "generator" in evaluation.kinds_of(last)
    few = evaluation.Request(workdir=str(last), num_examples=16)
    evaluation.evaluate_generator(few, shared)
    found = table.merge_defaults(tmp_path / name, tmp_path / f"{name}_base")
    assert found["frechet"] > 0
    if name != "pixels":
        assert found["rate_bpp"] > 0 and found["psnr_db"] > 0
    # An encoder's own variance would have to be taken off the base's figure again.
    exact = name in KINDS and name not in ("learned_variance", "kl_autoencoder")
    assert ("base_rate_bpp" in found) is exact
    text = paper_tables.tables({name: found})
    assert f"| {found['frechet']:.3f} |" in text


def test_the_tables_have_ours_beside_the_papers():
    ours = dict(rate_bpp=0.5, base_rate_bpp=0.4, psnr_db=20.0, frechet=1.0)
    text = paper_tables.tables({"diffusion_decoder": ours})
    line = next(row for row in text.splitlines() if "then a diffusion" in row)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:] == [
        "0.500", "0.400", "20.00", "", "1.000", "", ".072", ".072", "1.1", "2.4",
    ]  # fmt: skip
    assert "not FID" in text and {r.trial for r in paper_tables.TABLE_6} - {"-"} >= set(
        SINGLE
    )
    rows = paper_tables.TABLE_5 + paper_tables.TABLE_6
    assert {row.trial for row in rows} - {"-"} == {*KINDS, *SINGLE, "diffusion_decoder"}
