#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds everything and runs every test suite; the last line says how many passed and failed.
#
#   tests/run.sh [--asan | --tsan] [--suite NAME]
#
# --asan runs all suites under AddressSanitizer and UndefinedBehaviorSanitizer (in build-asan/),
# --tsan the unit, integration and fuzz suites under ThreadSanitizer (in build-tsan/).
set -euo pipefail
cd "$(dirname "$0")/.."

build=build
setup=()
suites=()
while [ $# -gt 0 ]; do
    case $1 in
        --asan) build=build-asan setup=(-Db_sanitize=address,undefined -Db_lundef=false) ;;
        --tsan) build=build-tsan setup=(-Db_sanitize=thread -Db_lundef=false)
                suites=(--suite unit --suite integration --suite fuzz) ;;
        --suite) suites+=(--suite "${2:?a suite has a name}"); shift ;;
        *) echo "usage: tests/run.sh [--asan | --tsan] [--suite NAME]" >&2; exit 2 ;;
    esac
    shift
done

dist/install-deps.sh
[ -f "$build/build.ninja" ] || configured=$(meson setup "$build" "${setup[@]}" 2>&1) || {
    echo "$configured" >&2
    exit 1
}
ninja -C "$build" --quiet
# What an earlier run reported must not count for this one.
rm -rf "$build/junit" "$build/meson-logs/testlog.json"
mkdir -p "$build/junit"

# Whatever a test has started carries this mark in its environment, also when it left the test's
# session; nothing else does.
export NBD_MIRROR_TEST_RUN="$$-$RANDOM$RANDOM"
end_leftovers() {
    local environ pid
    for environ in /proc/[0-9]*/environ; do
        pid=${environ//[!0-9]/}
        if grep -qsz "^NBD_MIRROR_TEST_RUN=$NBD_MIRROR_TEST_RUN\$" "$environ"; then
            echo "tests/run.sh: a test left process $pid behind: $(tr '\0' ' ' <"/proc/$pid/cmdline")" >&2
            kill -KILL "$pid" 2>/dev/null || true  # it may have ended by itself
        fi
    done
}
trap end_leftovers EXIT

export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=1:suppressions=$PWD/tests/support/tsan.supp"
status=0
meson test -C "$build" --no-rebuild --print-errorlogs "${suites[@]}" || status=$?
end_leftovers
# One count for each case, not for each program.
python3 tests/support/count_results.py "$build" || status=1
exit "$status"
