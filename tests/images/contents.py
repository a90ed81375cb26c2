"""Runs inside an image as root: prints as JSON what lies where it should not, beyond what the base image brought."""

import json
import os
import sys
from pathlib import Path

COMPILERS = {
    "gcc",
    "cc",
    "g++",
    "c++",
    "clang",
    "ld",
    "as",
    "make",
    "cmake",
    "rustc",
    "cargo",
    "go",
    "nvcc",
    "ptxas",
    "protoc",
    "git",
    "curl",
    "wget",
}
SECRETS = (".env", ".netrc", ".git", ".aws", ".pypirc", "id_rsa", "id_ed25519", "credentials", ".docker", ".ssh")
CACHES = ("/root/.cache", "/cache", "/tmp", "/var/tmp", "/var/cache/apt/archives", "/var/lib/apt/lists")
KEY = b"-----BEGIN " + b"PRIVATE KEY-----"


def files() -> list[Path]:
    found = []
    for folder, names, entries in os.walk("/"):
        names[:] = [name for name in names if not (folder == "/" and name in {"proc", "sys", "dev"})]
        found += [Path(folder, entry) for entry in entries]
    return found


def main() -> None:
    everything = files()
    ours = [path for path in everything if str(path).startswith("/opt/")]
    packages = Path(sys.prefix, "lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
    print(
        json.dumps(
            {
                "packages": sorted(path.name for path in packages.iterdir()),
                "compilers": [str(path) for path in everything if path.name in COMPILERS and os.access(path, os.X_OK) and path.is_file()],
                "caches": [str(path) for path in everything if str(path).startswith(tuple(it + "/" for it in CACHES))],
                "secrets": [str(path) for path in everything if path.name in SECRETS or set(path.parts) & set(SECRETS)],
                "keys": [str(path) for path in ours if path.suffix in {".pem", ".key"} and KEY in path.read_bytes()],
                "tests": [str(path) for path in ours if "tests" in path.parts],
                "writable": [str(path) for path in ours if not path.is_symlink() and path.stat().st_mode & 0o022],
                "uncompiled": [
                    str(path) for path in packages.rglob("*.py") if not list((path.parent / "__pycache__").glob(path.stem + ".*.pyc"))
                ],
                "bytes": sum(path.lstat().st_size for path in ours),
            }
        )
    )


main()
