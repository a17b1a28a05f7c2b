#!/usr/bin/env bash
# The gate beside the floors, in a rig that starts one upstream, puts each target in front of it in turn,
# and prints each figure beside `direct` and beside the bare hyper proxy.
#
# Usage: eval/perf/run.sh [RIG_OPTION=VALUE …]     (or: cargo xtask perf …)
#   Without options it measures what docs/performance.md reports: 64 connections in closed loop, then
#   2,000 calls a second in open loop. With options, one run with exactly those.
#
# CASTRA_RIG   the folder of the rig's sources; default: ../shared/eval/perf beside this repository
# ROUNDS, SECS length of a measurement; default 5 rounds of 2 seconds
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rig_source=${CASTRA_RIG:-$root/../shared/eval/perf}
target=${CARGO_TARGET_DIR:-$root/target}
[ -d "$rig_source/rig" ] || { echo "the rig is not at $rig_source; name its folder in CASTRA_RIG" >&2; exit 1; }

cargo build --quiet --release --package castra --manifest-path "$root/Cargo.toml"
CARGO_TARGET_DIR=$target/rig cargo build --quiet --release --no-default-features --manifest-path "$rig_source/rig/Cargo.toml"

export CASTRA=$target/release/castra
export RIG_BIN=$target/rig/release/rig
export RIG_CONF=$here
export RIG_RUN=$target/perf
mkdir -p "$RIG_RUN"

# One folder per target, made anew: a variant of castra.toml, and an agent whose token the rig sends.
variant() { # name, port, sed script
  dir=$RIG_RUN/$1
  rm -rf "$dir"
  mkdir -p "$dir"
  sed -e "s|@PERF@|$here|" -e "s|127.0.0.1:19040|127.0.0.1:$2|" -e "$3" "$here/castra.toml" > "$dir/castra.toml"
  "$CASTRA" agent add rig --group load --config "$dir/castra.toml" --json |
    sed -n 's/.*"token": *"\([^"]*\)".*/\1/p' | tr -d '\n' > "$dir/token"
}
variant enforce 19040 ''
variant observe 19041 's|"enforce"|"observe"|'
# Without the manifest nothing is known of the tool, so every call counts as one that acts.
variant write 19042 '/^manifest/d'
variant before 19043 's|"alongside"|"before"|'

bench() { "$RIG_BIN" bench "$rig_source/conf/floors.json" "$here/castra.json" only="${ONLY:-direct,bare-hyper,castra}" \
  secs="${SECS:-2}" rounds="${ROUNDS:-5}" "$@"; }

if [ $# -gt 0 ]; then
  bench "$@"
else
  echo "== MCP 2026-07-28, tools/call that only reads, 64 connections, closed loop"
  bench op=mcp26 conns=64
  echo "== the same at 2,000 calls a second, open loop"
  bench op=mcp26 conns=64 rate=2000
  echo "== MCP 2025-11-25 with a session, 64 connections, closed loop"
  bench op=mcp25 conns=64
  echo "== calls that change something (they wait for the disk), 64 connections, closed loop"
  ONLY=direct,bare-hyper,castra-write bench op=mcp26 conns=64
  echo "== answers as events"
  bench op=mcp26-sse conns=64
fi
