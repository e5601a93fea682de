# Wardgate. Plain `make` lists what there is.
SHELL := /bin/bash
VENV := .venv/bin

.PHONY: help
help:
	@echo "make demo    set everything up, then show the main job end to end in a small internet of network namespaces"
	@echo "make test    set everything up, then check formatting, types and lints and run all tests"
	@echo "make dev     the demo's lab, left running, with what to try in it"
	@echo "make setup   system packages, virtual environment, native module"
	@echo "make check   formatting, lints and types only"
	@echo "make clean   remove what was built"

.PHONY: setup
setup:
	@echo "setup:"
	@scripts/setup test

.PHONY: demo
demo:
	@echo "setup:"
	@scripts/setup demo
	@exec $(VENV)/python -m wardgate.lab.demo

.PHONY: dev
dev:
	@echo "setup:"
	@scripts/setup demo
	@exec $(VENV)/python -m wardgate.lab.demo --stay

.PHONY: check
check: setup
	@scripts/check

.PHONY: test
test: setup
	@scripts/check
	@scripts/test

.PHONY: clean
clean:
	rm -rf target .venv src/wardgate/_fastpath*.so .mypy_cache .ruff_cache .pytest_cache
