# Wardgate. Plain `make` lists what there is.
SHELL := /bin/bash
VENV := .venv/bin

.PHONY: help
help:
	@echo "make demo    set everything up, then show the main job end to end in a small internet of network namespaces"
	@echo "make test    set everything up, then check formatting, types and lints and run all tests"
	@echo "make interop the relay under clients that others wrote: aioice, pion, Chromium (downloads them; two minutes, then one)"
	@echo "make dev     the demo's lab, left running, with what to try in it"
	@echo "make bench   tunnels compared in the lab: OpenVPN, wireguard-go, gotatun, ours (45 minutes; bench/README.md)"
	@echo "             make bench-quick takes three minutes"
	@echo "             make bench-relay: our relay beside coturn's (7 minutes); bench-flood: in a flood of strangers (3)"
	@echo "             make bench-relay-xdp: what a datagram costs a relay in user space and in the kernel"
	@echo "             make bench-flows, bench-memory: new flows a second, memory; bench-loop: a flood of first packets"
	@echo "             make bench-explain: why, what if and since when in a large account (3 minutes)"
	@echo "             make bench-portal: a portal with 10,000 agents: memory, storms, changes, authorizations (20 minutes)"
	@echo "             make bench-nodes: several portals, and what breaks among them (5 minutes)"
	@echo "make connectivity  which NATs can be punched through, and how long a first connection takes (20 minutes)"
	@echo "             make bench-gaps: how long a ping gets no answer when something breaks (10 minutes)"
	@echo "make conformance  our relay and coturn against 250 requirements of RFC 8489 and 8656 (40 seconds; make conformance"
	@echo "             ARGS=--slow also waits for expiry, 12 minutes, and writes docs/conformance.md; conformance/README.md: any other server)"
	@echo "make soak    ten minutes at full load; memory and tables stay as they were after the first minute"
	@echo "make model-nightly  random runs of the whole product beside a model, for eight hours; make sim-hours: 1,000 simulated hours"
	@echo "make fuzz    every fuzz target for a minute (fuzz/README.md)"
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

.PHONY: interop
interop:
	@echo "setup:"
	@scripts/setup interop
	@exec scripts/interop

# matplotlib draws the picture and is of no use to anybody else, so it is not among the project's dependencies.
.PHONY: plotting
plotting: setup
	@cmp -s bench/requirements.txt .venv/.stamp-plotting || { \
	  $(VENV)/python -m pip install -q --disable-pip-version-check -r bench/requirements.txt && \
	  cp bench/requirements.txt .venv/.stamp-plotting; }

.PHONY: bench
bench: plotting
	@exec $(VENV)/python -m bench

.PHONY: bench-quick
bench-quick: plotting
	@exec $(VENV)/python -m bench.tunnel --quick

.PHONY: bench-relay
bench-relay: setup
	@exec $(VENV)/python -m bench.relay

.PHONY: bench-relay-xdp
bench-relay-xdp: setup
	@exec $(VENV)/python -m bench.relay_xdp

.PHONY: bench-flood
bench-flood: setup
	@exec $(VENV)/python -m bench.flood

.PHONY: bench-flows
bench-flows: setup
	@$(VENV)/python -m bench.flows

.PHONY: bench-portal
bench-portal: plotting
	@exec $(VENV)/python -m bench.portal

.PHONY: bench-memory
bench-memory: setup
	@$(VENV)/python -m bench.memory

.PHONY: bench-loop
bench-loop: setup
	@exec $(VENV)/python -m bench.loop

.PHONY: bench-explain
bench-explain: setup
	@exec $(VENV)/python -m bench.explain --postgresql
.PHONY: bench-nodes
bench-nodes: setup
	@exec $(VENV)/python -m bench.nodes

.PHONY: connectivity
connectivity: setup
	@exec $(VENV)/python -m bench.connectivity

.PHONY: bench-gaps
bench-gaps: setup
	@exec $(VENV)/python -m bench.gaps

.PHONY: conformance
conformance: setup
	@exec $(VENV)/python -m conformance $(ARGS)

.PHONY: model-nightly
model-nightly: setup
	@MODEL_RUNS=1000000000 MODEL_BUDGET_S=28800 MODEL_FIRST_SEED=$$(date +%s) exec $(VENV)/python -m pytest -q -s tests/model

.PHONY: sim-hours
sim-hours: setup
	@exec $(VENV)/python -m tests.model.hours

.PHONY: soak
soak: setup
	@exec $(VENV)/python -m bench.soak

.PHONY: fuzz
fuzz: setup
	@exec $(VENV)/python -m fuzz.run

.PHONY: clean
clean:
	find src bench tests fuzz -name __pycache__ -prune -exec rm -rf {} +
	rm -rf target .venv .venv-interop bench/.cache src/wardgate/_fastpath*.so .mypy_cache .ruff_cache .pytest_cache
