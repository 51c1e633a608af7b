#!/usr/bin/env bash
# Runs beamlabel, retries if that can help, and ends with the exit code of the last run. For cron and systemd.
#
#   deploy/nightly/label.sh --input … --module … --output 'gs://my-bucket/labels/dt={date}'
#
#   0            done
#   1, 2         too many failures, or wrong usage: no retry, because it would end the same way
#   3, 4, 137    the job failed, reached its time limit or was killed: tries again and resumes, TRIES times in all
#   75           another run holds the lock of the output: tries again every WAIT seconds, for PATIENCE seconds
#   130, 143     cancelled: no retry
#
# --run_date defaults to the day of the first try (UTC), and --if_exists to resume.
set -uo pipefail
: "${BEAMLABEL:=beamlabel}" "${TRIES:=3}" "${WAIT:=60}" "${PATIENCE:=3600}"
run_date=$(date -u +%F)

# A signal that ends this script also ends the run, which cancels its job; no other run starts.
child=
cancelled=
# shellcheck disable=SC2329 # the traps call it
cancel() {
  cancelled=$2
  [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null
}
trap 'cancel INT 130' INT
trap 'cancel TERM 143' TERM

# Runs a command to its end, even if a signal arrives meanwhile; returns its exit code.
finish() {
  local code
  # A process in the background would ignore SIGINT.
  (trap - INT && exec "$@") &
  child=$!
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  child=
  return "$code"
}

tries=0
waited=0
while :; do
  finish "$BEAMLABEL" --run_date "$run_date" --if_exists resume "$@"
  code=$?
  [ -z "$cancelled" ] || exit "$code"
  case $code in
    3 | 4 | 137)
      tries=$((tries + 1))
      [ "$tries" -lt "$TRIES" ] || break
      ;;
    75)
      [ "$waited" -lt "$PATIENCE" ] || break
      waited=$((waited + WAIT))
      ;;
    *) break ;;
  esac
  echo "label.sh: exit code $code; again in $WAIT s" >&2
  finish sleep "$WAIT"
  [ -z "$cancelled" ] || exit "$cancelled"
done
exit "$code"
