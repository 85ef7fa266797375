# `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Python keeps the bytecode of what it imports: without it every start would compile the CDK anew.
export PYTHONDONTWRITEBYTECODE :=
# The matrices of the stand-in are small: more threads only wait for each other.
export OPENBLAS_NUM_THREADS := 1
export PATH := $(CURDIR)/.venv/bin:$(PATH)
DATA ?= samples/support-ja
DATE ?=
# What commands look at instead of what cdk.json chooses: make destroy STAGE=prod REGION=us-west-2
AT = $(STAGE:%=--stage %) $(REGION:%=--region %)
CHOSEN = $(STAGE:%=-c stage=%) $(REGION:%=-c region=%)
# Where the CDK writes what it is going to deploy
OUT ?= cdk.out
export PROMPT

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

# uv is installed at the locked version, then installs everything else from the lock, by hash.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	@echo "installing what requirements.txt locks into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"
	@$(BIN)/uv pip sync --quiet --require-hashes requirements.txt
	@touch $@

install: .venv/installed ## install what everything below needs into .venv

lock: .venv/installed ## renew requirements.txt and the locks of the layers
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header $(UPGRADE) requirements.in -o requirements.txt
	for layer in core evaluation; do \
	  $(BIN)/uv pip compile --quiet -c requirements.txt --python-platform aarch64-manylinux_2_28 --python-version 3.14 \
	    --only-binary :all: --generate-hashes --no-annotate --no-header $(UPGRADE) \
	    lambda/layers/$$layer.in -o lambda/layers/$$layer.txt; \
	done

format: install ## format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: install ## check style
	$(BIN)/ruff format --check . && $(BIN)/ruff check .

types: install ## check types
	$(BIN)/mypy

unit: install ## test the domain, the stand-in and the embedded AWS
	$(BIN)/pytest -q tests/unit -n 2

infra: install ## test the templates
	$(BIN)/pytest -q tests/infra

workflow: install ## test whole runs through the rehearsal
	$(BIN)/pytest -q tests/workflow -n 2

# The types are checked while the tests run: they keep one core busy for most of a minute.
test: lint ## lint, types and every test that needs no AWS account, without the exhaustive ones
	@$(MAKE) --no-print-directory --jobs 2 types suite

suite: install
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not exhaustive" tests

test-all: install ## the exhaustive tests, beyond make test: every Task broken in every way, each permission taken away
	$(BIN)/pytest -q -n 2 --dist worksteal -m exhaustive tests

bench: install ## measure everything against its floor: make bench FRESH=no leaves out the fresh clone
	@$(BIN)/python -m benchmarks $(if $(filter no,$(FRESH)),--no-fresh-clone)

run: install ## rehearse a run on this machine: make run DATA=folder DATE=2025-01-18
	@$(BIN)/python -m rehearsal $(DATA) $(if $(DATE),--date $(DATE))

validate: install ## check a data file without AWS: make validate FILE=train.jsonl MODEL=amazon.nova-micro-v1:0:128k
	@PYTHONPATH=lambda $(BIN)/python -m customization.validate $(FILE) --model $(MODEL)

deploy: install ## show what changes, ask, then deploy: make deploy YES=yes STAGE=prod REGION=us-west-2
	npm ci --silent
	@PYTHONPATH=lambda $(BIN)/python -m customization.doctor $(AT) --before-deploy
	npx cdk diff --all --method template --output $(OUT) $(CHOSEN)
	@test '$(YES)' = yes || { printf 'Deploy this? Type yes: '; read -r answer; test "$$answer" = yes; } || { echo 'Nothing was deployed.'; exit 1; }
	npx cdk deploy --all --app $(OUT) --require-approval never

doctor: install ## check the account and Region before the first deployment, reading only: make doctor MODEL=...
	@PYTHONPATH=lambda $(BIN)/python -m customization.doctor $(AT) $(MODEL:%=--model %)

runs: install ## list the runs of a data set: make runs DATASET=support-ja, of rehearsals with FROM=rehearsal-out
	@PYTHONPATH=lambda $(BIN)/python -m customization.commands $(AT) runs $(DATASET) $(FROM:%=--from %)

ask: install ## ask base model and model in use: make ask DATASET=support-ja PROMPT='...'
	@PYTHONPATH=lambda $(BIN)/python -m customization.commands $(AT) ask $(DATASET) "$$PROMPT"

destroy: install ## release what bills, then delete the stacks, once the name of the stage is typed: make destroy RELEASE=yes
	npm ci --silent
	@PYTHONPATH=lambda $(BIN)/python -m customization.teardown $(AT) destroy $(if $(filter yes,$(RELEASE)),--release)
	@trap : INT; npx cdk destroy --all --force $(CHOSEN); gone=$$?; PYTHONPATH=lambda $(BIN)/python -m customization.teardown $(AT) left && exit $$gone

purge: install ## remove what destroy keeps, for good, once the name of the stage is typed
	@PYTHONPATH=lambda $(BIN)/python -m customization.teardown $(AT) purge

docs: install ## write the parts of docs/ that come from the templates and the code
	@$(BIN)/python -m docs.render.settings_page > docs/settings.md
	@PYTHONPATH=.:lambda $(BIN)/python -m tests.workflow.matrix > docs/fault-matrix.md
	@PYTHONPATH=.:lambda $(BIN)/python -m docs.render

clean: ## remove what was generated
	rm -rf cdk.out rehearsal-out .mypy_cache .pytest_cache .ruff_cache

.PHONY: help install lock format lint types unit infra workflow test suite test-all bench run validate deploy doctor runs ask destroy purge docs clean
