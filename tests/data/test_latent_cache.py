"""A latent cache on disk is complete or refused, and the same whoever wrote it."""

import numpy as np
import pytest
from etils import epath

from tests.lib.breaks import Break
from ul.core.errors import ConfigError, DataError, NonFiniteError, StorageError
from ul.data import latent_cache, pipeline
from ul.data.latent_cache import LatentSource

SHAPE, COUNTS, SHARD_EXAMPLES = (2, 3, 4), {"train": 23, "eval": 7}, 5
RNG = np.random.default_rng(0)
Z = {s: RNG.normal(size=(n, *SHAPE)).astype(np.float32) for s, n in COUNTS.items()}
SPLITS = {
    s: {"count": n, "orientations": 1, "fingerprint": f"f-{s}"}
    for s, n in COUNTS.items()
}
ENCODER = {"workdir": "/runs/s1", "step": 8, "weights": "ema", "encoder": "0123abcd"}


def make_identity(**changes):
    return {
        "encoder": ENCODER,
        "data": {"source": {"kind": "digits"}, "flip": False},
        "latent_shape": list(SHAPE),
        "splits": SPLITS,
        "dtype": "float16",
        "shard_examples": SHARD_EXAMPLES,
    } | changes


def make_batches(shard, batch_size=2):
    """The rows of a shard in batches, as an encoder gives them."""
    stop = shard.first + shard.count
    for first in range(shard.first, stop, batch_size):
        row = np.arange(first, min(first + batch_size, stop))
        yield {"row": row, "label": row % 3, "z_clean": Z[shard.split][row]}


def write(out, processes=1, **changes):
    """Write a cache as ul encode does: process p writes every P-th shard."""
    identity, store = make_identity(**changes), latent_cache.open_store(out)
    store.begin(identity, latent_cache.differences)
    shards = latent_cache.plan_shards(identity)
    summaries = {}
    for p in range(processes):
        for shard in shards[p::processes]:
            summaries[shard] = store.read_summary(shard) or latent_cache.write_shard(
                store, shard, make_batches(shard), identity["dtype"]
            )
    ordered = [summaries[shard] for shard in shards]
    return latent_cache.write_manifest(store, identity, ordered)


@pytest.fixture
def out(tmp_path):
    path = epath.Path(tmp_path / "latents")
    path.mkdir()
    return path


@pytest.fixture
def store(out):
    return latent_cache.open_store(out)


