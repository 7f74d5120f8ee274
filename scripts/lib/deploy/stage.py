"""Prints instructions of a Dockerfile, one per line: the commands of a stage's RUN instructions, or the settings of the
image, which are in the last stage.

    stage.py <Dockerfile> [<stage>]
"""

import sys
from pathlib import Path

from image import instructions

SETTINGS = ["ENV", "WORKDIR", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"]

stage = sys.argv[2] if len(sys.argv) > 2 else None
found = []
inside = False
for word, rest in instructions(Path(sys.argv[1]).read_text(encoding="utf-8")):
    if word == "FROM":
        inside = stage in (None, rest.split()[-1])
        if stage is None:
            found = []
    elif inside and stage and word == "RUN":
        found.append(rest)
    elif inside and not stage and word in SETTINGS:
        found.append(f"{word} {rest}")
print("\n".join(found))
