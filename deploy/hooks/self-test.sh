#!/bin/sh
# Tests the generation in use on the system that runs now, as the service user: every graph runs, golden windows embed as
# they should. Ends its trial where it passes.
# Exit code: 0 it passed, or there is no model on this device; else that of what failed.
set -eu

BIN=${EDGE_CMCL_BIN:-/opt/edge-cmcl/current/bin}
EDGE_CMCL_STORE=${EDGE_CMCL_STORE:-/var/lib/edge-cmcl/store}
export EDGE_CMCL_STORE

say() { printf 'edge-cmcl self-test: %s\n' "$*" >&2; }

as_service() {
  if [ "$(id -u)" = 0 ]; then
    HOME=/var/lib/edge-cmcl setpriv --reuid edge-cmcl --regid edge-cmcl --init-groups -- "$@"
  else
    "$@"
  fi
}

# `confirm` tests what is on trial alone; a new system is a reason to test what was confirmed on the old one, too.
test_current() {
  as_service "$BIN/python" - <<'END'
import os, sys

from edge_cmcl.device.self_test import self_test
from edge_cmcl.device.starting import current_model
from edge_cmcl.device.store import open_store
from edge_cmcl.errors import EdgeCmclError

try:
    self_test(current_model(open_store(os.environ["EDGE_CMCL_STORE"])))
except EdgeCmclError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
END
}

if [ ! -e "$EDGE_CMCL_STORE/index.json" ]; then
  say "no model is installed"
  exit 0
fi
# A failed trial goes back to the generation confirmed last by itself; the test then is of that one.
as_service "$BIN/edge-cmcl" confirm --json >/dev/null || say "the generation on trial failed"
code=0
test_current || code=$?
if [ "$code" = 0 ]; then say "passed"; else say "failed"; fi
exit "$code"
