#!/usr/bin/env python3
"""Lets every command that writes run out of space, of inodes, or of the right to write.

    scripts/campaigns/disks.py --rounds 5

The disks are tmpfs, mounted in namespaces of their own, so that no rights are needed. A fault is an output that is not
whole, a failure without one line that names the output, anything left on the disk, or a former file that is lost.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from common import GOLDEN, Table, leftovers, run

MODEL = GOLDEN / "alt_diffusion"
INSIDE = "CAMPAIGN_INSIDE_NAMESPACE"
COMMANDS = {
    "generate": (["generate", "a cat", "--steps", "1", "--output", "out.png"], "out.png"),
    "generate --save-latents": (["generate", "a cat", "--steps", "1", "--save-latents", "out.safetensors", "--output", "x.png"], "out.safetensors"),
    "encode": (["encode", "a cat", "--model", MODEL, "--output", "out.safetensors"], "out.safetensors"),
    "embed": (["embed", *(["--text", "a cat"] * 200), "--output", "out.safetensors"], "out.safetensors"),
    "embed .parquet": (["embed", *(["--text", "a cat"] * 200), "--output", "out.parquet"], "out.parquet"),
    "convert to a file": (["convert", MODEL, "out.safetensors"], "out.safetensors"),
    "convert to GGUF": (["convert", MODEL, "out.gguf"], "out.gguf"),
    "convert to folders": (["convert", MODEL, "out"], "out"),
    "search --html": (["search", "{index}", "a cat", "--html", "out.html"], "out.html"),
}
# In the folder of which there is an index.
IMAGES = 2000
# Sizes below and above what each needs, and disks that are full of files, or read-only.
DISKS = [f"size={size}k" for size in (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)] + ["nr_inodes=2", "nr_inodes=3", "nr_inodes=5", "ro"]


def attempt(name, disk, index, table):
    arguments, output = COMMANDS[name]
    arguments = [str(argument).replace("{index}", str(index)) for argument in arguments]
    with tempfile.TemporaryDirectory(prefix="campaign-", dir="/tmp") as place:
        folder = Path(place)
        if os.system(f"mount -t tmpfs -o {disk} tmpfs {folder}") != 0:
            sys.exit(f"cannot mount a tmpfs with {disk}")
        try:
            path, faults = folder / output, []
            has_former = disk != "ro" and "." in output and os.system(f"echo former > {path} 2>/dev/null") == 0 and path.read_bytes() == b"former\n"
            ended = run(arguments, folder)
            faults += ended.faults()
            text = ended.err.decode("utf-8", "replace")
            if ended.code == 0 and not path.exists():
                faults.append("success without an output")
            if ended.code != 0:
                if "/.altdiffusion" in text or "/.tmp" in text:
                    faults.append("names a temporary file")
                if has_former and path.read_bytes() != b"former\n":
                    faults.append("the former file is lost")
                if not has_former and path.exists():
                    faults.append("a half-written result")
            if leftovers(folder):
                faults.append(f"left: {[one.name for one in leftovers(folder)]}")
            table.add(f"{name}", ended.code == 0, faults, f"{disk}: {text.strip()[-200:]}")
        finally:
            os.system(f"umount -l {folder}")


def attempt_index(disk, photos, table):
    """An index keeps what it has, and goes on when there is room again."""
    with tempfile.TemporaryDirectory(prefix="campaign-", dir="/tmp") as place:
        folder, faults = Path(place), []
        if os.system(f"mount -t tmpfs -o {disk} tmpfs {folder}") != 0:
            sys.exit(f"cannot mount a tmpfs with {disk}")
        try:
            add = ["index", "add", photos, "--database", folder / "index.db"]
            ended = run(add, folder)
            faults += ended.faults()
            text = ended.err.decode("utf-8", "replace")
            if ended.code != 0 and "index.db" not in text:
                faults.append("an error that does not name the index")
            os.system(f"mount -o remount,rw,size=64m,nr_inodes=100 {folder}")
            later = run([*add, "--json"], folder)
            faults += later.faults(may_fail=False)
            if later.code == 0:
                counts = json.loads(later.out)
                if counts["new"] + counts["unchanged"] != IMAGES or counts["gone"]:
                    faults.append(f"with room again: {counts}")
            table.add("index add", ended.code == 0, faults, f"{disk}: {text.strip()[-200:]}")
        finally:
            os.system(f"umount -l {folder}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=2)
    asked = options.parse_args()
    if INSIDE not in os.environ:
        os.execvpe("unshare", ["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv], os.environ | {INSIDE: "1"})
    table = Table("Full and read-only disks")
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        index = Path(place) / "index.safetensors"
        run(["embed", "--text", "a cat", "--output", index], place)
        photos = Path(place) / "photos"
        photos.mkdir()
        for number in range(IMAGES):
            (photos / f"{number}.ppm").write_bytes(b"P6 16 16 255\n" + random.Random(number).randbytes(3 * 16 * 16))
        for _ in range(asked.rounds):
            for disk in DISKS:
                attempt_index(disk, photos, table)
                for name in COMMANDS:
                    attempt(name, disk, index, table)
    table.finish()


main()
