# `make test` and `make demo` set themselves up: they need Python >= 3.11 and make, nothing else.
#
#   PYTHON=python3.12      the interpreter to use (default: python3, or the first new enough one)
#   VENV=.venv-3.12        where the development environment goes (default: .venv)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
VENV_DEMO ?= .venv-demo
VENV_TORCH ?= .venv-torch

# A PYTHON that was asked for is used or refused; only the default may fall back.
PYTHONS := $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)

# An environment belongs to one interpreter and one folder: an editable install that was copied with its
# tree would test the tree it came from. The stamp's name holds both, so either change makes a new one.
KEY := $(firstword $(shell printf '%s' '$(CURDIR) $(PYTHON)' | cksum))
STAMP := $(VENV)/.installed-$(KEY)
STAMP_DEMO := $(VENV_DEMO)/.installed-$(KEY)
STAMP_TORCH := $(VENV_TORCH)/.installed-$(KEY)
PY := $(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

comma := ,

# $(call install,ENVIRONMENT,STAMP,REQUIREMENT,MORE REQUIREMENTS)
define install
@python=''; \
for candidate in $(PYTHONS); do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        python="$$candidate"; break; \
    fi; \
done; \
if [ -z "$$python" ]; then \
    echo "make: no Python 3.11 or newer found - tried: $(strip $(PYTHONS)); install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
    echo "make: $$python can't make a virtual environment - its module venv or ensurepip is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
fi; \
if [ ! -e "$(2)" ]; then \
    echo "make: new environment $(1) with $$("$$python" --version)"; \
    "$$python" -m venv --clear "$(1)"; \
fi; \
"$(1)/bin/python" -m pip install --quiet --prefer-binary -c constraints.txt -e '$(3)' $(4); \
touch "$(2)"
endef

.PHONY: help
help:  ## Say what each target does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(call install,$(VENV),$@,.[dev$(comma)docs])

$(STAMP_DEMO): pyproject.toml constraints.txt
	$(call install,$(VENV_DEMO),$@,.)

# torch first, and its CPU build where the index that has it can be reached: a third of the size, and no CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

$(STAMP_TORCH): pyproject.toml constraints.txt examples/smollm2/requirements.txt
	$(call install,$(VENV_TORCH),$@,.,pytest hypothesis)
	@rm "$@"  # not yet
	@$(VENV_TORCH)/bin/python -m pip install --quiet --retries 0 --timeout 20 --index-url $(TORCH_INDEX) \
	    $$(grep ^torch== examples/smollm2/requirements.txt) || echo "make: no torch from $(TORCH_INDEX); taking it from elsewhere"
	@$(VENV_TORCH)/bin/python -m pip install --quiet --prefer-binary -r examples/smollm2/requirements.txt
	@touch "$@"

.PHONY: test
test:  ## Everything that CI checks: lint, types, floors, docs, pytest, smoke
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory floors
	@$(MAKE) --no-print-directory docs
	@$(MAKE) --no-print-directory pytest
	@$(MAKE) --no-print-directory smoke

.PHONY: lint
lint: $(STAMP)  ## Style: ruff check and ruff format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

.PHONY: types
types: $(STAMP)  ## Types: mypy, strict
	$(PY) -m mypy

.PHONY: floors
floors: $(STAMP)  ## Which folder may import which: import-linter
	$(VENV)/bin/lint-imports

.PHONY: docs
docs: $(STAMP)  ## The documentation in build/docs (warnings are errors)
	$(PY) -m sphinx -W --keep-going -E --quiet -j auto -b html docs build/docs

.PHONY: pytest
pytest: $(STAMP)  ## The tests, in random order (ARGS="-k name" goes to pytest)
	$(PY) -m pytest $(ARGS)

CASES ?= 1000000
SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

.PHONY: test-torch
test-torch: $(STAMP_TORCH)  ## What is recorded under torchrun with 2 and 4 processes (brings torch for the CPU)
	$(VENV_TORCH)/bin/python -m pytest tests/torch $(ARGS)

.PHONY: fuzz
fuzz: $(STAMP)  ## A million mutated files, ids, paths, cells and lines (CASES=n, SEED=n)
	@echo "make: fuzz with CASES=$(CASES) SEED=$(SEED)"
	LLM_ENERGY_MEASURE_FUZZ_CASES=$(CASES) LLM_ENERGY_MEASURE_FUZZ_SEED=$(SEED) $(PY) -m pytest -s tests/fuzz

RUNS ?= 500

.PHONY: truth
truth: $(STAMP)  ## Simulate experiments of known energy, judge them, print a table (RUNS=500 per class, SEED=n)
	@echo "make: truth with RUNS=$(RUNS) SEED=$(SEED)"
	$(PY) -m tests.truth.run --runs $(RUNS) --seed $(SEED)

.PHONY: smoke
smoke: $(STAMP)  ## The built wheel in a fresh environment without development dependencies
	$(PY) tests/packaging/smoke.py

.PHONY: demo
demo: $(STAMP_DEMO)  ## See it work, with the core dependencies only
	@PATH="$(abspath $(VENV_DEMO))/bin:$$PATH" bash examples/demo.sh

RESULTS ?= results-live

.PHONY: demo-live
demo-live: $(STAMP_TORCH)  ## Record the demo's results anew: a small language model under torchrun (RESULTS=dir)
	@PATH="$(abspath $(VENV_TORCH))/bin:$$PATH" bash examples/smollm2/record.sh "$(abspath $(RESULTS))"
	@PATH="$(abspath $(VENV_TORCH))/bin:$$PATH" bash examples/demo.sh "$(abspath $(RESULTS))"

.PHONY: bench
bench: $(STAMP)  ## The benchmarks, one after the other
	@for script in benchmarks/[!_]*.py; do \
	    if [ ! -e "$$script" ]; then echo "make: no benchmarks found - benchmarks/ has no script" >&2; exit 1; fi; \
	    echo "== $$script"; $(PY) "$$script"; \
	done

TORTURE_KILLS ?= 10000

.PHONY: torture
torture: $(STAMP)  ## The kill test with 10,000 kills instead of 300 (TORTURE_KILLS, TORTURE_SEED)
	TORTURE_KILLS=$(TORTURE_KILLS) $(PY) -m pytest -q tests/faults/test_kill.py

.PHONY: clean
clean:  ## Remove the environments, what was built, and all caches
	rm -rf .venv .venv-* $(VENV) $(VENV_DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
