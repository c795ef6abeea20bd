"""The flags of a module, as one group of the help page."""

import dataclasses
import re
from collections.abc import Iterable

from absl import flags

from launch.lib.flag_help import FlagHelp, describe

OVERRIDE = FlagHelp(
    "--config.KEY=VALUE",
    "repeatable",
    "Change one setting of the config, for example --config.optimizer.lr=1e-4. An unknown "
    "KEY is an error that names the nearest one.",
)


@dataclasses.dataclass(frozen=True)
class FlagGroup:
    """Flags under one title. `summary` describes what they configure, in one line."""

    title: str
    flags: tuple[FlagHelp, ...]
    summary: str = ""

    def render(self) -> str:
        """Return the group's lines."""
        return "\n".join([f"{self.title}:", *(flag.render() for flag in self.flags)])


def module_group(modules: Iterable[str], title: str, summary: str = "") -> FlagGroup:
    """Return the flags that modules of these names define."""
    entries: list[FlagHelp] = []
    by_module = flags.FLAGS.flags_by_module_dict()
    defined = [flag for module in modules for flag in by_module.get(module, [])]
    aliases = {flag.help: flag.name for flag in defined if _is_alias(flag)}
    for flag in defined:
        if not _is_alias(flag):
            alias = aliases.get(f"Alias for --{flag.name}.", "")
            entries.append(describe(flag, flag.default, _sentence(flag), alias))
        if flag.name == "config":
            entries.append(OVERRIDE)
    return FlagGroup(title, tuple(entries), summary)


def _is_alias(flag: flags.Flag) -> bool:
    return flag.help.startswith("Alias for --")


def _sentence(flag: flags.Flag) -> str:
    """Return the help text of a flag without what absl adds to it."""
    text = re.sub(r"^<[^<>]*>: ", "", flag.help)
    return re.sub(r";\s*repeat this option to specify a list of values$", "", text)
