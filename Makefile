# Frequent commands; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help run build check test test-crate docs registry bench fuzz ci

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

run: ## embedded mode: API, worker, SQLite, queue and observatory in one process
	cargo run --release

build: ## the program for production, target/dist/pressroom; takes longer
	cargo build --profile dist --locked

check: ## quick checks: format, lints, module structure, wording
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/check-structure
	scripts/check-prose

test: ## all tests; installs PostgreSQL, Redis, Celery and Chromium if missing
	scripts/test

test-crate: ## the tests of one crate: make test-crate CRATE=celeriac
	scripts/test -p $(CRATE) --all-features

docs: ## run the commands and check the links of README.md, CONTRIBUTING.md and docs/
	scripts/check-docs

registry: ## write the constants and docs/telemetry.md from the telemetry registry
	scripts/telemetry-registry

bench: ## measure requests, tasks and the cost of telemetry (see bench/README.md)
	bench/run
	bench/tasks
	bench/telemetry

fuzz: ## fuzz celeriac's decoders for ten minutes
	scripts/fuzz 600

ci: ## all checks that must pass before a merge
	.ci/run
