"""JSON records that carry a digest of their own content, so that a flipped bit is noticed."""

import hashlib
import json
from typing import Any


def digest(record: dict[str, Any]) -> str:
    """Return sixteen hex digits that identify a JSON object, without its key `digest`."""
    content = {key: value for key, value in record.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record with its digest, as JSON reads it back."""
    record = json.loads(json.dumps(record))
    return record | {"digest": digest(record)}


def unseal(text: str) -> dict[str, Any]:
    """Return the record in a text; one without the key `digest` is taken as it is.

    Raises:
      ValueError: the text is no JSON object, or another one than was sealed.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    if record.get("digest", digest(record)) != digest(record):
        raise ValueError("its content does not have its digest")
    return record
