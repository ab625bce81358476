#!/bin/sh
# Puts edge-cmcl on a device, upgrades it, or takes it off. Run it as root; run it again whenever in doubt.
#
# What is put where, and what a failure at any instant leaves behind:
#   PREFIX/versions/ID       one whole virtual environment per version; not there until its file `complete` is
#   PREFIX/current           a link to the version in use, changed by one rename: the old version or the new one
#   PREFIX/previous          a link to the version before, for --rollback
#   /usr/local/bin/edge-cmcl runs the version in use as the service user
#   /etc/edge-cmcl           settings, never written over
#   /var/lib/edge-cmcl       the store and the recordings, of the service user
#   systemd units and one udev rule
set -eu
umask 022

USER_NAME=edge-cmcl
STATE=/var/lib/edge-cmcl
SETTINGS=/etc/edge-cmcl
UNITS=/etc/systemd/system
RULE=/etc/udev/rules.d/60-edge-cmcl.rules
SOCKET=/run/edge-cmcl/serve.sock
COMMAND=/usr/local/bin/edge-cmcl
MARK='Written by the install.sh of edge-cmcl'
NEEDED_MB=400 # one version unpacked takes 200 to 250 MB

PREFIX=/opt/edge-cmcl
PYTHON=
WHEELS=
RUNTIME=
ACTION=install
SYSTEMD=yes
PURGE=no
HERE=$(cd "$(dirname "$0")" && pwd)

usage() {
  cat <<'END'
Usage: install.sh [OPTIONS]             install, or upgrade to the version beside this script
       install.sh --rollback            use the version before again
       install.sh --uninstall [--purge] take it off; the store and the settings stay but for --purge

  --wheels DIR    Take every package from this folder; ask no network. Made by `build.sh`.
  --prefix DIR    Where the program goes. [default: /opt/edge-cmcl]
  --onnxruntime FILE.whl
                  Take this build of onnxruntime, such as NVIDIA's onnxruntime-gpu for the JetPack in use. It is
                  not among the hashes: check it yourself.
  --python FILE   Python 3.10 to 3.13 to build on. [default: the newest on the path]
  --no-systemd    Neither units nor udev rule: for a container, or another init.
  --help          Show this message and exit.

Exit codes: 0 done, 2 usage, 3 what is beside this script cannot be used, 4 a hash or signature does not match,
7 this machine cannot do it as it stands.
END
}

say() { printf 'edge-cmcl: %s\n' "$*" >&2; }

# die CODE MESSAGE [HINT]
die() {
  say "$2"
  [ -z "${3-}" ] || printf '  to do: %s\n' "$3" >&2
  exit "$1"
}

