"""Checks the Dockerfile and .dockerignore against rules that hadolint does not have."""

import json
import re

from rules import SECRET, pinned, require

LABELS = ["title", "description", "source", "licenses", "version", "revision"]
EXCLUDED = [
    "target/debug/pressroom",
    "crates/pressroom/target/x",
    "fuzz/target/x",
    ".git/config",
    ".env",
    ".env.production",
    "data/pressroom.db",
    "crates/pressroom/tests/it/main.rs",
]
INCLUDED = ["Cargo.toml", "Cargo.lock", "crates/pressroom/src/main.rs"]
RELEASES = {"bookworm": "debian12", "trixie": "debian13", "forky": "debian14"}


def instructions(text):
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    for line in joined.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def exec_form(words):
    try:
        words = json.loads(words)
    except ValueError:
        return None
    return words if isinstance(words, list) else None


def ignored(path, patterns):
    """Applies Docker's rules: a pattern also matches everything below it, and the last match decides."""
    excluded = False
    for pattern in patterns:
        excludes = not pattern.startswith("!")
        expression = re.escape(pattern.lstrip("!").strip("/"))
        expression = expression.replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        if re.fullmatch(expression + "(/.*)?", path):
            excluded = excludes
    return excluded


def ignore_patterns(text):
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def check(project):
    steps = list(instructions(project.text("Dockerfile")))
    arguments = dict(rest.split("=", 1) for word, rest in steps if word == "ARG" and "=" in rest)
    bases, stages = [], set()
    for word, rest in steps:
        if word == "FROM":
            words = [part for part in rest.split() if not part.startswith("--")]
            name = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], words[0])
            if name not in stages:
                bases.append(name)
            if len(words) == 3:
                stages.add(words[2])
    for base in bases:
        require(pinned(base), f"Dockerfile: the image {base} has no version")
    release = next((RELEASES[name] for name in RELEASES if name in bases[0]), None)
    require(release and release in bases[-1], f"Dockerfile: {bases[0]} and {bases[-1]} have different Debian releases")

    channel = re.search(r'^channel = "(.+)"$', project.text("rust-toolchain.toml"), re.M)
    require(channel and bases[0].partition(":")[2].startswith(f"{channel[1]}-"),
         "Dockerfile: RUST_IMAGE and rust-toolchain.toml have different compilers")

    last = max(index for index, (word, _) in enumerate(steps) if word == "FROM")
    final = {}
    for word, rest in steps[last:]:
        final.setdefault(word, []).append(rest)
    require("RUN" not in final, "Dockerfile: the last stage has a RUN instruction, but no shell")
    user = re.fullmatch(r"(\d+):(\d+)", (final.get("USER") or [""])[-1])
    require(user and "0" not in user.groups(), "Dockerfile: USER is not a numeric user and group other than 0")
    probe = (final.get("HEALTHCHECK") or [""])[-1].partition("CMD ")[2]
    require(exec_form(probe) == ["/usr/local/bin/pressroom", "healthcheck", "--ready"],
         "Dockerfile: HEALTHCHECK is not `pressroom healthcheck --ready` in exec form")
    require(exec_form((final.get("ENTRYPOINT") or [""])[-1]) == ["/usr/local/bin/pressroom"],
         "Dockerfile: ENTRYPOINT is not pressroom in exec form")
    require(exec_form((final.get("CMD") or [""])[-1]) == ["serve"], "Dockerfile: CMD is not serve in exec form")
    labels = " ".join(final.get("LABEL", []))
    for label in LABELS:
        require(f"org.opencontainers.image.{label}=" in labels, f"Dockerfile: the label {label} is missing")

    for word, rest in steps:
        if word in ("ARG", "ENV"):
            for name in re.findall(r"(?:^|\s)([A-Za-z_]\w*)(?==|$)", rest):
                require(not SECRET.search(name.upper()), f"Dockerfile: {word} {name} stores a secret in the image")
        if word == "RUN":
            for command in re.split(r"&&|;", rest):
                if "cargo install" in command or re.search(r"cargo .*build", command):
                    require("--locked" in command, f"Dockerfile: without --locked: {command.strip()}")
                if "cargo install" in command:
                    require(re.search(r"--version \d+\.\d+\.\d+", command),
                         f"Dockerfile: without an exact version: {command.strip()}")
    require(any("cargo auditable build" in rest for word, rest in steps if word == "RUN"),
         "Dockerfile: the binary is not built with cargo auditable")
    require(arguments.get("VERSION") == project.version(), "Dockerfile: VERSION differs from the version in Cargo.toml")

    patterns = ignore_patterns(project.text(".dockerignore"))
    for path in EXCLUDED:
        require(ignored(path, patterns), f".dockerignore: {path} is sent to the builder")
    for path in INCLUDED:
        require(not ignored(path, patterns), f".dockerignore: {path} is not sent to the builder")
