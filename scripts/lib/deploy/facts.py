"""What the checks have in common: facts that hold or not, and what they read of the project."""

import re
from pathlib import Path

FAILED = []

SECRET = re.compile(r"SECRET|PASSWORD|TOKEN(?!_URL)|CREDENTIAL|_KEY$|(DATABASE|REDIS|SMTP|WEBHOOK).*_URL")


def fact(holds, text):
    """Notes what does not hold; the checks go on, so that one run says everything."""
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
        """Names and values of .env.example, those that are commented out too."""
        return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", self.text(".env.example"), re.M))

    def shutdown_grace(self):
        return int(self.sample_settings()["SHUTDOWN_GRACE"])


def pinned(image):
    """Whether a reference to an image names a version: a tag other than latest, or a digest."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return tag not in ("", "latest")
