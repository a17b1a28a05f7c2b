#!/usr/bin/env bash
# The gate beside the floors, in a rig that starts one upstream, puts each target in front of it in turn,
# and prints each figure beside `direct` and beside the bare hyper proxy.
#
# Usage: eval/perf/run.sh [RIG_OPTION=VALUE …]     (or: cargo xtask perf …)
#   Without options it measures what docs/performance.md reports: 64 connections in closed loop, then
#   2,000 calls a second in open loop. With options, one run with exactly those.
#
# ROUNDS, SECS length of a measurement; default 5 rounds of 2 seconds
set -euo pipefail
. "$(dirname "$0")/setup.sh"

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
  echo "== chat completions, with secrets masked, 64 connections, closed loop"
  bench op=chat conns=64
  echo "== the same, streamed: 33 events each, as fast as they can be written"
  bench op=chat-stream conns=64
fi
