"""Shared by the checks: a list of violated rules, and access to the project's files."""

import re
from pathlib import Path

FAILED = []

SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!_URL)|CREDENTIAL|_KEY$|(DATABASE|REDIS|SMTP|WEBHOOK).*_URL")


def fact(holds, text):
    """Records a violated rule and continues, so that one run reports all of them."""
    if not holds:
        FAILED.append(text)
    return holds


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
    """Whether an image reference names a version: a tag other than latest, or a digest."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return tag not in ("", "latest")
