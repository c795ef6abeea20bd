"""Asked for in words: from the config to samples, and probes of what they show."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from absl.testing import flagsaver

from launch.lib import prompts
from tests.importing.test_captions import TOKENS, make_encoder
from tests.lib import clip_files, untrained
from ul import evaluation
from ul.core.errors import ConfigError, DataError
from ul.data.datasets import Datasets
from ul.data.sources import captioned, colored_digits
from ul.evaluation import probes
from ul.evaluation.context import EvaluationContext
from ul.evaluation.request import Request
from ul.importing import captions
from ul.inference import api, conditions
from ul.metrics import clip_score
from ul.metrics.clip_score import ClipScore
from ul.metrics.extractors import FeatureNetworks
from ul.runs import assemble, latent_cache
from ul.stages import registry as stages


def parsed(variant="stage2", **changes):
    return untrained.parsed("captions", variant, **changes)


def generator(variant="stage2"):
    """As loaded, without its parameters."""
    stage, datasets = untrained.stage("captions", variant), dataset_of(variant)
    return api.Generator(stage, datasets, stage.sampler, None, None, 0, "ema")


def dataset_of(variant="stage2", **changes):
    return untrained.datasets("captions", variant, **changes)


def test_a_text_model_is_asked_by_text_alone():
    config = parsed()
    stage = stages.build(config)
    fields = stage.conditions.fields
    assert {n: f.shape for n, f in fields.items()} == {
        "text": (12, 32),
        "text_length": (),
    }
    init = jax.eval_shape(lambda: stage.init(jax.random.key(0)))
    names = set(init) | set(init["conditioning"])
    assert "text" in names and "label" not in names
    batch = assemble.abstract_batch(stage, 8, assemble.make_mesh(config))
    assert batch["text"].dtype == np.float16 and "label" not in batch


def test_text_goes_where_the_config_wants_it():
    datasets = dataset_of()
    example = datasets.eval[5]
    assert example["text"].shape == (12, 32) and example["text_length"] > 0
    assert dataset_of("stage1").eval[5].keys() == {"image", "label"}
    batch = next(datasets.eval_batches(datasets.eval, 4))
    assert batch["text"].shape == (4, 12, 32) and batch["text_length"].dtype == np.int32


def test_cached_latents_have_the_captions_of_their_images():
    source = dataset_of().source("eval")
    items = [{"z_clean": i, "label": 0} for i in range(2 * len(source))]
    joined = captioned.CaptionedLatents(items, source)
    found = joined[len(source) + 3]
    assert len(joined) == len(items) and found["z_clean"] == len(source) + 3
    np.testing.assert_array_equal(found["text"], source[3]["text"])
    codec = types.SimpleNamespace(is_deterministic=True)
    configs = (parsed(), parsed(data={"text": (0, 0)}))
    one, other = (
        latent_cache.cache_identity(c, Datasets.from_config(c), codec, {})
        for c in configs
    )
    assert one == other
    image = dataset_of().without_text().fixed("train")[4]
    assert image.keys() == {"image", "label"}


def test_other_text_than_the_data_have_is_refused():
    with pytest.raises(
        DataError, match=r"data.text must be .* \(12, 32\); got \(12, 16\)"
    ):
        dataset_of(data={"text": (12, 16)}).source("eval")
    digits = untrained.datasets("digits", "stage2", data={"text": (12, 32)})
    with pytest.raises(
        DataError, match=r"data.text must be .* \(0, 0\); got \(12, 32\)"
    ):
        digits.source("eval")
    with pytest.raises(ConfigError, match="'joint', which has no text conditioning"):
        parsed("stage1", data={"text": (12, 32)})
    with pytest.raises(ConfigError, match="data.text must be .*; got"):
        parsed(data={"text": (12, 0)})


def test_a_condition_is_checked_before_it_is_sampled():
    told = {n: np.stack([v, v]) for n, v in colored_digits.embed("a red two").items()}

    def checked(given):
        fields = untrained.stage("captions", "stage2").conditions
        return conditions.validate_conditions(fields, given, None)

    found = checked(told)
    assert found.keys() == {"text", "text_length"} and found["text"].dtype == np.float16
    np.testing.assert_array_equal(found["text"], told["text"])
    with pytest.raises(
        DataError, match="conditions must include text, text_length; 'text' is missing"
    ):
        checked([1, 2])
    with pytest.raises(
        DataError, match=r"text must be float16 .* got float16\[2, 12, 31\]"
    ):
        checked(told | {"text": told["text"][..., 1:]})
    with pytest.raises(
        DataError, match=r"text_length must be int32 \[N\]; got float64"
    ):
        checked(told | {"text_length": [3.0, 3.0]})
    with pytest.raises(DataError, match="text_length must be in 0..12"):
        checked(told | {"text_length": [3, 13]})
    with pytest.raises(DataError, match=r"text: 2, text_length: 1"):
        checked(told | {"text_length": [3]})


@pytest.fixture(scope="module")
def probe():
    return probes.CaptionProbe(generator())


def permute_colors(image):
    """Red is green, green is blue, blue is red."""
    return np.roll(image, 1, axis=-1)


def test_probes_know_digit_and_color_of_real_images(probe):
    real = {name: np.mean(right) for name, right in probe.real.items()}
    assert real["text_accuracy_color"] == 1.0
    assert real["text_accuracy"] == real["text_accuracy_digit"] > 0.97


def test_a_wrong_color_and_a_wrong_digit_are_both_wrong(probe):
    held_out = dataset_of().eval
    first = 7
    examples = [held_out[i] for i in range(first, first + 40)]
    asked = {"label": np.asarray([e["label"] for e in examples])}
    image = np.stack([e["image"] for e in examples])
    right = probe.scores(image, asked, first)
    assert np.mean(right["text_accuracy"]) > 0.9
    wrong = probe.scores(permute_colors(image), asked, first)
    assert not wrong["text_accuracy"].any() and not wrong["text_accuracy_color"].any()
    np.testing.assert_array_equal(
        wrong["text_accuracy_digit"], right["text_accuracy_digit"]
    )
    other = probe.scores(image, {"label": (asked["label"] + 1) % 10}, first)
    assert other["text_accuracy_color"].all() and not other["text_accuracy"].any()


def test_a_probe_counts_samples_in_their_order(probe):
    held_out = dataset_of().eval
    total = len(held_out)
    for rows in (range(4), range(4, 10)):
        examples = [held_out[i % total] for i in rows]
        image = np.stack([e["image"] for e in examples])
        image = permute_colors(image) if rows[0] else image
        labels = np.asarray([e["label"] for e in examples])
        probe.add(image, {"label": labels}, rows[0])
    found = probe.result()
    assert found["text_accuracy_color"] == 0.4
    digit = probe.real["text_accuracy_digit"][:10]
    assert found["text_accuracy_digit"] == np.mean(digit)
    assert found["text_accuracy"] == np.sum(digit[:4]) / 10
    assert found["text_accuracy_color_real"] == 1.0


def test_which_probes_sit_over_which_run():
    digits = types.SimpleNamespace(
        stage=untrained.stage("digits", "stage2"),
        datasets=untrained.datasets("digits", "stage2"),
    )
    assert probes.ClassProbe.obstacle(digits) is None
    assert probes.CaptionProbe.obstacle(digits) is not None
    assert probes.CaptionProbe.obstacle(generator()) is None
    assert probes.ClassProbe.obstacle(generator()) is not None


def test_prompts_come_back_with_their_encoder(tmp_path):
    lines, out = tmp_path / "lines.txt", str(tmp_path / "p.npz")
    lines.write_text("a dog\n\n two  cats sleep\n")
    made, _ = make_encoder()
    prompt_lines = captions.read_prompts(str(lines))
    captions.write_prompt_embeddings(prompt_lines, made, out)
    found, said = captions.read_prompt_embeddings(out, {"kind": "colored_digits"})
    assert said == prompt_lines == ["a dog", "two cats sleep"]
    assert found["text_length"].tolist() == [2, 3]
    assert found["text"].shape == (2, TOKENS, made.channels)
    vectors = made.embed(["a dog"])[0].astype(np.float16)
    np.testing.assert_array_equal(found["text"][0, :2], vectors)
    source = {"kind": "imported_captions", "captions": str(tmp_path / "set")}
    # Without a manifest this cannot be checked, so there is a warning alone.
    assert captions.read_prompt_embeddings(out, source)[1] == said
    (tmp_path / "set").mkdir()
    other = {
        "encoder": {"model": "another"},
        "splits": {"train": {"count": 0, "shards": []}},
    }
    other["splits"]["eval"] = other["splits"]["train"]
    (tmp_path / "set/manifest.json").write_text(json.dumps(other))
    with pytest.raises(ConfigError, match="must be embedded by the text encoder of"):
        captions.read_prompt_embeddings(out, source)
    with pytest.raises(
        DataError, match="must be an .npz file of python -m ul embed_captions"
    ):
        captions.read_prompt_embeddings(str(lines), source)


def test_what_a_sampler_is_asked_on_the_command_line():
    gen, classes = (
        generator(),
        types.SimpleNamespace(
            stage=untrained.stage("digits", "stage2"), num_classes=10
        ),
    )
    with flagsaver.flagsaver(text=["a red two", "blue nine"]):
        found, said = prompts.conditions(gen, 3)
        assert said == ["a red two", "blue nine", "a red two"]
        want = colored_digits.embed("blue nine")
        np.testing.assert_array_equal(found["text"][1], want["text"])
        assert found["text_length"].tolist() == [3, 2, 3]
        with pytest.raises(ConfigError, match="which takes --labels"):
            prompts.conditions(classes, 3)
    with pytest.raises(ConfigError, match="either --text or --text_embeddings"):
        prompts.conditions(gen, 3)
    for wrong in ("10", "-1", "three"):
        with flagsaver.flagsaver(labels=[wrong]):
            with pytest.raises(ConfigError, match=f"classes, 0 to 9; got '{wrong}'"):
                prompts.conditions(classes, 3)
    with flagsaver.flagsaver(labels=["3", "5"]):
        assert prompts.conditions(classes, 3)[1] == ["class3", "class5", "class3"]
        with pytest.raises(ConfigError, match="--labels cannot be used"):
            prompts.conditions(gen, 3)
    assert prompts.file_name(3, "seven , cyan") == "000003-seven_cyan.png"
    assert prompts.file_name(0, "class3") == "000000-class3.png"


@pytest.mark.slow
def test_samples_follow_the_words_from_config_to_evaluation(tmp_path):
    """Untrained weights, but no zero ones: what is said changes what is drawn."""
    below = untrained.leave(tmp_path / "s1", parsed("smoke"))
    above = parsed("smoke2", stage1={"workdir": below})
    where = untrained.leave(tmp_path / "s2", above)
    gen = api.load_generator(where)

    def drawn(caption, **how):
        told = {n: np.stack([v] * 2) for n, v in colored_digits.embed(caption).items()}
        return gen.sample_latents(told, **how)

    one = drawn("a red two")
    np.testing.assert_array_equal(one, drawn("a red two"))
    assert np.abs(one - drawn("a blue nine")).max() > 1e-3
    assert np.abs(one - drawn("a red two", guidance=3.0)).max() > 1e-4
    folder = clip_files.write_converted_folder(tmp_path)
    metrics = ("text_accuracy", "clip_score")
    request = Request(workdir=where, num_examples=30, metrics=metrics)
    record = evaluation.evaluate_generator(
        request, EvaluationContext(FeatureNetworks(None), str(folder))
    )
    source = gen.datasets.source("eval")
    assert record["captions"] == [source.caption(i) for i in range(30)]
    assert record["text_accuracy"] <= record["text_accuracy_color"] <= 1
    assert record["text_accuracy_real"] > 0.97
    assert "held-out examples" in record["protocol"]["labels"]
    asked = [source.text_condition(i) for i in range(30)]
    again = gen.sample({n: np.stack([t[n] for t in asked]) for n in asked[0]})
    score = ClipScore(clip_score.load_network(folder), gen.autoencoder.mesh)
    score.add(again, record["captions"])
    np.testing.assert_allclose(record["clip_score"], score.value(), rtol=1e-6)
    assert record["protocol"]["clip"]["sha256"] == score.protocol()["sha256"]
    without = evaluation.evaluate_generator(
        dataclasses.replace(request, metrics=None),
        EvaluationContext(FeatureNetworks(None)),
    )
    assert "CLIP needs a directory of weights" in without["skipped"]["clip_score"]
    assert "clip_score" not in without
