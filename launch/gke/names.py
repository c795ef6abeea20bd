"""Names of JobSets."""

import hashlib
import re

MAX_NAME_LENGTH = 40


def kubernetes_name(name: str) -> str:
    """Return a name that Kubernetes accepts; a long one is cut and ends in a digest."""
    short = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    if len(short) <= MAX_NAME_LENGTH:
        return short
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{short[: MAX_NAME_LENGTH - 7].strip('-')}-{digest}"
