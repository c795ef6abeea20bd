"""What absl and ml_collections say of a mistyped command, in one line."""


def line(error: Exception) -> str:
    """The last line of a message: where ml_collections and absl say what is wrong."""
    return str(error.args[0] if error.args else error).strip().split("\n")[-1].strip()


def mistyped(error: Exception, argv: list[str]) -> str:
    """What is wrong, and in which argument: of a key, ml_collections says no more."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    said = str(error.args[0]).strip() if error.args else ""
    if not (isinstance(error, KeyError) and said):
        return line(error)
    key, *hint = said.splitlines()
    where = (a for a in argv if key.strip("'") in a.partition("=")[0].split("."))
    return "; ".join([f"{next(where, '--config')}: there is no {key}", *hint])
