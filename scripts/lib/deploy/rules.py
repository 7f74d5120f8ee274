"""Shared by the checks: the list of violations, and access to the project's files."""

import re
from pathlib import Path

VIOLATIONS = []

SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!_URL)|CREDENTIAL|_KEY$|(DATABASE|REDIS|SMTP|WEBHOOK).*_URL")


def require(condition, violation):
    """Records the violation unless the condition holds; continues in both cases, and returns the condition."""
    if not condition:
        VIOLATIONS.append(violation)
    return condition


class Project:
    def __init__(self, root):
        self.root = Path(root)

    def text(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def version(self):
        return re.search(r'^\[workspace\.package\]\nversion = "(.+)"$', self.text("Cargo.toml"), re.M)[1]

    def sample_settings(self):
        """Returns the names and values in .env.example, including those that are commented out."""
        return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", self.text(".env.example"), re.M))

    def shutdown_grace(self):
        return int(self.sample_settings()["SHUTDOWN_GRACE"])


def pinned(image):
    """Whether an image reference has a version: a tag other than latest, or a digest."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return tag not in ("", "latest")
