# `make` lists the targets. No environment has to be activated: .venv is created, filled and used from here.

TORCH := 2.13.0
UV := 0.13.9

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check -qq
INSTALL := $(PIP) install --no-deps --root-user-action ignore
# Without a font, pages have no visible text.
CHROMIUM := sh scripts/install-for-tests chromium chromium fonts-dejavu-core
# More arguments for pytest: make test ARGS="tests/engine -x"
ARGS :=

.PHONY: help run hf test acceptance lint format lock clean
.DEFAULT_GOAL := help

help:
	@echo 'make run      prepare, train and serve on this machine: http://localhost:8000/ (settings from .env)'
	@echo 'make hf       install support for texts from the Hugging Face Hub: DATASET_URL=hf:... (about 70 MB to fetch)'
	@echo 'make test     install what the tests need and run all of them; ARGS="..." goes to pytest'
	@echo 'make acceptance  all tests, also those that take hours (GPTBOX_RESTART_ENGINE restarts the Docker engine)'
	@echo 'make lint     ruff, mypy, and import-linter'
	@echo 'make format   let ruff format the source'
	@echo 'make lock     renew requirements/*.txt after a change in pyproject.toml'
	@echo 'make clean    delete .venv and the tools'"'"' caches; models and data stay'

# An environment variable wins over .env, as with Compose.
run: $(VENV)/.for-running
	@given=$$(export -p); if [ -f .env ]; then set -a; . ./.env; set +a; eval "$$given"; fi; exec $(VENV)/bin/gptbox up

hf: $(VENV)/.for-running
	$(INSTALL) --require-hashes -r requirements/hf.txt

test: $(VENV)/.for-developing
	@$(CHROMIUM)
	$(PY) -m pytest $(ARGS)

# All tests, including those that take hours.
acceptance: $(VENV)/.for-acceptance
	@$(CHROMIUM)
	@sh scripts/install-for-tests npm npm
	$(PY) -m pytest -m 'acceptance or not acceptance' $(ARGS)

lint: $(VENV)/.for-developing
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.for-developing
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

lock: $(VENV)/.made
	$(INSTALL) uv==$(UV)
	UV=$(VENV)/bin/uv scripts/lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --- The environment: each step leaves a file behind, and runs again when a file it depends on has changed.

$(VENV)/.made:
	@sh scripts/make-venv $(VENV)
	@touch $@

$(VENV)/.for-running: $(VENV)/.made requirements/train.txt scripts/install-torch pyproject.toml
	@echo 'Installing what gptbox needs into $(VENV) (about 250 MB to fetch) ...'
	@$(INSTALL) --require-hashes -r requirements/train.txt
	@PYTHON=$(PY) sh scripts/install-torch $(TORCH) --any-build
	@$(INSTALL) --editable .
	@echo 'Compiling the kernels (about half a minute) ...'
	@$(PY) -m gptbox.train.precompile && $(PY) -m gptbox.engine.kernels.build
	@touch $@

$(VENV)/.for-developing: $(VENV)/.for-running requirements/dev.txt
	@echo 'Installing what the tests need ...'
	@$(INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.for-acceptance: $(VENV)/.for-developing requirements/acceptance.txt
	@echo 'Installing what the acceptance tests need ...'
	@$(INSTALL) --require-hashes -r requirements/acceptance.txt
	@touch $@
