#!/bin/bash
# The style of what is written by hand: generated code is left out. With --fix it is put right in place where that can be done.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(git ls-files --cached --others --exclude-standard 'Sources/*.swift' 'Tests/*.swift' Package.swift | grep -v '\.pb\.swift$')
if [[ "${1:-}" == --fix ]]; then
    exec "${SWIFT:-swift}" format --in-place --parallel "${files[@]}"
fi
"${SWIFT:-swift}" format lint --strict --parallel "${files[@]}"
"${PYTHON:-/usr/bin/python3}" - <<'PY'
import ast, pathlib, subprocess, sys
files = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"], capture_output=True, text=True, check=True).stdout.split()
bad = 0
for name in files:
    path = pathlib.Path(name)
    if not path.exists():
        continue
    text = path.read_text()
    try:
        tree = ast.parse(text, name)
    except SyntaxError as error:
        print(f"{name}:{error.lineno}: {error.msg}"); bad += 1; continue
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > 200:
            print(f"{name}:{number}: {len(line)} columns"); bad += 1
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "sleep":
            print(f"{name}:{node.lineno}: a sleep; wait for an event instead"); bad += 1
sys.exit(1 if bad else 0)
PY
