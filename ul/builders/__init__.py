"""One builder a stage, and what they share; `ul/build.py` hands them on."""
