# Every target makes what it needs in .venv and build/, and writes nothing outside this folder.
# Needed on the machine: Python 3.11 or newer, and make. `make help` lists the targets.

VENV     := .venv
BIN      := $(VENV)/bin
CACHE    := $(CURDIR)/$(VENV)/cache
READY    := $(VENV)/.installed
PEERS    := $(VENV)/.peers
PIPFLAGS ?=

# The first interpreter that runs and is new enough; name another with `make PYTHON=/path/to/python`.
CANDIDATES := python3.11 python3 python3.12 python3.13
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for p in $(CANDIDATES); do "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && echo "$$p" && break; done)
endif

# Caches and settings of the tools stay in the checkout; nothing is looked up online once installed.
export PIP_NO_CACHE_DIR := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONNOUSERSITE := 1
export XDG_CACHE_HOME := $(CACHE)
export XDG_CONFIG_HOME := $(CACHE)/config
export MPLCONFIGDIR := $(CACHE)/matplotlib
export MPLBACKEND := Agg
export HF_HOME := $(CACHE)/huggingface
export HF_HUB_OFFLINE := 1
export TRANSFORMERS_OFFLINE := 1
export TORCHINDUCTOR_CACHE_DIR := $(CACHE)/inductor
export IPYTHONDIR := $(CACHE)/ipython
export JUPYTER_CONFIG_DIR := $(CACHE)/jupyter/config
export JUPYTER_DATA_DIR := $(CACHE)/jupyter/data
export JUPYTER_RUNTIME_DIR := $(CACHE)/jupyter/runtime
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow lint format bench matrix-units programs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## make .venv and install everything, pinned by constraints.txt

demo: $(READY) ## study a real model in many formats; the report lands in build/demo
	$(BIN)/python -m lowp study --out build/demo

test: $(READY) ## run the tests, doctests and notebooks
	$(BIN)/python -m pytest

test-slow: $(READY) ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(READY) ## check style, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(PEERS) ## time lowp against its peers and the machine's limit: build/bench/results.md and pictures
	@export PATH="$(CURDIR)/$(VENV)/bench/bin:$$PATH" PYTHONPATH="$(CURDIR)/$(VENV)/bench"; \
	  $(BIN)/python -m benchmarks.run; status=$$?; \
	  $(BIN)/python -m benchmarks.scaling && $(BIN)/python -m benchmarks.plots && exit $$status

matrix-units: $(PEERS) ## time products as matrix units compute them against other packages
	PATH="$(CURDIR)/$(VENV)/bench/bin:$$PATH" PYTHONPATH="$(CURDIR)/$(VENV)/bench" $(BIN)/python -m benchmarks.matrix_units

programs: $(READY) ## train a GPT and a CNN, solve systems and time training steps in every recipe
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.digits
	$(BIN)/python -m benchmarks.integer_network
	$(BIN)/python -m benchmarks.solvers
	$(BIN)/python -m benchmarks.training_step

clean: ## remove everything the other targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis src/lowp.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# setuptools comes first so that the editable build uses the pinned one instead of fetching its own.
$(READY): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "lowp needs Python 3.11 or newer; none of these is: $(CANDIDATES)." \
	  "Name one with: make PYTHON=/path/to/python" >&2; exit 1; fi
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "lowp needs Python 3.11 or newer; PYTHON=$(PYTHON) is not." >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIPFLAGS) -c constraints.txt setuptools
	$(BIN)/python -m pip install --quiet $(PIPFLAGS) -c constraints.txt --no-build-isolation -e '.[all]'
	@$(BIN)/python -m pip install --quiet $(PIPFLAGS) -c constraints.txt softposit 2>/dev/null \
	  || echo "left out: softposit, which needs a C compiler; the tests against it will be skipped" >&2
	@touch $@

# The peers lie in a folder of their own, beside lowp's environment; one that does not install is only left out.
$(PEERS): $(READY) benchmarks/requirements-peers.txt
	@grep -v '^#' benchmarks/requirements-peers.txt | while read -r peer; do \
	  $(BIN)/python -m pip install --quiet $(PIPFLAGS) --no-deps --upgrade --target $(VENV)/bench "$$peer" \
	    || echo "left out: $$peer" >&2; \
	done
	@touch $@
