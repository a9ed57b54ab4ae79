#!/bin/sh
# Installs what the build, the tests and the demo need of Debian's packages; without root it
# names what is missing and stops.
set -eu

packages="build-essential pkg-config libdpdk-dev libpcap-dev iproute2 iputils-ping ethtool procps util-linux curl"

missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "missing Debian packages:$missing" >&2
        echo "install them with: sudo apt-get install$missing" >&2
        exit 1
    fi
    echo "installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi
command -v cargo >/dev/null || {
    echo "cargo is missing: install a Rust toolchain (https://rustup.rs), 1.95 or newer" >&2
    exit 1
}
