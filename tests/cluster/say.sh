# shellcheck shell=bash
# What the person who waits gets to read.

say() { printf '%s\n' "$*" >&2; }

die() {
  say "cluster: $*"
  exit 1
}

STEP_GROUP=

# step WHAT LOG COMMAND...: runs COMMAND with its output in LOG and says how long it takes.
# On a terminal the line counts up; elsewhere a line is added now and then, so that a log
# shows life without filling up. A COMMAND that fails ends the script.
#
# Never call it in a condition: bash would ignore every error inside COMMAND.
step() {
  local what=$1 log=$2 began=$SECONDS told=$SECONDS code=0
  shift 2
  mkdir -p "$(dirname "$log")"
  [ -t 2 ] || say "$what"
  # A process group of its own, so that an interruption ends all of it.
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  STEP_GROUP=$!
  set +m
  while kill -0 "$STEP_GROUP" 2>/dev/null; do
    if [ -t 2 ]; then
      printf '\r\033[K%s … %d s' "$what" $((SECONDS - began)) >&2
    elif [ $((SECONDS - told)) -ge 20 ]; then
      told=$SECONDS
      say "$what … $((SECONDS - began)) s"
    fi
    sleep 0.1
  done
  wait "$STEP_GROUP" || code=$?
  STEP_GROUP=
  if [ -t 2 ]; then printf '\r\033[K' >&2; fi
  if [ "$code" != 0 ]; then
    say "$what: failed after $((SECONDS - began)) s; the last lines of $log:"
    tail -n 25 "$log" >&2 || true
    die "could not finish: $what"
  fi
  say "$what: $((SECONDS - began)) s"
}

# For traps: ends what a step was doing.
end_step() {
  [ -z "$STEP_GROUP" ] || kill -- "-$STEP_GROUP" 2>/dev/null || true
  STEP_GROUP=
}