main() {
  trap 'exit 130' INT
  trap 'exit 143' TERM
  parse "$@"
  [ "$(id -u)" = 0 ] || die 7 "this needs root, and runs as $(id -un)" "run it by sudo"
  lock
  case $ACTION in
    install) install_all ;;
    rollback) roll_back ;;
    uninstall) uninstall ;;
  esac
}

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
      --wheels | --prefix | --python | --onnxruntime)
        [ $# -ge 2 ] || die 2 "$1 needs a value" "see --help"
        case $1 in
          --wheels) WHEELS=$(absolute "$2") ;;
          --prefix) PREFIX=$(absolute "$2") ;;
          --python) PYTHON=$2 ;;
          --onnxruntime) RUNTIME=$(absolute "$2") ;;
        esac
        shift
        ;;
      --no-systemd) SYSTEMD=no ;;
      --rollback) ACTION=rollback ;;
      --uninstall) ACTION=uninstall ;;
      --purge) PURGE=yes ;;
      --help) usage && exit 0 ;;
      *) die 2 "unknown option '$1'" "see --help" ;;
    esac
    shift
  done
  [ "$PURGE" = no ] || [ "$ACTION" = uninstall ] || die 2 "--purge goes with --uninstall only"
  case $PREFIX in
    / | /usr | /usr/* | /etc | /etc/* | /var | /bin* | /lib* | /sbin* | /home | /root)
      die 2 "--prefix $PREFIX is a folder of the system" "name one of its own, such as /opt/edge-cmcl"
      ;;
    *[!A-Za-z0-9/._-]*) die 2 "--prefix $PREFIX has characters that a unit file cannot hold as they are" ;;
  esac
}

absolute() {
  case $1 in
    /*) printf '%s\n' "${1%/}" ;;
    *) printf '%s/%s\n' "$PWD" "${1%/}" ;;
  esac
}

# One at a time; the lock ends with the process, however that ends.
lock() {
  command -v flock >/dev/null || die 7 "there is no flock here" "install util-linux"
  mkdir -p /run/lock
  exec 9>/run/lock/edge-cmcl-install
  flock -w 20 9 || die 7 "another install.sh runs" "wait until it has ended, or end it"
}

# ---------------------------------------------------------------------------------------------------------- install

install_all() {
  verify_release
  find_package
  find_python
  id=$(identity)
  new=$PREFIX/versions/$id
  check_room
  add_user
  add_folders
  remove_unfinished
  if [ -e "$new/complete" ]; then say "version $id is built already"; else build; fi
  try_on_store
  was=$(readlink "$PREFIX/current" 2>/dev/null || true)
  write_settings
  write_command
  [ "$SYSTEMD" = no ] || write_units
  switch "versions/$id"
  [ "$SYSTEMD" = no ] || start_units "$was"
  remove_old
  say "version $id is in use; the store is $STATE/store"
}

# The files beside this script are those that build.sh put there.
verify_release() {
  [ -e "$HERE/SHA256SUMS" ] || return 0
  (cd "$HERE" && sha256sum --check --quiet --strict SHA256SUMS >&2) ||
    die 4 "a file beside $HERE/install.sh is not what SHA256SUMS says" "copy the folder again"
}

find_package() {
  [ -e "$HERE/requirements-device.txt" ] || die 3 "there is no requirements-device.txt beside install.sh" "copy the whole folder"
  [ -z "$WHEELS" ] || [ -d "$WHEELS" ] || die 3 "--wheels $WHEELS is no folder"
  if [ -z "$WHEELS" ] && [ -d "$HERE/wheels" ]; then WHEELS=$HERE/wheels; fi
  PACKAGE=
  for file in "$HERE"/edge_cmcl-*.whl ${WHEELS:+"$WHEELS"/edge_cmcl-*.whl}; do
    [ -e "$file" ] || continue
    [ -z "$PACKAGE" ] || cmp -s "$PACKAGE" "$file" ||
      die 3 "there are two packages: $PACKAGE and $file" "leave one"
    PACKAGE=$file
  done
  [ -z "$RUNTIME" ] || [ -e "$RUNTIME" ] || die 3 "there is no $RUNTIME"
  [ -n "$PACKAGE" ] || die 3 "there is no edge_cmcl-*.whl beside install.sh${WHEELS:+ or in $WHEELS}" "make it: deploy/build.sh"
}

find_python() {
  for candidate in $PYTHON python3.13 python3.12 python3.11 python3.10 python3; do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
      PYTHON=$(command -v "$candidate")
      return
    fi
    [ "$candidate" != "$PYTHON" ] || die 7 "$PYTHON is not Python 3.10 to 3.13 with venv and ensurepip"
  done
  die 7 "there is no Python 3.10 to 3.13 with venv and ensurepip here" "apt-get install python3-venv, or name one by --python"
}

# The name of what would be installed: equal names are equal environments.
identity() {
  version=${PACKAGE##*/edge_cmcl-}
  version=${version%%-*}
  about=$("$PYTHON" -c 'import sys, os; print(sys.version, os.uname().machine)')
  {
    cat "$PACKAGE" "$HERE/requirements-device.txt" "$HERE/install.sh" ${RUNTIME:+"$RUNTIME"}
    (cd "$HERE" && find systemd udev hooks update-newest.sh -type f | LC_ALL=C sort | xargs cat)
    printf '%s %s' "$PYTHON" "$PREFIX $about"
  } | sha256sum | sed "s/^\(............\).*/$version-\1/"
}

