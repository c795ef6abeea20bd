"""Layer 3: stages of training: one file for each kind, which says how it differs.

A stage is built from its config once. Everything that comes after gets the typed `Stage`
(stage.py) and never the config. Adding a stage means adding a file here with a `STAGE`.
"""
