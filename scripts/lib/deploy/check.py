"""Checks the files rendered by scripts/check-deploy: `check.py <project> <rendered> <password> <part...>`. Prints all
violations, and fails if there are any."""

import os
import sys
from pathlib import Path

from rules import VIOLATIONS, Project

project, rendered, password, parts = Project(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
if "image" in parts:
    import image

    image.check(project)
if "compose" in parts:
    import compose

    compose.check(project, rendered / "compose.json", rendered / "compose-profiles.json", password)
if "chart" in parts:
    # Imported late because it is slow to import.
    import chart

    chart.check_all(project, rendered, Path(os.environ["CRDS"]))
for violation in VIOLATIONS:
    print(violation, file=sys.stderr)
sys.exit(1 if VIOLATIONS else 0)
