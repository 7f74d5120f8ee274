"""Checks what scripts/check-deploy has rendered: `check.py <project> <rendered> <password>`. Prints every fact that
does not hold, and fails when there is one."""

import sys
from pathlib import Path

import compose
import image
import manifests
from facts import FAILED, Project

project, rendered = Project(sys.argv[1]), Path(sys.argv[2])
image.check(project)
compose.check(project, rendered / "compose.json", rendered / "compose-profiles.json", sys.argv[3])
for overlay in ("single-node", "region", "example"):
    manifests.check(project, overlay, rendered / f"{overlay}.yaml")
for text in FAILED:
    print(text, file=sys.stderr)
sys.exit(1 if FAILED else 0)