def contents(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize("dtype", latent_cache.DTYPES)
def test_a_cache_returns_the_latents_that_were_written(out, store, dtype):
    manifest = write(out, dtype=dtype)
    assert latent_cache.load_manifest(store)[0] == manifest
    latent_cache.check_identity(store, manifest, make_identity(dtype=dtype))
    store.verify(manifest, part=(0, 1))
    for split, n in COUNTS.items():
        source = LatentSource(store, manifest, split)
        assert len(source) == n
        stored = np.stack([source[i]["z_clean"] for i in range(n)])
        assert stored.dtype == latent_cache.DTYPES[dtype]
        # Half a unit in the last place: 11, 8 and 24 bits of mantissa.
        bits = {"float16": 11, "bfloat16": 8, "float32": 24}[dtype]
        np.testing.assert_allclose(
            stored.astype(np.float32), Z[split], rtol=2.0**-bits, atol=2.0**-25
        )
        assert [source[i]["label"] for i in range(n)] == [i % 3 for i in range(n)]


def test_a_directory_that_another_command_began_is_refused(out, store):
    store.begin({"size": 8, "classes": ["a"]}, lambda stored, requested: [])
    with pytest.raises(ConfigError, match="differs .another command began it"):
        write(out)


def test_the_latents_of_context_frames_are_stored_beside_the_latents(out, store):
    identity = make_identity(context_frames=2)
    shards = latent_cache.plan_shards(identity)
    store.begin(identity, latent_cache.differences)
    summaries = []
    for shard in shards:
        batches = ({**b, "context": -b["z_clean"]} for b in make_batches(shard))
        summaries.append(latent_cache.write_shard(store, shard, batches, "float16"))
    manifest = latent_cache.write_manifest(store, identity, summaries)
    source = LatentSource(store, manifest, "train")
    for i in (0, 22):
        np.testing.assert_array_equal(source[i]["context"], -source[i]["z_clean"])
        np.testing.assert_array_equal(
            source[i]["z_clean"], Z["train"][i].astype(np.float16)
        )


def test_statistics_are_of_the_stored_latents(out):
    manifest = write(out)
    z = Z["train"].astype(np.float16).astype(np.float64)
    statistics = manifest["splits"]["train"]["statistics"]
    np.testing.assert_allclose(statistics["mean"], z.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], z.std((0, 1, 2)), rtol=1e-12)
    assert (statistics["min"], statistics["max"]) == (z.min(), z.max())


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_any_number_of_processes_gives_the_same_bytes(tmp_path, processes):
    outs = [epath.Path(tmp_path / name) for name in ("one", "many")]
    for path, count in zip(outs, (1, processes), strict=True):
        path.mkdir()
        write(path, count)
    assert contents(outs[0]) == contents(outs[1])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_interrupted_cache_is_finished_with_the_same_bytes(tmp_path, batch_size):
    """The third shard ends in an error, as after kill -9: a part of it is on disk."""
    whole, out = (epath.Path(tmp_path / name) for name in ("whole", "broken"))
    for path in (whole, out):
        path.mkdir()
    write(whole)
    store, shards = (
        latent_cache.open_store(out),
        latent_cache.plan_shards(make_identity()),
    )
    store.begin(make_identity(), latent_cache.differences)
    for shard in shards[:2]:
        latent_cache.write_shard(store, shard, make_batches(shard), "float16")

    def interrupted():
        yield from list(make_batches(shards[2], batch_size))[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        latent_cache.write_shard(store, shards[2], interrupted(), "float16")
    with pytest.raises(
        DataError, match=r"is incomplete: .* Run the same python -m ul encode"
    ):
        latent_cache.load_manifest(store)
    complete = [store.read_summary(shard) is not None for shard in shards]
    assert complete == [True] * 2 + [False] * (len(shards) - 2)
    write(out, processes=2)
    assert contents(out) == contents(whole)


def test_another_cache_is_not_overwritten(out):
    write(out)
    before = contents(out)
    for changes, message in (
        ({"dtype": "float32"}, "dtype: stored float16, requested float32"),
        ({"shard_examples": 4}, "shard_examples: stored 5, requested 4"),
        ({"encoder": ENCODER | {"encoder": "ffff0000"}}, "requested ffff0000 .*"),
    ):
        with pytest.raises(ConfigError, match=message):
            write(out, **changes)
    write(out, encoder=ENCODER | {"workdir": "/moved/s1"})
    assert contents(out).keys() == before.keys()


def splits_with(split, **changes):
    return SPLITS | {split: SPLITS[split] | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"encoder": ENCODER | {"encoder": "ffff0000", "step": 9}},
            r"encoder: stored 0123abcd \(/runs/s1 step 8, ema\), requested ffff0000 "
            r".* step 9",
        ),
        ({"latent_shape": [2, 3, 8]}, r"latent_shape: stored \[2, 3, 4\]"),
        ({"context_frames": 2}, "context_frames: stored 0, requested 2"),
        (
            {"splits": splits_with("train", count=24)},
            "train count: stored 23, requested 24",
        ),
        (
            {"splits": splits_with("eval", count=8)},
            "eval count: stored 7, requested 8",
        ),
        (
            {
                "splits": splits_with("train", fingerprint="g"),
                "data": {"source": {"kind": "digits"}, "flip": True},
            },
            "fingerprint: stored f-train, requested g; "
            "data.flip: stored False, requested True",
        ),
    ],
)
def test_a_cache_of_other_latents_is_refused(out, store, changes, message):
    manifest = write(out)
    with pytest.raises(ConfigError, match=message) as e:
        latent_cache.check_identity(store, manifest, make_identity(**changes))
    assert e.value.code == 64 and "\n" not in str(e.value)


