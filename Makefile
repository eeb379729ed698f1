# Everything a newcomer needs: `make run` and `make test` set up all that they use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet

# Seconds after which a test that outlived its own timeout ends its process, which then says where each thread is.
WATCHED := -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

.PHONY: run test check docs prove bench bench-large lock clean
.DEFAULT_GOAL := run

run: $(VENV)/.run  ## start the service on the embedded default: http://localhost:8000
	@$(BIN)/sessionapi serve

test: $(VENV)/.dev  ## all tests, with the coverage of the branches
	@tests/system-packages
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -n 2 --dist worksteal $(WATCHED)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: $(VENV)/.dev  ## linters, types, layers, dependencies, weaknesses
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python .ci/prose.py
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/deptry src
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src
	@$(BIN)/python .ci/links.py
	@$(PIP) check

docs: $(VENV)/.docs  ## the documentation as a site, which loads nothing from other hosts: site/index.html
	@$(BIN)/python .ci/site.py

prove: $(VENV)/.dev  ## the long proofs at full size
	@tests/system-packages
	@SESSIONAPI_PROVE=1 $(BIN)/pytest -n 0 -s -m prove

bench: $(VENV)/.dev  ## measure it beside its peers: about 15 minutes, with the machine for itself
	@$(BIN)/python -m benchmarks --out benchmarks

bench-large: $(VENV)/.dev  ## 5 M sessions, 1 M refreshes, 100,000 logins: about 40 minutes, 10 GB in /tmp
	@$(BIN)/python -m benchmarks --large --only size growth footprint --out benchmarks

lock: | $(VENV)/bin/python  ## pin again what pyproject.toml allows; the locks hold hashes and no addresses
	@$(PIP) install pip-tools
	@$(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-annotate --extra server -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile --quiet --upgrade --no-strip-extras --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-annotate --allow-unsafe --extra server --extra dev \
	  -o requirements-dev.lock -c requirements.lock pyproject.toml
	@printf 'hatchling\neditables\n' | $(BIN)/pip-compile --quiet --upgrade --generate-hashes --no-header \
	  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-annotate -o requirements-build.lock \
	  -c requirements-dev.lock -
	@$(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
	  | $(BIN)/pip-compile --quiet --upgrade --strip-extras --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --no-emit-trusted-host --no-annotate -o requirements-docs.lock -c requirements-dev.lock -

clean:  ## remove what was set up, but not the data
	rm -rf $(VENV) site build .cache .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock requirements-build.lock pyproject.toml | $(VENV)/bin/python
	@$(PIP) install --require-hashes -r requirements-build.lock -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-build.lock pyproject.toml | $(VENV)/bin/python
	@$(PIP) install --require-hashes -r requirements-build.lock -r requirements-dev.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.docs: requirements-docs.lock | $(VENV)/bin/python
	@$(PIP) install --require-hashes -r requirements-docs.lock
	@touch $@
