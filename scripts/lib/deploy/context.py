"""Copies the build context of the image, `context.py <folder>`: every file of the checkout that Git tracks or would
add and that .dockerignore does not exclude."""

import shutil
import subprocess
import sys
from pathlib import Path

from image import ignore_patterns, ignored

patterns = ignore_patterns(Path(".dockerignore").read_text(encoding="utf-8"))
listed = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE, text=True
)
for path in listed.stdout.split("\0"):
    if path and not ignored(path, patterns) and Path(path).is_file():
        copy = Path(sys.argv[1], path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
