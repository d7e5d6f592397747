"""Puts into gpu-pack/ what training on a machine without a network needs beside this repository. `make gpu-pack` runs it.

    gpu-pack/npm/       the artwork's tarballs, checked by the same code that reads them
    gpu-pack/wheels/    Python packages that a machine with PyTorch, but not made for this project, tends to lack
    gpu-pack/init/      with --init BUNDLE --part NAME ...: trained parts to start from, as a bundle that holds them alone

A training checkpoint would be five times as large as the weights in bf16, so only the latter travel: what starts from them
warms its optimizer up again. The whole must stay small, because such machines are fed through narrow doors.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from unclip.data.icons.packages import STYLES, WORDS, read_package
from unclip.errors import UnclipError
from unclip.weights import store

ROOT = Path(__file__).parents[1]
WHEELS = ("annotated-types", "pydantic", "pydantic_core", "resvg_py", "typer", "typing-inspection", "typing_extensions")
PLATFORMS = [f"manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "_2_12", "1")]
MEGA = 1_000_000


def fetch_artwork(folder: Path) -> None:
    """Every pinned tarball; one that is there is only checked again. Raises DataError when one is not what was pinned."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (*STYLES.values(), WORDS):
        if not (folder / package.tarball).exists():
            wanted = f"{package.name}@{package.version}"
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder), wanted]
            subprocess.run(command, check=True, stdout=sys.stderr)
        read_package(package, folder)


def fetch_wheels(folder: Path, python: str) -> None:
    """WHEELS at the versions of constraints.txt, for CPython `python` on x86-64 Linux, without what they depend on."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    command += [argument for platform in PLATFORMS for argument in ("--platform", platform)]
    subprocess.run([*command, *pinned(WHEELS)], check=True)


def pinned(names: tuple[str, ...]) -> list[str]:
    """name==version of each, from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = {_plain(line.partition("==")[0]): line for line in lines if "==" in line}
    return [found[_plain(name)] for name in names]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def copy_parts(bundle: str, names: list[str], folder: Path) -> None:
    """`names` of `bundle`'s parts, its tokenizer and card, as a bundle of their own. WeightsError names one it lacks."""
    source = store.find_bundle(bundle)
    manifest = store.read_manifest(source)
    parts = {}
    for name in names:
        config, state = store.load_part(source, name)
        parts[name] = store.Part(manifest.parts[name].kind, config, state)
    store.save_bundle(
        folder,
        parts,
        name=manifest.name,
        version=manifest.version,
        tokenizer_json=store.read_tokenizer(source),
        card=(source / store.CARD).read_text(encoding="utf-8"),
        provenance=manifest.provenance,
    )


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below `folder`, by its path."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def code_size() -> int:
    """Bytes of the files that git tracks, as they lie in the working tree."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sum((ROOT / name).stat().st_size for name in tracked.split("\0") if (ROOT / name).is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description="What training on a machine without a network needs, in gpu-pack/.")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-pack")
    parser.add_argument("--python", default="3.12", help="the machine's Python (default 3.12)")
    parser.add_argument("--init", help="a bundle, folder or shipped name, to start from")
    parser.add_argument("--part", action="append", default=[], help="a part of it to take along; give several")
    parser.add_argument("--limit", type=float, default=45, help="the most that the pack may weigh, MB (default 45)")
    args = parser.parse_args()
    try:
        fetch_artwork(args.out / "npm")
        fetch_wheels(args.out / "wheels", args.python)
        if (args.out / "init").exists():
            shutil.rmtree(args.out / "init")
        if args.init:
            copy_parts(args.init, args.part or ["clip"], args.out / "init")
    except UnclipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    held = sizes(args.out)
    total = sum(held.values())
    for path, size in held.items():
        print(f"{size / MEGA:7.2f} MB  {path}")
    print(json.dumps({"pack_mb": round(total / MEGA, 2), "code_mb": round(code_size() / MEGA, 2), "limit_mb": args.limit}))
    if total > args.limit * MEGA:
        print(
            f"error: {total / MEGA:.1f} MB, more than {args.limit:g}: take fewer parts along, or raise --limit",
            file=sys.stderr,
        )
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
