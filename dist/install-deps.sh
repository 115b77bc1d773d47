#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what building and testing nbd-mirror needs on Debian 12; quiet and quick when nothing is
# missing. As an ordinary user it uses sudo where that needs no password.
#
#   dist/install-deps.sh [--with-lint]     --with-lint: clang-format and clang-tidy, too
set -euo pipefail

build=(g++ libcli11-dev libcurl4-gnutls-dev libevent-dev libnbd-dev libsystemd-dev liburing-dev
       libxxhash-dev meson ninja-build nlohmann-json3-dev pkg-config)
tests=(btrfs-progs curl e2fsprogs fio fuse3 iproute2 jq libgtest-dev libnbd-bin mandoc nbd-client
       nbd-server nbdkit procps python3 python3-libnbd python3-pytest qemu-system-common qemu-utils
       strace tmux
       xfsprogs)
case ${1-} in
    "") lint=() ;;
    --with-lint) lint=(clang-format clang-tidy) ;;
    *) echo "usage: dist/install-deps.sh [--with-lint]" >&2; exit 2 ;;
esac

missing=()
for package in "${build[@]}" "${tests[@]}" "${lint[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "install-deps: these packages are missing; install them as root: ${missing[*]}" >&2
        exit 1
    fi
fi

echo "install-deps: installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Another apt may be at work: wait for it.
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
if ! { "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "install-deps: apt-get failed" >&2
    exit 1
fi
