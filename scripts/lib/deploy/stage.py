"""Prints the RUN commands of a Dockerfile stage, one per line: `stage.py <Dockerfile> <stage>`."""

import sys
from pathlib import Path

from image import instructions

inside = False
for word, rest in instructions(Path(sys.argv[1]).read_text(encoding="utf-8")):
    if word == "FROM":
        inside = rest.split()[-1] == sys.argv[2]
    elif inside and word == "RUN":
        print(rest)
