#!/bin/sh
# Learns from the newest finished recording, once; what edge-cmcl-update.service runs, as the service user.
#
# Settings (/etc/edge-cmcl/edge-cmcl.env): EDGE_CMCL_UPDATE_MODALITIES, EDGE_CMCL_UPDATE_OPTIONS,
# EDGE_CMCL_UPDATE_CONFIRM=yes, EDGE_CMCL_KEEP_DAYS (older recordings are deleted; 14).
# Exit code: that of the first `edge-cmcl update` that failed, 5 where a guard refused one; 0 where there was nothing to do.
set -eu

state=${EDGE_CMCL_STATE:-/var/lib/edge-cmcl}
recordings=$state/recordings
used=$state/last-update # the recording that was learned from last, and its time of change
program=$(cd "$(dirname "$0")/.." && pwd)/bin/edge-cmcl

say() { printf '%s\n' "$*" >&2; }

# Print the newest recording that nobody has written to for two minutes.
newest() {
  best=
  for recording in "$recordings"/*; do
    [ -e "$recording" ] || continue
    case $recording in *.new | *.part) continue ;; esac
    [ -z "$(find "$recording" -mmin -2 -print -quit)" ] || continue
    if [ -z "$best" ] || [ "$(changed "$recording")" -gt "$(changed "$best")" ]; then best=$recording; fi
  done
  printf '%s' "$best"
}

# Print when the youngest file of a recording was changed, in seconds since 1970.
changed() { find "$1" -printf '%T@\n' | sort -n | sed -n '$s/\..*//p'; }

main() {
  if [ -z "${EDGE_CMCL_UPDATE_MODALITIES-}" ]; then
    say "nothing to learn: EDGE_CMCL_UPDATE_MODALITIES is not set in /etc/edge-cmcl/edge-cmcl.env"
    return 0
  fi
  recording=$(newest)
  if [ -z "$recording" ]; then
    say "there is no finished recording in $recordings"
    delete_old
    return 0
  fi
  mark="$(changed "$recording") $recording"
  if [ "$mark" = "$(cat "$used" 2>/dev/null || true)" ]; then
    say "$recording has been learned from already"
    delete_old
    return 0
  fi
  learn "$recording"
  printf '%s\n' "$mark" >"$used.new"
  mv "$used.new" "$used"
  delete_old
  return "$failed"
}

# After learning: what a board without a clock has just recorded may look years old.
delete_old() { find "$recordings" -mindepth 1 -maxdepth 1 -mtime "+${EDGE_CMCL_KEEP_DAYS:-14}" -exec rm -rf {} +; }

# An update deletes the recording that it has learned from; where several sensors are to be learned, the last one does.
learn() {
  failed=0
  left=$(echo "$EDGE_CMCL_UPDATE_MODALITIES" | wc -w)
  for modality in $EDGE_CMCL_UPDATE_MODALITIES; do
    left=$((left - 1))
    keep=
    if [ "$left" -gt 0 ] && is_recording "$1"; then keep=--keep; fi
    code=0
    # shellcheck disable=SC2086 # a list of options
    "$program" update --modality "$modality" --data "$1" $keep ${EDGE_CMCL_UPDATE_OPTIONS-} || code=$?
    [ "$failed" != 0 ] || failed=$code
    if [ "$code" = 0 ] && [ "${EDGE_CMCL_UPDATE_CONFIRM-no}" = yes ]; then "$program" confirm; fi
  done
}

# What `record` wrote, rather than a pairs file.
is_recording() { [ -d "$1" ] || [ "${1%.mcap}" != "$1" ]; }

main