check_room() {
  [ ! -e "$new/complete" ] || return 0
  parent=$PREFIX
  while [ ! -d "$parent" ]; do parent=$(dirname "$parent"); done
  free=$(df -Pk "$parent" 2>/dev/null | sed -n '2s/^[^ ]* *[0-9]* *[0-9]* *\([0-9]*\).*/\1/p')
  [ -n "$free" ] || return 0 # no df, or none that we can read
  [ "$((free / 1024))" -ge "$NEEDED_MB" ] ||
    die 7 "$parent has $((free / 1024)) MB free, and a version takes up to $NEEDED_MB MB" "make room, or name another --prefix"
}

add_user() {
  if ! getent passwd "$USER_NAME" >/dev/null; then
    command -v useradd >/dev/null || die 7 "there is no useradd here" "install the package passwd (shadow)"
    useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin \
      --comment 'edge-cmcl service' "$USER_NAME"
  fi
  if getent group dialout >/dev/null && ! id -Gn "$USER_NAME" | grep -qw dialout; then
    usermod --append --groups dialout "$USER_NAME" # serial ports
  fi
}

add_folders() {
  mkdir -p "$PREFIX/versions"
  install -d -m 0750 -o "$USER_NAME" -g "$USER_NAME" "$STATE" "$STATE/recordings"
  install -d -m 0750 -o root -g "$USER_NAME" "$SETTINGS" "$SETTINGS/links"
}

# What an interrupted run has left.
remove_unfinished() {
  for folder in "$PREFIX"/versions/*/; do
    folder=${folder%/}
    if [ -d "$folder" ] && [ ! -e "$folder/complete" ]; then
      say "removing the unfinished $folder"
      rm -rf "$folder"
    fi
  done
  rm -f "$PREFIX/.link" "$COMMAND.new" "$RULE.new"
}

build() {
  say "building $new on $PYTHON"
  trap 'rm -rf "$new"' EXIT
  "$PYTHON" -m venv "$new" 9>&- || die 7 "no virtual environment could be made in $new"
  requirements >"$new/requirements.txt"
  set -- --quiet --disable-pip-version-check --no-input --no-cache-dir
  [ -z "$WHEELS" ] || set -- "$@" --no-index --find-links "$WHEELS"
  # Every package by its hash: what is on the index, or in the folder, and is not what we tested is refused.
  "$new/bin/python" -m pip install "$@" --require-hashes --only-binary :all: -r "$new/requirements.txt" 9>&- ||
    die 4 "the packages of requirements-device.txt could not be installed (pip says why above)" \
      "offline: give --wheels a folder made by build.sh for this Python and processor"
  "$new/bin/python" -m pip install "$@" --no-index --no-deps "$PACKAGE" 9>&- || die 3 "$PACKAGE could not be installed"
  [ -z "$RUNTIME" ] || "$new/bin/python" -m pip install "$@" --no-index --no-deps "$RUNTIME" 9>&- ||
    die 3 "$RUNTIME could not be installed" "it must be for this Python and processor"
  copy_release
  "$new/bin/edge-cmcl" --version >/dev/null 9>&- || die 7 "the program does not start from $new"
  "$new/bin/python" -c 'import onnxruntime, numpy, edge_cmcl.device' 9>&- || 
    die 7 "a library does not load on this machine (see above)" "Debian, Ubuntu: apt-get install libstdc++6"
  flush "$new" # all of it is on the disk before the mark that says so
  : >"$new/complete"
  trap - EXIT
}

# Put the file system that FILE is on on its disk.
flush() { sync -f "$1" 2>/dev/null || sync; }

# The locked packages; without the onnxruntime among them where another build takes its place.
requirements() {
  if [ -z "$RUNTIME" ]; then cat "$HERE/requirements-device.txt"; return; fi
  sed '/^onnxruntime==/,/[^\\]$/d' "$HERE/requirements-device.txt"
}

# What --rollback, --uninstall and the units need later, when the folder of this script is gone.
copy_release() {
  mkdir -p "$new/deploy"
  cp -R "$HERE/install.sh" "$HERE/update-newest.sh" "$HERE/systemd" "$HERE/udev" "$HERE/hooks" \
    "$HERE/requirements-device.txt" "$new/deploy/"
  if [ -e "$HERE/OPERATIONS.md" ]; then cp "$HERE/OPERATIONS.md" "$new/deploy/"; fi
}

# A version that cannot read this device's store is not switched to.
try_on_store() {
  [ -e "$STATE/store/index.json" ] || return 0
  as_service "$new/bin/edge-cmcl" status --store "$STATE/store" --json >/dev/null 9>&- ||
    die 3 "version $id cannot read the store $STATE/store; nothing was switched" \
      "see what it says: edge-cmcl status; a store of a newer version needs that version"
}

as_service() { setpriv --reuid "$USER_NAME" --regid "$USER_NAME" --init-groups --no-new-privs -- "$@"; }

# switch TARGET: one rename, so `current` is the old version or the new one.
switch() {
  was=$(readlink "$PREFIX/current" 2>/dev/null || true)
  if [ "$was" = "$1" ]; then return; fi
  if [ -n "$was" ] && [ -e "$PREFIX/$was/complete" ]; then relink previous "$was"; fi
  relink current "$1"
}

relink() {
  rm -f "$PREFIX/.link"
  ln -s "$2" "$PREFIX/.link"
  mv -T "$PREFIX/.link" "$PREFIX/$1"
  flush "$PREFIX"
}

# Of what is neither in use nor the version before, nothing is kept.
remove_old() {
  for folder in "$PREFIX"/versions/*/; do
    folder=versions/$(basename "$folder")
    case $folder in
      "$(readlink "$PREFIX/current")" | "$(readlink "$PREFIX/previous" 2>/dev/null || true)") ;;
      *)
        rm -f "$PREFIX/$folder/complete" # first: a half removed folder is an unfinished one
        rm -rf "${PREFIX:?}/$folder"
        ;;
    esac
  done
}

