"""Prints what an image installs: pyproject.toml's extras resolved under constraints.txt, with the hashes of hashes.txt.

    python requirements.py EXTRA,EXTRA [--without NAME …] [--alone NAME …] [--also EXTRA,EXTRA] [--never NAME …]
    python requirements.py "" --only NAME …

Only metadata is read, and nothing is built: of a package without wheels there is one in wheels/, made from its checked source archive.
The layer that installs the list is made again when the list changes, not when any pin does.
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
    "--only-binary",
    ":all:",
    "--find-links",
    "wheels",
    "--constraint",
    "constraints.txt",
    "--report",
    "-",
)


def canonical(name: str) -> str:
    """Return a distribution's name as indexes normalise it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def committed() -> dict[str, str]:
    """Entries of hashes.txt by `name==version`, the name canonical."""
    entries = {}
    for entry in Path("hashes.txt").read_text("utf-8").replace("\\\n", " ").splitlines():
        pin, _, hashes = entry.partition(" ")
        name, _, version = pin.partition("==")
        entries[f"{canonical(name)}=={version}"] = " ".join(hashes.split())
    return entries


def resolve(*wanted: str) -> dict[str, str]:
    """Lines of a requirements file by canonical name."""
    report = json.loads(subprocess.run([*PIP, *wanted], stdout=subprocess.PIPE, check=True).stdout)
    hashes, lines = committed(), {}
    for item in report["install"]:
        name = canonical(item["metadata"]["name"])
        pin, source = f"{name}=={item['metadata']['version']}", item["download_info"]
        if source["url"].startswith("file:"):
            lines[name] = f"{name} @ {source['url']} --hash=sha256:{source['archive_info']['hashes']['sha256']}"
        elif pin in hashes:
            lines[name] = f"{pin} {hashes[pin]}"
        else:
            sys.exit(f"error: {pin} has no hashes in hashes.txt; pin it in constraints.txt, then `make hashes`")
    return lines


def main() -> None:
    """Resolve and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras")
    parser.add_argument("--without", nargs="*", default=[], help="leave these out of what was resolved")
    parser.add_argument("--alone", nargs="*", default=[], help="add these without what they ask for")
    parser.add_argument("--also", default="", help="further extras, with all that they ask for, whatever is left out")
    parser.add_argument("--never", nargs="*", default=[], help="leave these out whoever asks for them")
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
    print("\n".join(lines[name] for name in sorted(lines.keys() - set(given.never))))


main()
