#!/bin/sh
# Makes the folder that goes to a device: install.sh, what it puts there, and the package; with --wheels also every
# package for devices without a network.
#
#   deploy/build.sh                                          dist/edge-cmcl-VERSION
#   deploy/build.sh --wheels 3.10 aarch64 --wheels 3.11 x86_64      and wheels for these Pythons and processors
#
# It takes a Python with pip and setuptools (PYTHON, else .venv's) and, for --wheels, a package index.
set -eu

ROOT=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-$ROOT/.venv/bin/python}
OUT=$ROOT/dist
GLIBC=${GLIBC:-35} # minor version of glibc 2 on the device: 35 is Ubuntu 22.04 and JetPack 6, 36 is Debian 12

die() {
  printf 'build.sh: %s\n' "$1" >&2
  exit 2
}

main() {
  targets=
  while [ $# -gt 0 ]; do
    case $1 in
      --wheels)
        [ $# -ge 3 ] || die "--wheels needs a Python and a processor, such as: --wheels 3.10 aarch64"
        targets="$targets $2:$3"
        shift 3
        ;;
      --out)
        [ $# -ge 2 ] || die "--out needs a folder"
        OUT=$2
        shift 2
        ;;
      *) die "unknown option '$1'; it takes --out DIR and --wheels PYTHON PROCESSOR" ;;
    esac
  done
  mkdir -p "$OUT"
  work=$(mktemp -d "$OUT/.building-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  package
  copy
  for target in $targets; do wheels "${target%:*}" "${target#*:}"; done
  finish
}

# Built in a copy: setuptools leaves a build folder behind and would pack stale files from it.
package() {
  mkdir -p "$work/source" "$work/kit"
  # The same commit gives the same bytes, which install.sh then knows it has.
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$ROOT" log -1 --format=%ct 2>/dev/null || echo 1767225600)}
  export SOURCE_DATE_EPOCH
  (cd "$ROOT" && tar --exclude=__pycache__ -cf - edge_cmcl firmware_bridge pyproject.toml README.md LICENSE) | tar -xf - -C "$work/source"
  "$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir "$work/kit" "$work/source"
}

copy() {
  for name in install.sh update-newest.sh requirements-device.txt OPERATIONS.md systemd udev hooks; do
    cp -R "$ROOT/deploy/$name" "$work/kit/"
  done
  cp "$ROOT/LICENSE" "$work/kit/"
}

# wheels PYTHON PROCESSOR: each package by its hash, for another machine than this.
wheels() {
  number=$(echo "$1" | tr -d .)
  set -- "$1" "$2" --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version "$1" \
    --implementation cp --abi "cp$number" --abi abi3 --abi none
  minor=$GLIBC
  python=$1 processor=$2
  shift 2
  while [ "$minor" -ge 17 ]; do
    set -- "$@" --platform "manylinux_2_${minor}_$processor"
    minor=$((minor - 1))
  done
  "$PYTHON" "$ROOT/deploy/pins.py" "$python" "$work/pins.txt"
  "$PYTHON" -m pip download "$@" --platform "manylinux2014_$processor" --require-hashes \
    --dest "$work/kit/wheels" -r "$work/pins.txt"
}

finish() {
  (cd "$work/kit" && find . -type f -print | LC_ALL=C sort | xargs sha256sum) >"$work/SHA256SUMS"
  mv "$work/SHA256SUMS" "$work/kit/"
  name=$(basename "$(ls "$work/kit"/edge_cmcl-*.whl)" | sed 's/^edge_cmcl-\([^-]*\)-.*/edge-cmcl-\1/')
  rm -rf "${OUT:?}/$name"
  mv "$work/kit" "$OUT/$name"
  printf '%s\n' "$OUT/$name"
  [ -n "$targets" ] ||
    printf 'build.sh: no wheels in it: the device needs a package index; KIT="--wheels PYTHON PROCESSOR" adds them\n' >&2
}

main "$@"