def flip_bit(path, offset=None):
    content = bytearray(path.read_bytes())
    offset = len(content) // 2 if offset is None else offset
    content[offset] ^= 1
    path.write_bytes(bytes(content))


def first_shard(out):
    return out / "train-00000-of-00005.array_record"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: (out / "manifest.json").unlink(), "is incomplete"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read"),
        (
            lambda out: (out / "manifest.json").write_text("{}"),
            "must be the manifest of a latent cache; it lacks .*splits",
        ),
        (lambda out: first_shard(out).unlink(), "00000-of-00005.* is missing"),
        (
            lambda out: first_shard(out).write_bytes(
                first_shard(out).read_bytes()[:99]
            ),
            "has 99 bytes, not",
        ),
        (lambda out: flip_bit(first_shard(out)), "00000-of-00005.* is damaged"),
        (lambda out: flip_bit(first_shard(out), 3), "00000-of-00005.* is damaged"),
    ],
)
def test_a_damaged_cache_is_refused_and_repaired(out, store, damage, message):
    write(out)
    before = contents(out)
    damage(out)
    with pytest.raises(DataError, match=message) as e:
        manifest, _ = latent_cache.load_manifest(store)
        store.verify(manifest, part=(0, 1))
    assert e.value.code == 65 and "\n" not in str(e.value)
    write(out)
    assert contents(out) == before


def test_a_missing_cache_is_a_data_error(tmp_path):
    store = latent_cache.open_store(tmp_path / "nowhere")
    with pytest.raises(DataError, match="No latent cache found in .* Write one with"):
        latent_cache.load_manifest(store)


def test_the_processes_share_the_digests(out, store):
    """One process checks each shard."""
    manifest = write(out)
    flip_bit(first_shard(out))
    flip_bit(out / "eval-00001-of-00002.array_record")
    for i in range(7):
        if i in (0, 6):
            with pytest.raises(DataError, match="is damaged"):
                store.verify(manifest, part=(i, 7))
        else:
            store.verify(manifest, part=(i, 7))
    store.verify(manifest, part=None)  # The sizes are right.


def test_a_record_that_is_damaged_later_is_noticed_when_it_is_read(out, store):
    """Whichever bit flips, no wrong latent reaches a batch."""
    manifest = write(out)
    path = first_shard(out)
    whole = path.read_bytes()
    offsets = [i for i in range(0, len(whole), 97) if whole[i : i + 8] != bytes(8)]
    num_noticed = 0
    for offset in offsets:
        path.write_bytes(whole)
        flip_bit(path, offset)
        source = LatentSource(store, manifest, "train")
        try:
            for i in range(SHARD_EXAMPLES):
                example = source[i]
                expected = Z["train"][i].astype(np.float16)
                np.testing.assert_array_equal(example["z_clean"], expected)
                assert example["label"] == i % 3
        except DataError as e:
            assert path.name in str(e) and "\n" not in str(e)
            num_noticed += 1
    assert num_noticed > 3


def test_a_shard_in_the_place_of_another_is_noticed(out, store):
    manifest = write(out)
    other_shard = out / "train-00001-of-00005.array_record"
    first_shard(out).write_bytes(other_shard.read_bytes())
    with pytest.raises(DataError, match="record 2 belongs to another example"):
        LatentSource(store, manifest, "train")[2]


