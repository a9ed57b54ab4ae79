#!/bin/sh
# Installs what the build, the tests and the demo need of Debian's packages; without root it
# names what is missing and stops. `packages.sh tests` installs besides what some tests run
# against; where that is not possible it says so, and those tests are skipped.
set -eu

needed="build-essential pkg-config libdpdk-dev libpcap-dev iproute2 iputils-ping ethtool procps util-linux curl"
# Daemons and tools of the end-to-end tests, which run in network namespaces only.
for_tests="bird2 frr traceroute"
# Clients from PyPI, by whichever Python is there.
python3 -m pip --version >/dev/null 2>&1 || for_tests="$for_tests python3-pip"
# What the daemons' packages would start on this host.
services="bird.service frr.service"
policy=/usr/sbin/policy-rc.d

# Those of the words that are not installed.
missing() {
    for package in "$@"; do
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
        [ "$status" = "install ok installed" ] || printf ' %s' "$package"
    done
}

install() {
    echo "installing Debian packages: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# A package's services are started now (policy-rc.d prevents it) and at every boot (masked units
# are not enabled). Somebody's own that is installed already is left alone.
install_without_services() {
    masked=
    for service in $services; do
        case " $* " in
        *" ${service%.service}"*)
            [ -e "/etc/systemd/system/$service" ] || ln -s /dev/null "/etc/systemd/system/$service"
            masked="$masked ${service%.service}"
            ;;
        esac
    done
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 130' INT TERM # or dash ends without the other
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    # Under `||`, where this is called, `set -e` ends nothing.
    install "$@" || return
    [ -z "$masked" ] || echo "their services are masked; \`systemctl unmask$masked\` if this host is to run them"
}

missing=$(missing $needed)
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing Debian packages:$missing" >&2
        echo "install them with: sudo apt-get install$missing" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # a list of words
    install $missing
fi
if [ "${1:-}" = tests ]; then
    missing=$(missing $for_tests)
    if [ -n "$missing" ] && [ "$(id -u)" -ne 0 ]; then
        echo "not installed, their tests are skipped:$missing"
    elif [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # a list of words
        install_without_services $missing ||
            echo "cannot be installed, their tests are skipped:$missing"
    fi
fi
rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/../Cargo.toml")
command -v cargo >/dev/null || {
    echo "cargo is missing: install a Rust toolchain (https://rustup.rs), $rust or newer" >&2
    exit 1
}
# Debian's own is much older, and what it says of the workspace does not tell.
cargo=$(cargo --version) # "cargo 1.95.0 (…)"; rustup says itself when it has no toolchain
has=$(echo "$cargo" | cut -d ' ' -f 2)
if ! printf '%s\n' "$rust" "$has" | sort -V -C; then
    echo "$(command -v cargo) is version $has: install a Rust toolchain (https://rustup.rs), $rust or newer" >&2
    exit 1
fi
