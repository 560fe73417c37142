# Everyday commands. Each is a script or a cargo command that also works without just.

# Show the commands
default:
    @just --list

# Run unit tests and a smoke set
fast *ARGS:
    scripts/test-fast {{ARGS}}

# Run formatting, lints and the whole suite
test *ARGS:
    scripts/test {{ARGS}}

# Format the code
fmt:
    cargo fmt

# Check formatting and lints
lint:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings

# Regenerate the golden files and docs/reference/cli.md, and show what changed
golden:
    KCOMPILE_GOLDEN=update cargo test --locked --test suite -- golden snapshots messages docs
    git diff --stat tests/golden docs/reference/cli.md

# Count sentences with a colon or a semicolon
prose *FILES:
    scripts/prose {{FILES}}

# Build the program
build:
    cargo build --release --locked

# Build, copy, unpack and boot a real kernel
kernel FLAVOR="--fc" VERSION="6.1":
    scripts/real-kernel {{FLAVOR}} {{VERSION}}