def test_latents_that_cannot_be_stored_are_refused():
    z = np.full((1, *SHAPE), 1e5, np.float32)
    with pytest.raises(ConfigError, match="fit into float16; .* 1e.* latent_dtype"):
        latent_cache.to_storage_dtype(z, "float16")
    np.testing.assert_allclose(
        latent_cache.to_storage_dtype(z, "bfloat16").astype(np.float32),
        z,
        rtol=2.0**-8,
    )
    z[0, 0, 0, 0] = np.nan
    with pytest.raises(NonFiniteError, match="stage1.step"):
        latent_cache.to_storage_dtype(z, "float32")


def test_mirrored_images_are_in_shards_of_their_own_beside_those_of_the_images():
    """11 images in two orientations, five in a shard, are 5 + 5 + 1 and 5 + 5 + 1."""
    splits = {"train": {"count": 22, "orientations": 2}, "eval": {"count": 7}}
    identity = make_identity(splits=splits)
    shards = latent_cache.plan_shards(identity)
    ranges = [(s.split, s.index, s.num_shards, s.first, s.count) for s in shards]
    assert ranges == [
        ("train", 0, 6, 0, 5),
        ("train", 1, 6, 5, 5),
        ("train", 2, 6, 10, 1),
        ("train", 3, 6, 11, 5),
        ("train", 4, 6, 16, 5),
        ("train", 5, 6, 21, 1),
        ("eval", 0, 2, 0, 5),
        ("eval", 1, 2, 5, 2),
    ]
    groups = latent_cache.plan_groups(identity)
    together = [[shards.index(shard) for shard in group] for group in groups]
    assert together == [[0, 3], [1, 4], [2, 5], [6], [7]]


def test_a_shard_with_too_few_examples_is_refused(store):
    shard = latent_cache.plan_shards(make_identity())[0]
    batches = list(make_batches(shard))[:1]
    with pytest.raises(DataError, match="must have 5 examples; 2 were encoded"):
        latent_cache.write_shard(store, shard, batches, "float16")
    assert store.read_summary(shard) is None


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    shard = latent_cache.plan_shards(make_identity())[0]
    store = latent_cache.open_store(tmp_path / "no")
    with pytest.raises(StorageError, match="cannot be written"):
        latent_cache.write_shard(store, shard, make_batches(shard), "float16")


def test_training_reads_a_cache_in_the_order_of_the_images(out, store):
    """The labels depend on the shuffling alone; the second epoch has another order."""
    manifest = write(out)
    cached = pipeline.shuffled_dataset(LatentSource(store, manifest, "train"), seed=3)
    source = pipeline.sequential_dataset(
        [{"image": np.zeros((2, 2, 1), np.uint8), "label": i % 3} for i in range(23)]
    )
    images = pipeline.make_dataset(
        source, shape=(2, 2, 1), flip=False, seed=3, shuffle=True
    )
    assert [cached[i]["label"] for i in range(46)] == [
        images[i]["label"] for i in range(46)
    ]


BREAKS = (
    Break(
        "a latent cache of another encoder is accepted",
        "ul/data/latent_cache.py",
        'if a["encoder"] != b["encoder"]:',
        "if False:",
        "test_a_cache_of_other_latents_is_refused",
    ),
    Break(
        "a latent cache of other images is accepted",
        "ul/data/latent_cache.py",
        'if key in ("count", "fingerprint") and',
        'if key in ("count",) and',
        "test_a_cache_of_other_latents_is_refused",
    ),
    Break(
        "a damaged shard is read",
        "ul/data/record_shards.py",
        'if files.sha256(path) != shard["sha256"]:',
        'if files.sha256(path) == "":',
        "test_the_processes_share_the_digests",
    ),
    Break(
        "a damaged shard is not written again",
        "ul/data/record_shards.py",
        "return summary if intact else None",
        "return summary",
        "test_a_damaged_cache_is_refused_and_repaired",
    ),
    Break(
        "the latent of another example is returned",
        "ul/data/latent_cache.py",
        "if index != i:",
        "if index < 0:",
        "test_a_shard_in_the_place_of_another_is_noticed",
    ),
)
