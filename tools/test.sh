#!/bin/bash
# Runs the named stages, the fast ones first as they are given, all of them whatever fails, and ends with one line that adds up everything.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-/usr/bin/python3}
swift=${SWIFT:-swift}
reports=$(mktemp -d /tmp/ctr-test-reports-XXXXXX)
trap 'rm -rf "$reports"' EXIT
passed=0 failed=0 summary=()

count() { # stage, passed, failed, seconds
    passed=$((passed + $2)); failed=$((failed + $3))
    summary+=("$(printf '%-12s %5d passed %4d failed %5d s' "$1" "$2" "$3" "$4")")
}

check() { # stage, command: one check
    local started=$SECONDS
    if "${@:2}"; then count "$1" 1 0 $((SECONDS - started)); else count "$1" 0 1 $((SECONDS - started)); fi
}

pytest_stage() { # stage, arguments
    local started=$SECONDS xml=$reports/$1.xml numbers
    "$python" -m pytest -q -p no:cacheprovider --junitxml="$xml" -o junit_family=xunit2 --durations=5 "${@:2}"
    numbers=$("$python" - "$xml" <<'PY'
import sys, xml.etree.ElementTree as tree
try:
    suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
    bad = int(suite.get("failures")) + int(suite.get("errors"))
    print(max(0, int(suite.get("tests")) - bad - int(suite.get("skipped"))), bad)
except Exception as error:
    print(f"no report: {error}", file=sys.stderr); print(0, 1)
PY
    )
    # A run in which nothing passed has not tested anything.
    [[ $numbers == "0 0" ]] && numbers="0 1"
    # shellcheck disable=SC2086
    count "$1" $numbers $((SECONDS - started))
}

unit_stage() {
    local started=$SECONDS log=$reports/unit.log status
    "$swift" build --build-tests 2>&1 | grep -v -E '^\[[0-9]+/[0-9]+\]'
    status=${PIPESTATUS[0]}
    if ((status)); then count unit 0 1 $((SECONDS - started)); return; fi
    "$swift" test --skip-build 2>&1 | tee "$log" | grep -v -E "^(Test (Case|Suite)|◇|✔|􀟈|􁁛)"
    status=${PIPESTATUS[0]}
    local good bad
    good=$(grep -c -E "^Test Case '.*' passed" "$log")
    bad=$(grep -c -E "^Test Case '.*' failed" "$log")
    local testing
    testing=$(sed -n -E 's/.*Test run with ([0-9]+) tests?.* (passed|failed).*/\1/p' "$log" | tail -1)
    local broken
    broken=$(grep -c -E '^(✘|􀢄) Test .* failed after' "$log")
    good=$((good + ${testing:-0} - broken)); bad=$((bad + broken))
    ((status != 0 && bad == 0)) && bad=1
    ((good == 0 && bad == 0)) && bad=1
    count unit "$good" "$bad" $((SECONDS - started))
}

crashwalk_stage() {
    local started=$SECONDS log=$reports/crashwalk.log
    "$python" Tests/Chaos/crashwalk.py --bounded --kills "${CRASHWALK_KILLS:-60}" --seconds "${CRASHWALK_SECONDS:-200}" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]} good bad
    good=$(sed -n -E 's/^crashwalk: ([0-9]+) passed.*/\1/p' "$log"); bad=$(sed -n -E 's/^crashwalk: .* ([0-9]+) failed$/\1/p' "$log")
    ((status != 0 && ${bad:-0} == 0)) && bad=1
    count crashwalk "${good:-0}" "${bad:-0}" $((SECONDS - started))
}

rounds_stage() {
    local started=$SECONDS log=$reports/rounds.log
    "$python" Tests/Chaos/rounds.py --rounds "${ROUNDS:-200}" 2>&1 | tee "$log"
    local status=${PIPESTATUS[0]} good bad
    good=$(sed -n -E 's/^rounds: ([0-9]+) passed.*/\1/p' "$log"); bad=$(sed -n -E 's/^rounds: .* ([0-9]+) failed$/\1/p' "$log")
    ((status != 0 && ${bad:-0} == 0)) && bad=1
    count rounds "${good:-0}" "${bad:-0}" $((SECONDS - started))
}

"$python" Tests/Integration/leakcheck.py note "$reports/host.json" || exit 1
for stage in "$@"; do
    echo "== $stage"
    case $stage in
    lint) check lint tools/lint.sh ;;
    docs) check docs "$python" tools/check-docs.py ;;
    proto) check proto make --no-print-directory proto-check ;;
    unit) unit_stage ;;
    integration) pytest_stage integration Tests/Integration ;;
    skew) pytest_stage skew Tests/Skew ;;
    crashwalk) crashwalk_stage ;;
    rounds) rounds_stage ;;
    leakcheck)
        pytest_stage controls Tests/Integration/test_controls.py
        check leakcheck "$python" Tests/Integration/leakcheck.py compare "$reports/host.json" ;;
    *) echo "test: unknown stage '$stage'" >&2; count "$stage" 0 1 0 ;;
    esac
done
echo
printf '%s\n' "${summary[@]}"
echo "$passed passed, $failed failed"
((failed == 0))
