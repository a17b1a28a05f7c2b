#!/usr/bin/env bash
# Whether memory stays flat: the gate's resident memory idle, after every 100,000 calls, and at the end.
#
# Usage: eval/perf/soak.sh [CALLS]        default 1,000,000; in steps of about 100,000
#
# RATE         calls a second (default 4,000). At a rate that the machine keeps up with, the calls are counted exactly.
# CONNS        connections (default 64)
# OP           what is called, as the rig names it (default mcp26; mcp25 keeps a session per connection)
# TARGET       a target of castra.json (default castra; castra-write waits for the disk before each call)
# GROWTH_MAX   MiB that memory may grow from the second step on, when every queue has been as long as it gets (default 3)
#
# Exits with 1 when memory grew more than that, when a call failed, or when calls were left out.
set -euo pipefail
. "$(dirname "$0")/setup.sh"
calls=${1:-1000000}
rate=${RATE:-4000}
secs=$((100000 / rate))
step=$((rate * secs))
target_name=${TARGET:-castra}

"$RIG_BIN" bench "$rig_source/conf/floors.json" "$here/castra.json" only="$target_name" op="${OP:-mcp26}" \
  conns="${CONNS:-64}" rate="$rate" secs="$secs" rounds=$(((calls + step - 1) / step)) |
  awk -v step="$step" -v secs="$secs" -v growth_max="${GROWTH_MAX:-3}" '
    function field(name) { return match($0, "\"" name "\":[0-9.]+") ? substr($0, RSTART + length(name) + 3, RLENGTH - length(name) - 3) : "" }
    /^\{/ {
      rounds += 1; failed += field("err"); rss = field("rss"); done += field("rps") * secs
      if (rounds <= 2) first = rss
      printf "%9d calls: %6.1f MiB, %5d calls/s, p99 %6d µs, %d failed\n", rounds * step, rss, field("rps"), field("p99"), field("err")
      fflush()
    }
    /^#/ { print; failed += 1 }
    /^\| castra/ { split($0, column, "|"); idle = column[15] }
    END {
      if (rounds == 0) { print "nothing was measured"; exit 1 }
      grown = rss - first
      printf "idle %s MiB; grown by %.1f MiB from %d to %d calls\n", idle, grown, 2 * step, rounds * step
      if (failed > 0) { print failed " calls failed"; exit 1 }
      if (done < 0.98 * rounds * step) { print "calls were left out: choose a lower RATE"; exit 1 }
      if (grown > growth_max) { print "memory is not flat"; exit 1 }
    }'
