"""One builder a stage, and what they share; `ul/stages/registry.py` hands them on."""
