# Two commands do everything: `make up` and `make test`.

# Root hands the services to the accounts `daemon` and `nobody`, so the first Python that they can run goes before the others:
# one under /root, as pyenv's, they cannot enter.
NAMES := python3.14 python3.13 python3.12 python3.11 python3
RECENT := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell \
	if [ "$$(id -u)" = 0 ] && command -v runuser >/dev/null 2>&1; then \
		for p in $(NAMES); do for f in $$(command -v $$p 2>/dev/null) /usr/local/bin/$$p /usr/bin/$$p; do \
			(cd / && runuser -u nobody -- $$f -c '$(RECENT)') >/dev/null 2>&1 && { echo $$f; exit; }; \
		done; done; \
	fi; \
	for p in $(NAMES); do \
		command -v $$p >/dev/null 2>&1 && $$p -c '$(RECENT)' 2>/dev/null && { echo $$p; exit; }; \
	done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TESTED := $(VENV)/.installed-tests
# What helps to build, and is not installed beside the package.
TOOLS := build/tools
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Dependencies by the hashes of their files; then the package, whose builder is among them. See docs/decisions/0030-*.md.
PACKAGE := --no-deps --no-build-isolation --editable .
UP ?= --demo

.DEFAULT_GOAL := help
.PHONY: help install up test chromium test-fast check format lock audit-dependencies bench test-faults test-security clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | sed 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and none is on the PATH; install it, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): setup.py requirements.txt | $(BIN)/python
	$(PIP) --require-hashes -r requirements.txt
	$(PIP) $(PACKAGE)
	@touch $@

$(TESTED): setup.py requirements-test.txt | $(BIN)/python
	$(PIP) --require-hashes -r requirements-test.txt
	$(PIP) $(PACKAGE)
	@touch $@ $(INSTALLED)

install: $(INSTALLED) ## Make .venv and install the package, nothing more

up: install ## Start everything with the demo load (UP="--port 8080" for other options)
	@$(BIN)/pipeline-platform up $(UP)

# Two at a time, a file to a process (files that share a stack together: pipeline_platform_tests/sharing.py), in the order of
# folders: the long ones are first, so that none is left at the end.
test: $(TESTED) chromium ## Run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Some tests look at pages with a real browser, and fail without one.
chromium: ## Install the browser of the tests, where it is missing (as root, Debian or Ubuntu)
	@command -v chromium chromium-browser google-chrome >/dev/null || test -x "$${PIPELINE_CHROMIUM:-}" \
	|| { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && apt-get install -qq -y chromium >/dev/null; } \
	|| { echo "The tests need chromium: install it (apt-get install chromium), or set PIPELINE_CHROMIUM to a Chrome's path."; exit 1; }

test-fast: $(TESTED) ## Only the tests without servers
	$(BIN)/python -m pytest pipeline_platform_tests/unit

test-faults: $(TESTED) ## The long form of the fault suite, some hours; writes its table (FAULTS="-k disks" for less)
	$(BIN)/python -m pipeline_platform_tests.faults --long $(FAULTS)

test-security: $(TESTED) ## The long form of the attacks: 50,000 mutated requests (MUTATIONS=200000 for more)
	PIPELINE_MUTATIONS=$${MUTATIONS:-50000} $(BIN)/python -m pytest pipeline_platform_tests/security -s -p no:cacheprovider

check: $(TESTED) ## Lint, types, import contracts, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest pipeline_platform_tests/unit/test_docs.py pipeline_platform_tests/unit/test_docker.py pipeline_platform_tests/unit/test_dictionary.py pipeline_platform_tests/migrations

format: $(TESTED) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(TOOLS)/bin/%: | $(BIN)/python
	@$(BIN)/python -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check $*

# For every Python from the oldest on and every platform. uv does not read pip's settings: behind a mirror set UV_INDEX_URL,
# behind a certificate of its own SSL_CERT_FILE. Versions stay unless setup.py asks for others, or with UPGRADE=--upgrade.
LOCKED := --extra oidc --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-annotate --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock" --quiet $(UPGRADE)

lock: $(TOOLS)/bin/uv ## Write requirements.txt and requirements-test.txt anew from setup.py (UPGRADE=--upgrade for newer ones)
	echo 'setuptools>=68' | $(TOOLS)/bin/uv pip compile setup.py - $(LOCKED) --output-file requirements.txt
	echo 'setuptools>=68' | $(TOOLS)/bin/uv pip compile setup.py - $(LOCKED) --extra test --constraint requirements.txt \
		--output-file requirements-test.txt

audit-dependencies: $(TOOLS)/bin/pip-audit ## Look the locked versions up in PyPI's advisories (needs the internet)
	$(TOOLS)/bin/pip-audit --require-hashes --disable-pip --requirement requirements-test.txt

bench: $(TESTED) ## Measure everything that the README quotes
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.edge
	$(BIN)/python -m benchmarks.latency --rates 100 1000 10000
	$(BIN)/python -m benchmarks.runtime
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.sustained
	$(BIN)/python -m benchmarks.trivial
	$(BIN)/python -m benchmarks.runtime_storage
	$(BIN)/python -m benchmarks.ledger
	$(BIN)/python -m benchmarks.login
	$(BIN)/python -m benchmarks.flood

clean: ## Remove what builds leave behind; data in .pipeline stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
