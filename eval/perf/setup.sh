# What run.sh and soak.sh have in common: both programs built, and a folder per target. Sourced, not run.
#
# CASTRA_RIG   the folder of the rig's sources; default: ../shared/eval/perf beside this repository
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
rig_source=${CASTRA_RIG:-$root/../shared/eval/perf}
target=${CARGO_TARGET_DIR:-$root/target}
[ -d "$rig_source/rig" ] || { echo "the rig is not at $rig_source; name its folder in CASTRA_RIG" >&2; exit 1; }

cargo build --quiet --release --package castra --manifest-path "$root/Cargo.toml"
CARGO_TARGET_DIR=$target/rig cargo build --quiet --release --no-default-features --manifest-path "$rig_source/rig/Cargo.toml"

export CASTRA=$target/release/castra
export RIG_BIN=$target/rig/release/rig
export RIG_CONF=$rig_source/conf
export RIG_RUN=$target/perf
mkdir -p "$RIG_RUN"

# A folder for a target, made anew: a variant of castra.toml, and an agent whose token the rig sends.
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
