# Each word only calls what a person could type. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# auto probes once whether an image registry can be reached; registry pulls official images; packages builds stand-ins.
IMAGES ?= auto
ROLES := $(notdir $(patsubst %/molecule/,%,$(wildcard roles/*/molecule/)))

export IMAGES DOCKER_BENCH
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help demo demo-down demo-ssh test together test-vm test-hosts test-fast lint unit integration dev-compose molecule site scan images lock venv

help: ## List these words
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: .venv/controller ## A disposable VPS on this machine, provisioned by site.yml, ending in a working HTTPS site
	@python3 molecule/demo.py up

demo-down: .venv/controller ## Remove the demo and everything it kept
	@python3 molecule/demo.py down

demo-ssh: ## A shell on the demo's VPS, as its operator
	@python3 molecule/demo.py ssh

test: test-fast together site ## Everything: lint, unit, integration, roles, the whole site

# Beside `make test`, since a kernel of its own is emulated in software: half an hour on two cores. SCAN=1: scanners look, too.
test-vm: .venv/dev ## The host's roles on a machine with a kernel of its own (root on Debian)
	@requirements/system.sh qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap mke2fs=e2fsprogs slirp4netns=slirp4netns \
	  dnsmasq=dnsmasq-base nft=nftables nmap=nmap ip=iproute2
	@$(if $(SCAN),$(MAKE) images)
	@PYTHONPATH=images python3 -m tests.vm.run $(if $(SCAN),--scan)

# Beside `make test` as well: a quarter of an hour.
test-hosts: images ## Two hosts in one inventory: provisioned, released and led back together
	pytest -q tests/hosts

test-fast: .venv/dev ## Lint and unit tests, without a Docker engine
	@$(MAKE) --jobs=2 --output-sync=target lint unit

lint: .venv/dev frontend/node_modules/.package-lock.json ## Every linter
	ruff check .
	ruff format --check .
	mypy
	yamllint .
	ansible-lint
	git ls-files '*Dockerfile' | xargs hadolint
	git ls-files '*.sh' .ci/run | xargs shellcheck
	cd frontend && npm run lint && npm run typecheck

unit: .venv/dev frontend/node_modules/.package-lock.json ## Unit tests of services, front end and tools
	pytest -q -m 'not integration and not site and not hosts and not vm' services images tests
	cd frontend && npm test -- --run

integration: images ## Services against real Redis, database and mail server
	pytest -q -m integration services images tests

dev-compose: images ## Every command of docker-compose.dev.yml
	pytest -q tests/dev

# All that mostly waits: two of them share a machine well. What one says is shown when it is done.
together: images
	@$(MAKE) --jobs=2 --output-sync=target $(addprefix molecule-,$(ROLES)) dev-compose integration

# A role's scenario is what `molecule test` in its folder runs.
molecule: images ## Scenarios of all roles, or of one: make molecule ROLE=docker
	@$(MAKE) --jobs=2 --output-sync=target $(addprefix molecule-,$(or $(ROLE),$(ROLES)))

molecule-%:
	@echo "== molecule test: $*"; python3 molecule/scenario.py roles/$*

site: images ## The whole site as one scenario: create, converge, idempotence, verify, destroy
	@python3 molecule/scenario.py

# TARGETS: bare, site, or the folder of a test bed that runs. KEEP=1 leaves the machines running. DOCKER_BENCH: docs/security.md.
scan: images ## Other people's scanners on a bare VPS and on one after site.yml, side by side
	@python3 -m tests.scans.scan $(if $(KEEP),--keep) $(TARGETS)

images: .venv/dev ## Build (or pull) every image, starting a Docker engine where none runs
	@python3 images/engine.py
	@python3 images/build.py --images $(IMAGES) --env-out .cache/images.env all

lock: ## Compile the locks again from their .in files
	@requirements/lock.sh

venv: .venv/dev ## The virtual environment with all tools

.venv/controller: requirements/controller.txt
	@requirements/system.sh ensurepip=python3-venv ssh=openssh-client
	@echo "Python packages for the controller (.venv)"
	@python3 -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.venv/dev: requirements/dev.txt .venv/controller
	@requirements/system.sh chromium=chromium certutil=libnss3-tools shellcheck=shellcheck
	@echo "Python packages for the tests (.venv)"
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

frontend/node_modules/.package-lock.json: frontend/package-lock.json .venv/dev
	@cd frontend && npm ci
