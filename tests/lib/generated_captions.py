"""Caption files as people and programs write them, with what a reader must see."""

import io
import json
import tarfile

CAPTIONS = (
    "a dog", "", "  two   cats ", 'she said "hi"', '"quoted"', "a, b; c", "naïve 猫 🐈",
    "line\u2028separator", "it's 50% off", "<b>&amp;</b>", "x" * 3000, "None", "null", "nan",
    "-", "\\n is two characters", "ﬁ\u0301", "1e5", "a\u00a0b",
)  # fmt: skip


def _names(rng, count):
    stems = (
        "img{}.jpg",
        "a b {}.png",
        "ü{}.JPG",
        "dir/sub {}.webp",
        "x.y.{}.jpg",
        "{}.jpeg",
    )
    return [stems[rng.integers(len(stems))].format(i) for i in range(count)]


def _plain(caption):
    """Return the caption with single spaces, as every reader gives it."""
    return " ".join(caption.split())


def _encode(rng, text):
    """Return the text in one of the encodings and line ends that editors write."""
    ends = ("\n", "\r\n", "\r")[rng.integers(3)]
    encoding = ("utf-8", "utf-8-sig", "utf-16")[rng.integers(3)]
    return text.replace("\n", ends).encode(encoding)


def _quoted(rng, field):
    if '"' in field or rng.random() < 0.3:
        return '"' + field.replace('"', '""') + '"'
    return field


def table(rng, names, captions):
    rows = [
        f"{_quoted(rng, n)}\t{_quoted(rng, c)}"
        for n, c in zip(names, captions, strict=True)
    ]
    blank = "\n" * int(rng.integers(1, 3))
    return ".tsv", _encode(rng, blank.join(rows) + "\n" * int(rng.integers(2)))


def json_lines(rng, names, captions):
    key = ("text", "caption")[rng.integers(2)]
    rows = [
        {"file_name": n, key: _value(rng, c), "more": [1, None]}
        for n, c in zip(names, captions, strict=True)
    ]
    lines = [json.dumps(row, ensure_ascii=bool(rng.integers(2))) for row in rows]
    return ".jsonl", _encode(rng, "\n".join(lines))


def coco(rng, names, captions):
    ids = rng.permutation(10 * len(names))[: len(names)].tolist()
    pairs = list(zip(ids, captions, strict=True))
    order = rng.permutation(len(pairs))
    content = {
        "images": [{"id": i, "file_name": n} for i, n in zip(ids, names, strict=True)],
        "annotations": [
            {"id": int(k), "image_id": pairs[k][0], "caption": _value(rng, pairs[k][1])}
            for k in order
        ],
    }
    indent = (None, 1)[rng.integers(2)]
    return ".json", _encode(rng, json.dumps(content, indent=indent))


def archive(rng, names, captions):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, caption in zip(names, captions, strict=True):
            content = _encode(rng, caption)
            info = tarfile.TarInfo(
                name.rpartition(".")[0] + (".txt", ".TXT")[rng.integers(2)]
            )
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return ".tar", file.getvalue()


def _value(rng, caption):
    """Return the JSON value of a caption: text, a list of texts, or a kind of none."""
    if not caption.strip():
        return (None, "", [], [None], float("nan"))[rng.integers(5)]
    return (caption, [caption], [None, caption, "another"])[rng.integers(3)]


FORMATS = (table, json_lines, coco, archive)


def generate(rng, format) -> tuple[str, bytes, dict[str, str]]:
    """Return the suffix and the content of a file, and the captions by image name."""
    names = _names(rng, int(rng.integers(1, 9)))
    captions = [CAPTIONS[i] for i in rng.integers(len(CAPTIONS), size=len(names))]
    captions[0] = "always one"
    suffix, content = format(rng, names, captions)
    if format is archive:
        names = [name.rpartition(".")[0] for name in names]
    return (
        suffix,
        content,
        {
            name: text
            for name, c in zip(names, captions, strict=True)
            if (text := _plain(c))
        },
    )