# place FILE MODE: write standard input there, whole or not at all.
place() {
  mkdir -p "$(dirname "$1")"
  cat >"$1.new"
  chmod "$2" "$1.new"
  mv "$1.new" "$1"
}

write_settings() {
  [ -e "$SETTINGS/edge-cmcl.env" ] || place "$SETTINGS/edge-cmcl.env" 0640 <"$new/deploy/systemd/edge-cmcl.env"
  chgrp "$USER_NAME" "$SETTINGS/edge-cmcl.env"
}

# Root would leave files in the store that the service cannot read, so the command becomes the service user.
write_command() {
  if [ -e "$COMMAND" ] && ! grep -q "$MARK" "$COMMAND"; then
    die 3 "$COMMAND is there and is not ours" "move it away"
  fi
  place "$COMMAND" 0755 <<END
#!/bin/sh
# $MARK: the version in use, on the store of this device, as the service user.
EDGE_CMCL_STORE=\${EDGE_CMCL_STORE:-$STATE/store}
export EDGE_CMCL_STORE
if [ "\$(id -u)" = 0 ]; then
  HOME=$STATE exec setpriv --reuid $USER_NAME --regid $USER_NAME --init-groups -- $PREFIX/current/bin/edge-cmcl "\$@"
fi
exec $PREFIX/current/bin/edge-cmcl "\$@"
END
}

# ------------------------------------------------------------------------------------------------------------ units

