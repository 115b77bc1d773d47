# SPDX-License-Identifier: Apache-2.0
"""Adds up what the test programs reported: JUnit files in BUILD/junit for those that count cases
(pytest, googletest), meson's own log for the others. Prints `N passed, N failed[, N skipped]`;
exits 1 when something failed or nothing ran."""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

build = pathlib.Path(sys.argv[1])
passed = failed = skipped = 0
failures = {}  # of the programs that count cases
for path in sorted((build / "junit").glob("*.xml")):
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except ElementTree.ParseError:  # it died while it wrote
        continue
    failures[path.stem] = 0
    for case in cases:
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
            failures[path.stem] += 1
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            skipped += 1
        else:
            passed += 1

log = build / "meson-logs" / "testlog.json"
for line in log.read_text().splitlines() if log.exists() else []:
    test = json.loads(line)
    name = test["name"].split("/")[-1].split(" ")[-1]
    if test["result"] in ("OK", "EXPECTEDFAIL"):
        passed += name not in failures
    elif test["result"] == "SKIP":
        skipped += name not in failures
    elif failures.get(name, 0) == 0:
        # A program that died in the middle has reported no failing case.
        failed += 1

print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
sys.exit(1 if failed or not passed else 0)
