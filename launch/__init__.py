"""The commands of this project. Only this package defines command-line flags.

`python -m launch` lists the commands, `python -m launch.COMMAND --help` explains one.
"""
