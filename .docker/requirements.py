"""Prints what an image installs: pyproject.toml's extras resolved under constraints.txt, each at one version with its hash.

    python requirements.py EXTRA,EXTRA [--without NAME …] [--alone NAME …] [--also EXTRA,EXTRA]
    python requirements.py "" --only NAME …

Only metadata is read, no package. The layer that installs the list is made again when the list changes, not when any pin does.
"""

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

PIP = (
    sys.executable,
    "-m",
    "pip",
    "install",
    "--quiet",
    "--dry-run",
    "--ignore-installed",
    "--constraint",
    "constraints.txt",
    "--report",
    "-",
)


def resolve(*wanted: str) -> dict[str, str]:
    """Lines of a requirements file by canonical name."""
    report = json.loads(subprocess.run([*PIP, *wanted], stdout=subprocess.PIPE, check=True).stdout)
    lines = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
        lines[name] = f"{name}=={item['metadata']['version']} --hash=sha256:{digest}"
    return lines


def main() -> None:
    """Resolve and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras")
    parser.add_argument("--without", nargs="*", default=[], help="leave these out of what was resolved")
    parser.add_argument("--alone", nargs="*", default=[], help="add these without what they ask for")
    parser.add_argument("--also", default="", help="further extras, with all that they ask for, whatever is left out")
    parser.add_argument("--only", nargs="*", default=[], help="these alone, without what they and the extras ask for")
    given = parser.parse_args()
    if given.only:
        print("\n".join(sorted(resolve("--no-deps", *given.only).values())))
        return
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    offered = project["optional-dependencies"]
    lines = resolve(*project["dependencies"], *(requirement for extra in given.extras.split(",") for requirement in offered[extra]))
    if given.alone:
        lines |= resolve("--no-deps", *given.alone)
    for name in given.without:
        lines.pop(name, None)
    if given.also:
        lines |= resolve(*(requirement for extra in given.also.split(",") for requirement in offered[extra]))
    print("\n".join(lines[name] for name in sorted(lines)))


main()
