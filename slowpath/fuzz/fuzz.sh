#!/bin/sh
# Fuzzes one target for a while on the stable toolchain, then minimises its corpus:
#   ./fuzz.sh walk 60
set -eu
cd "$(dirname "$0")"
target=$1
seconds=${2:-60}
RUSTFLAGS="--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
 -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
 -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
# A host apart from the target keeps build scripts free of the flags.
triple=$(rustc -vV | sed -n 's/host: //p')
cargo build --release --target "$triple"
built=${CARGO_TARGET_DIR:-target}/$triple/release
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
mkdir -p "corpus/$target" "artifacts/$target"
"$built/$target" "$new" "corpus/$target" -max_total_time="$seconds" -max_len=4096 -timeout=10 \
    -rss_limit_mb=2048 -artifact_prefix="artifacts/$target/" -print_final_stats=1
kept=$(mktemp -d)
"$built/$target" -set_cover_merge=1 -use_counters=0 "$kept" "corpus/$target" "$new" -max_len=4096
# Cases with a name of their own stay, whatever they still add.
find "corpus/$target" -type f ! -name 'found-*' -delete
mv "$kept"/* "corpus/$target/"
rmdir "$kept"
