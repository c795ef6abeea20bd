"""Settings that the places of Google Cloud have in common."""

import dataclasses

from launch.lib.place import Place, setting


@dataclasses.dataclass(frozen=True)
class CloudPlace(Place):
    """A place whose machines belong to Google Cloud and have no disk of their own."""

    service_account: str = setting(
        "", "Service account that may read and write the bucket."
    )
    spot: bool = setting(False, "Use Spot capacity, which may be taken away.")
    env: tuple[str, ...] = setting(
        (), "NAME=VALUE: an environment variable of the run; may be repeated."
    )
    labels: tuple[str, ...] = setting(
        (), "NAME=VALUE: a label of the machines; may be repeated."
    )
