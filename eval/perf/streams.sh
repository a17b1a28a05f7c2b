#!/usr/bin/env bash
# Time to the first data of a streamed answer, directly and through the gate, and the gate's memory with 1,000
# slow streams open. For both the upstream and the client are streams.py.
#
# Usage: eval/perf/streams.sh         SLOW and CALLS as streams.py says
set -euo pipefail
. "$(dirname "$0")/setup.sh"
variant streams 19044 's|http://127.0.0.1:19000/v1|http://127.0.0.1:19105/v1|'
ulimit -n "$(ulimit -Hn)"
python3 "$here/streams.py" "$RIG_RUN/streams"