write_units() {
  for file in "$new"/deploy/systemd/*.service "$new"/deploy/systemd/*.timer; do
    sed "s|/opt/edge-cmcl|$PREFIX|g" "$file" | place "$UNITS/$(basename "$file")" 0644
  done
  place "$RULE" 0644 <"$new/deploy/udev/60-edge-cmcl.rules"
}

running() { [ -d /run/systemd/system ]; }

start_units() {
  command -v systemctl >/dev/null || {
    say "there is no systemctl here: the units lie in $UNITS and nothing was started"
    return 0
  }
  systemctl --quiet enable edge-cmcl.service 9>&-
  if ! running; then
    say "systemd does not run here: the service starts with the next boot"
    return 0
  fi
  systemctl daemon-reload 9>&-
  udevadm control --reload 9>&- || say "udev could not be told of the new rule; the next boot does"
  if restart_service; then return; fi
  systemctl --no-pager --lines 20 status edge-cmcl.service >&2 9>&- || true
  if [ -z "$1" ] || [ "$1" = "versions/$id" ]; then die 7 "the service does not stay up (see above)"; fi
  new=$PREFIX/$1
  write_units
  relink current "$1"
  systemctl daemon-reload 9>&-
  restart_service || say "the version before does not stay up either"
  die 7 "the service does not stay up with version $id (see above): $1 is in use again"
}

# The service has a condition: without a model on the device it stays down, and that is in order. With one, it is up when it
# listens; a board may take its time to load everything.
restart_service() {
  systemctl restart edge-cmcl.service 9>&- || return 1
  [ -e "$STATE/store/index.json" ] || return 0
  tries=90
  while [ "$tries" -gt 0 ]; do
    sleep 1
    systemctl --quiet is-active edge-cmcl.service 9>&- || return 1
    [ ! -S "$SOCKET" ] || return 0
    tries=$((tries - 1))
  done
  return 1
}

# --------------------------------------------------------------------------------------------- rollback, uninstall

roll_back() {
  target=$(readlink "$PREFIX/previous" 2>/dev/null || true)
  if [ -z "$target" ] || [ ! -e "$PREFIX/$target/complete" ]; then
    die 3 "there is no version before this one in $PREFIX" "run the install.sh of the kit whose version you want"
  fi
  new=$PREFIX/$target
  id=${target#versions/}
  try_on_store
  was=$(readlink "$PREFIX/current" 2>/dev/null || true)
  [ "$SYSTEMD" = no ] || write_units
  switch "$target"
  [ "$SYSTEMD" = no ] || start_units "$was"
  say "version $id is in use again; to go back, run --rollback once more"
}

uninstall() {
  if command -v systemctl >/dev/null && running; then
    systemctl --quiet stop 'edge-cmcl*.service' 'edge-cmcl*.timer' 9>&- || true
  fi
  for file in "$UNITS"/edge-cmcl.service "$UNITS"/edge-cmcl-*.service "$UNITS"/edge-cmcl-*.timer; do
    [ -e "$file" ] || continue
    if command -v systemctl >/dev/null; then systemctl --quiet disable "$(basename "$file")" 9>&- || true; fi
    rm -f "$file"
  done
  rm -f "$UNITS"/edge-cmcl*.new "$UNITS"/*.wants/edge-cmcl.service "$UNITS"/*.wants/edge-cmcl-*.timer "$RULE" "$RULE.new"
  if command -v systemctl >/dev/null && running; then systemctl daemon-reload 9>&-; fi
  if [ -e "$COMMAND" ] && grep -q "$MARK" "$COMMAND"; then rm -f "$COMMAND"; fi
  rm -f "$COMMAND.new"
  if [ "$PURGE" = yes ]; then
    rm -rf "$STATE" "$SETTINGS"
    if getent passwd "$USER_NAME" >/dev/null; then userdel "$USER_NAME"; fi
  fi
  # Last: this script may lie in there, and an uninstall that was cut off can be run again from there.
  remove_prefix
  if [ "$PURGE" = yes ]; then say "all of it is gone"; else say "gone; $STATE and $SETTINGS stay (--purge removes them)"; fi
}

remove_prefix() {
  rm -f "$PREFIX/.link" "$PREFIX/previous" "$PREFIX/current"
  rm -rf "${PREFIX:?}/versions"
  if [ -d "$PREFIX" ]; then rmdir "$PREFIX" 2>/dev/null || say "$PREFIX has files that are not ours, and stays"; fi
}

main "$@"
exit
