# The commands that people need; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help run build check test test-crate docs registry bench fuzz ci

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

run: ## embedded mode: API, worker, SQLite, queue and observatory in one process
	cargo run --release

build: ## the optimised program, target/release/pressroom
	cargo build --release --locked

check: ## format, lints, structure and wording: what takes seconds
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/check-structure
	scripts/check-prose

test: ## all tests, with PostgreSQL, Redis, Celery and Chromium, which are installed where missing
	scripts/test

test-crate: ## the tests of one crate: make test-crate CRATE=celeriac
	scripts/test -p $(CRATE) --all-features

docs: ## run the commands and check the links of README.md, CONTRIBUTING.md and docs/
	scripts/check-docs

registry: ## write the constants and docs/telemetry.md from the telemetry registry
	scripts/telemetry-registry

bench: ## requests, tasks and the price of telemetry, measured (see bench/README.md)
	bench/run
	bench/tasks
	bench/telemetry

fuzz: ## ten minutes of mutated input for celeriac's decoders
	scripts/fuzz 600

ci: ## everything that must hold before a merge
	.ci/run
