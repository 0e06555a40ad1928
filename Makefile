# make all     builds the programs for PREFIX (release)
# make check   formatting, lints, tests, documentation, manual pages (never builds release)
# make demo    sends mail the whole way, shows each step, and ends
# make run     the same set-up, which stays up until ^C
# make bench   measurements
# make clean   removes what was built
#
# make install    puts what `all` built where it belongs; see hikyaku(7)
# make uninstall  takes it away again, but for configuration, queue and accounts

PREFIX = /usr/local
SYSCONFDIR = $(PREFIX)/etc
# For packages: a directory that stands in for /.
DESTDIR =
CARGO = cargo
# Where `install` finds the programs.
BIN = $(or $(CARGO_TARGET_DIR),target)/release

all:
	HIKYAKU_PREFIX="$(PREFIX)" HIKYAKU_SYSCONFDIR="$(SYSCONFDIR)" \
		$(CARGO) build --locked --release --bins

# Whoever installs may not be who built: nothing is built here.
install:
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" BIN="$(BIN)" \
		sh etc/install.sh

uninstall:
	@PREFIX="$(PREFIX)" SYSCONFDIR="$(SYSCONFDIR)" DESTDIR="$(DESTDIR)" \
		sh etc/install.sh remove

check: tools
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	@if command -v mandoc >/dev/null 2>&1; then \
		echo "mandoc -T lint -W warning man/*"; \
		mandoc -T lint -W warning man/* && echo "The manual pages are clean."; \
	elif [ "$$CI" = true ]; then \
		echo "mandoc is missing: the manual pages can't be checked" >&2; exit 1; \
	else \
		echo "mandoc is missing: the manual pages were not checked"; \
	fi

# A minimal toolchain has neither rustfmt nor clippy; rustup can add them.
tools:
	@$(CARGO) fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@$(CARGO) clippy --version >/dev/null 2>&1 || rustup component add clippy

demo:
	$(CARGO) build --locked --bins --example demo
	$(CARGO) run --locked --quiet --example demo

run:
	$(CARGO) build --locked --bins --example demo
	$(CARGO) run --locked --quiet --example demo -- --stay

bench:
	tests/bench/run
	tests/bench/relay
	tests/bench/deliver

clean:
	$(CARGO) clean

.PHONY: all install uninstall check tools demo run bench clean
