"""The commands of this project. Only this package defines command-line flags.

`python -m ul` lists the commands, `python -m ul COMMAND --help` explains one. The form
`python -m launch.COMMAND` runs the same code in a clone.
"""
