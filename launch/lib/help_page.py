"""The page that `python -m ul COMMAND --help` prints."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from launch.lib import exit_codes
from launch.lib.flag_groups import FlagGroup, module_group

HELP_FLAGS = {"-h", "-help", "--help", "--helpfull", "--helpshort"}
# Modules that define flags for several commands -> the title of their flags.
SHARED_GROUPS = {
    "launch.lib.prompts": "Conditions of the samples",
    "launch.lib.compiled": "Compilation",
    "launch.lib.cluster": "Cluster flags (for runs of many processes)",
    "launch.lib.cli": "Flags of every command",
}


def is_requested(arguments: list[str]) -> bool:
    """Return whether the command line asks for help."""
    return not HELP_FLAGS.isdisjoint(arguments)


def render(
    main: Callable | Mapping[str, Callable],
    groups: Mapping[str, FlagGroup],
    exit_code_table: bool,
) -> str:
    """Return the help page of the running command.

    main: the command's function, or several by the first argument that chooses one.
    groups: flags that only some first arguments take, by that argument; the page shows those
      of the chosen one. A command of a single function shows all of them.
    """
    kinds = list(main) if isinstance(main, Mapping) else []
    kind = next((word for word in sys.argv[1:] if word in kinds), "")
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    if kinds and not kind:
        parts.append(_list_kinds(kinds, groups))
    shown = [module_group([sys.argv[0]], "Flags of this command")]
    shown += [g for name, g in groups.items() if not kinds or name == kind]
    shown += [module_group([module], title) for module, title in SHARED_GROUPS.items()]
    parts += [group.render() for group in shown if group.flags]
    table = f":\n{exit_codes.table()}" if exit_code_table else ": see launch/README.md"
    return "\n\n".join([*parts, f"Exit codes{table}"])


def _list_kinds(kinds: list[str], groups: Mapping[str, FlagGroup]) -> str:
    command = f"python -m ul {Path(sys.argv[0]).stem}"
    lines = ["The first argument is one of these names:"]
    if groups:
        lines[0] = f"Names ({command} NAME --help lists the flags of NAME):"
    width = max(map(len, kinds))
    for name in kinds:
        summary = groups[name].summary if name in groups else ""
        lines.append(f"  {name:{width}}  {summary}".rstrip())
    return "\n".join(lines)
