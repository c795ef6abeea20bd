"""Flags of `ul evaluate` for the samples of a stage-2 run."""

from typing import Any, NamedTuple

from absl import flags

from launch.lib import common_flags

flags.disclaim_key_flags()  # the flags belong to `ul evaluate`


class GenerationFlags(NamedTuple):
    """The flags, by their names."""

    guidance: flags.FlagHolder
    autoguidance: flags.FlagHolder
    labels: flags.FlagHolder
    reference: flags.FlagHolder
    npz: flags.FlagHolder
    decoded: flags.FlagHolder
    stage1_workdir: flags.FlagHolder

    def request(self) -> dict[str, Any]:
        """Return the fields of an evaluation request, without the guidance scales."""
        return dict(
            autoguidance=self.autoguidance.value,
            labels=self.labels.value,
            reference=self.reference.value,
            npz=self.npz.value,
            decoded=self.decoded.value,
            stage1=self.stage1_workdir.value,
        )


def define() -> GenerationFlags:
    """Define the flags."""
    return GenerationFlags(
        guidance=flags.DEFINE_list(
            "guidance",
            ["1"],
            "Guidance scales of stage 2, one evaluation each; 1 means no guidance.",
        ),
        autoguidance=flags.DEFINE_string(
            "autoguidance",
            None,
            "Guiding model of stage 2, as WORKDIR[:STEP][@WEIGHTS].",
        ),
        labels=flags.DEFINE_string(
            "labels", "cyclic", "Labels that stage 2 samples: cyclic or random."
        ),
        reference=flags.DEFINE_string(
            "reference", None, "Reference statistics of stage 2, an .npz file."
        ),
        npz=flags.DEFINE_string(
            "npz", None, "Also write the samples to this .npz file."
        ),
        decoded=flags.DEFINE_bool(
            "decoded",
            False,
            "Also measure decoded training images, the samples of a perfect stage 2.",
        ),
        stage1_workdir=common_flags.define_stage1_workdir(),
    )
