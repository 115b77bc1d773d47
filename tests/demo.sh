#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Moves a disk between two NBD servers while a writer keeps writing to it, and proves that it
# arrived: installs what is missing, builds, and shows each step. Needs no root once nothing is
# missing; everything is in a temporary directory that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n== %s\n' "$*"; }
# mke2fs and e2fsck are not on an ordinary user's path.
PATH=$PATH:/usr/sbin:/sbin

say "Build (some minutes the first time)"
dist/install-deps.sh
[ -f build/build.ninja ] || meson setup build >/dev/null
ninja -C build --quiet server/nbd-mirror-server client/nbd-mirror
server=$PWD/build/server/nbd-mirror-server
mirror=$PWD/build/client/nbd-mirror

work=$(mktemp -d)
started=()
finish() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
cd "$work"
export NBD_MIRROR_RUNTIME_DIR=$work/run NBD_MIRROR_STATE_DIR=$work/state

wait_until() { # what, command...
    local what=$1 end=$((SECONDS + 60))
    shift
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $end ] || { echo "demo: $what did not happen within a minute" >&2; exit 1; }
        sleep 0.05
    done
}

say "A 1 GiB disk: a file system with files on it, and 256 MiB behind it for the writer"
mkdir files
for i in $(seq 1 40); do
    head -c $((i * 100000)) /dev/urandom >"files/file$i"
done
truncate -s 1G source.img
mke2fs -q -t ext4 -d files source.img 768M
ls -lsh source.img

say "The source server, with a guest's writer on it, and the target server"
"$server" vm1=source.img --listen unix:source.sock 2>source.log &
source_server=$!
started+=("$source_server")
"$server" vm1=target.img,size=1G --listen unix:target.sock --control target.control 2>target.log &
target_server=$!
started+=("$target_server")
wait_until "the servers' start" test -S run/server.sock -a -S target.control
fio --name=guest --ioengine=nbd --uri="nbd+unix:///vm1?socket=$work/source.sock" \
    --rw=randwrite --bs=16k --iodepth=8 --rate=40m --offset=768m --size=256m \
    --time_based --runtime=120 >fio.log 2>&1 &
guest=$!
started+=("$guest")
written() {
    curl -s --unix-socket run/server.sock http://server/v1/exports/vm1 | jq -e '.written_bytes > 0'
}
wait_until "the first write" written >/dev/null
echo "fio writes 40 MB/s at random (process $guest)"

say "nbd-mirror mirror server:vm1 TARGET"
progress=json
[ -t 2 ] && progress=bar
"$mirror" mirror server:vm1 "nbd+unix:///vm1?socket=$work/target.sock" --progress "$progress" \
    >mirror.log &
job=$!
started+=("$job")
phase() { [ "$("$mirror" status vm1 --json | jq -r .phase)" = "$1" ]; }
wait_until "ready" phase ready
sleep 2 # somebody watches: it stays ready while the guest writes
echo
"$mirror" status vm1

say "nbd-mirror cutover vm1"
"$mirror" cutover vm1 >cutover.log
wait "$job"
cat cutover.log
# The writer is told that its disk has moved; nothing it wrote before is lost.
wait "$guest" || true
grep -o -m 1 'Cannot send after transport endpoint shutdown' fio.log | sed 's/^/the guest is told: /'
kill "$source_server" "$target_server"
wait "$source_server" "$target_server"

say "Source and target are equal"
sha256sum source.img target.img | tee sums
[ "$(cut -d' ' -f1 sums | sort -u | wc -l)" -eq 1 ]
e2fsck -fn target.img
ls -lsh source.img target.img

say "Done: the disk has moved"
