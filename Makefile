# shunt: make demo, make test, make bench.  SWITCH=bmv2 uses simple_switch_grpc from PATH.
SWITCH ?= embedded
export SWITCH

.PHONY: help setup build demo test bench deb cargo-deb clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "SWITCH=bmv2 after demo or test: on simple_switch_grpc from PATH"

setup: ## Install the Debian packages that are needed (as root), or name them
	@bmv2-testbed/packages.sh

build: setup ## Build every program (release)
	cargo build --release --locked --workspace --bins

demo: build ## Real traffic through everything, in namespaces of its own; KEEP=1 leaves it up
	@target/release/shunt-testbed demo --switch $(SWITCH) $(if $(KEEP),--keep)

test: ## Format, clippy, unit, property and end-to-end tests
	@bmv2-testbed/packages.sh tests
	@tests/run.sh

bench: build ## Measure (release); BENCH=<name> runs one, BENCH=--list lists them
	@target/release/shunt-bench $(BENCH)

deb: cargo-deb build ## A Debian package in target/debian (needs cargo-deb)
	@mkdir -p target/pages
	target/release/shunt man target/pages
	target/release/shuntd --man > target/pages/shuntd.8
	target/release/shunt completions bash > target/pages/shunt.bash
	cargo deb --no-build --strip -p shunt-controller

# Said before everything is built for nothing.
cargo-deb:
	@command -v cargo-deb >/dev/null || \
		{ echo "cargo-deb is missing; install it with: cargo install cargo-deb" >&2; exit 1; }

clean: ## Remove what was built
	cargo clean
