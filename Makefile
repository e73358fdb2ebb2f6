# The few verbs people need. Each says what it does, sets up what it needs in .venv, and is quick when nothing changed.
# Needs: Debian or Ubuntu with Python >= 3.11 (Node.js only once the JupyterLab extension is built).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
#: notebooks call programs of the environment, such as `!jupyter gpu run -- python train.py`
ACTIVE := PATH="$(CURDIR)/$(BIN):$$PATH"
#: the notebook that `make demo` runs
NOTEBOOK ?= examples/quickstart.ipynb

#: what real clusters are made of, beside Kubernetes itself
SYSTEM := etcd-server containerd runc containernetworking-plugins debootstrap iproute2

.PHONY: help demo lab test lint docs docs-outputs bench cluster clean
.DEFAULT_GOAL := help

help: ## Show these verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: $(VENV)/.examples ## Run a notebook with %%gpu_run on this machine and print its outputs
	@echo "→ running $(NOTEBOOK) (the platform starts on demand and leaves by itself when idle)"
	@$(ACTIVE) python examples/show.py $(NOTEBOOK)

lab: $(VENV)/.lab ## Open JupyterLab on the example notebooks
	@echo "→ starting JupyterLab on examples/"
	@$(ACTIVE) jupyter lab --notebook-dir=examples $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(VENV)/.test $(VENV)/.system $(VENV)/.cluster ## Run all tests
	@echo "→ running the tests"
	@$(BIN)/pytest $(TESTS)

lint: $(VENV)/.test ## Check style, types, layers and sizes
	@echo "→ ruff, mypy, import-linter, module sizes"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@git ls-files '*.py' | xargs wc -l | awk '$$2 != "total" && $$1 > 600 { print $$2 ": " $$1 " lines (at most 600)"; bad = 1 } END { exit bad }'

docs: $(VENV)/.test ## Make the site in docs/_build; warnings are errors
	@echo "→ docs/_build/index.html"
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build

docs-outputs: $(VENV)/.test ## Run what the docs show and write its outputs into them
	@$(BIN)/python docs/run.py --write $(PAGES)

bench: $(VENV)/.test ## Take the figures in benchmarks/ (quick form)
	@for program in benchmarks/bench_*.py; do echo "→ $$program"; $(BIN)/python $$program --quick || exit 1; done

cluster: $(VENV)/.cluster ## Start a Kubernetes cluster on this machine and join it to the local platform
	@$(ACTIVE) python -m tests.cluster up --join

clean: ## Remove the environment and all caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

# As root only. Without it, tests that need these programs are skipped and say so.
$(VENV)/.system: Makefile | $(VENV)/bin/python
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! dpkg -s $(SYSTEM) >/dev/null 2>&1; then \
	  echo "→ installing $(SYSTEM)"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; fi
	@touch $@

# Some minutes once for each release of Kubernetes; what is built stays in ~/.cache.
$(VENV)/.cluster: tests/cluster/programs/go.mod tests/cluster/images.py | $(VENV)/.test $(VENV)/.system
	@$(BIN)/python -m tests.cluster build
	@touch $@

# One stamp per set of packages; each is newer than the list it was installed from.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed: make PYTHON=python3.x"; exit 1; }
	@echo "→ making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/.examples $(VENV)/.lab $(VENV)/.test: $(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	@echo "→ installing this checkout with [$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
