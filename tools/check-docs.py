#!/usr/bin/python3
"""Checks the Markdown pages: every relative link leads somewhere, every `make` target and every command of ctrd and ctrctl that they show exists."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def pages():
    names = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in names.split() if (ROOT / name).exists()]


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page):
    return {anchor(re.sub(r"[`*]", "", m.group(1))) for m in re.finditer(r"^#+ (.*)$", page.read_text(), re.M)}


def links(page, text):
    for match in re.finditer(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.S)):
        target = match.group(1)
        if re.match(r"[a-z]+:", target):
            continue
        path, _, part = target.partition("#")
        where = (page.parent / path) if path else page
        if not where.exists():
            yield f"link to {target}: no such file"
        elif part and where.suffix == ".md" and part not in anchors(where):
            yield f"link to {target}: no such heading"


def code(text):
    for block in re.findall(r"```(?:sh|console|text|)\n(.*?)```", text, re.S):
        yield from (line.strip().removeprefix("# ").removeprefix("$ ") for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


def targets(text, known):
    for line in code(text):
        match = re.match(r"(?:sudo )?make ((?:[a-z-]+ ?)+)$", line)
        for target in match.group(1).split() if match else []:
            if target not in known:
                yield f"`make {target}`: no such target"


def commands(text, cache):
    program = ROOT / "bin" / "ctrctl"
    if not program.exists():
        return
    for line in code(text):
        match = re.match(r"(?:sudo )?(?:bin/|\./bin/)?ctrctl ((?:[a-z]+ ?)*)", line)
        words = match.group(1).split()[:2] if match else []
        if not words:
            continue
        group = words[:1] if words[0] not in ("containers", "tasks", "images") or len(words) == 1 else words
        if group[0] == "images" and len(group) == 2 and group[1] not in ("import", "list", "inspect", "delete"):
            group = group[:1]
        key = tuple(group)
        if key not in cache:
            cache[key] = subprocess.run([program, *group, "--help"], capture_output=True).returncode == 0
        if not cache[key]:
            yield f"`ctrctl {' '.join(group)}`: no such command"


def main():
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    bad, cache, seen = 0, {}, pages()
    for page in seen:
        text = page.read_text()
        for problem in [*links(page, text), *targets(text, known), *commands(text, cache)]:
            print(f"{page.relative_to(ROOT)}: {problem}")
            bad += 1
    print(f"docs: {len(seen)} pages, {bad} problems")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
