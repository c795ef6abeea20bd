"""JSON records that carry a digest of their own content, so that a flipped bit is noticed."""

import hashlib
import json
from typing import Any


def digest(record: dict[str, Any], key: str = "digest") -> str:
    """Return sixteen hex digits that identify a JSON object, without its entry `key`."""
    content = {name: value for name, value in record.items() if name != key}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def seal(record: dict[str, Any], key: str = "digest") -> dict[str, Any]:
    """Return the record with its digest in the entry `key`, as JSON reads it back."""
    record = json.loads(json.dumps(record))
    return record | {key: digest(record, key)}


def unseal(text: str, key: str = "digest") -> dict[str, Any]:
    """Return the record in a text, with its digest; one that has none is taken as it is.

    Raises:
      ValueError: the text is no JSON object, or another one than was sealed.
    """
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    if record.get(key, digest(record, key)) != digest(record, key):
        raise ValueError("its content does not have its digest")
    return record
