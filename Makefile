# What people and scripts rely on. Each target says what it does when it is run.
.PHONY: demo test up down check build bench clean
CLUSTER ?= demo

# The whole story, on a cluster of its own (or CLUSTER=current, with your KUBECONFIG).
demo:
	CLUSTER=$(CLUSTER) tests/demo/run

# Everything that is tested.
test:
	tests/run

# A cluster with the operator, left running; again: brings the operator up to date.
up:
	tests/cluster/dev

down:
	tests/cluster/cluster dev down
	rm -rf .dev

# Format, lints, generated files.
check:
	tests/check

# The program, and everything a cluster is made of.
build:
	cargo build --locked
	tests/cluster/cluster build

# The figures.
bench:
	tests/bench/run

# Every cluster and everything built here; ~/.cache/helpdesk-operator is kept.
clean:
	for name in dev test demo bench; do tests/cluster/cluster $$name down; done
	rm -rf .dev target
