# shunt: make demo, make test.  SWITCH=bmv2 uses simple_switch_grpc from PATH.
SWITCH ?= embedded
export SWITCH

.PHONY: help setup build demo test clean

help: ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: ## Install the Debian packages that are needed (as root), or name them
	@bmv2-testbed/packages.sh

build: setup ## Build every program (release)
	cargo build --release --locked --workspace --bins

demo: build ## Real traffic through everything, in namespaces of its own; KEEP=1 leaves it up
	@target/release/shunt-testbed demo --switch $(SWITCH) $(if $(KEEP),--keep)

test: setup ## Format, clippy, unit, property and end-to-end tests
	@tests/run.sh

clean: ## Remove what was built
	cargo clean
