"""Checks pages of documentation: their links, and that what they show is so. Called by scripts/check-docs.

A page is read from top to bottom. Its `sh` blocks run in one shell in an empty folder, its `sql` blocks in psql in
between, and whatever a block promises (`# => text` after a command, a `json` or `http` block right below) is compared
with what came out. A comment of its own line,
before a block or on the line right below its end, says what else is to be done with it:

    <!-- not run: reason -->       it cannot run here
    <!-- run by: path -->          a test or script in the project runs it; the path must exist
    <!-- part of: path -->         it is an excerpt of that file, which something compiles or runs
    <!-- background: command -->   its last line, a simple command, goes on running; what follows waits until the
                                   command in the comment succeeds
    <!-- stop -->                  anywhere: ends what runs in the background
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(\s*)```(\S*)(.*)$")
COMMENT = re.compile(r"^\s*<!-- (not run|run by|part of|background|stop)(?::\s*(.*?))?\s*-->$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.*)$")
PROMISE = re.compile(r"^(?:.*\s)?# => (.*)$")

RUN = ("sh", "sql")
OUTPUT = ("json", "http")
# Shown to be read: nothing to run or compile in them.
PROSE = ("text", "mermaid", "")

# How long one page, and one part in the background until it answers, may take.
PAGE_SECONDS = 120
READY_SECONDS = 30


@dataclass
class Block:
    line: int
    language: str
    text: str
    mark: str = ""
    argument: str = ""
    output: "Block | None" = None
    stops_before: bool = False


@dataclass
class Page:
    path: Path
    blocks: list[Block] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def anchor(heading: str) -> str:
    """The anchor of a heading as GitHub makes it, but for the numbers of repeated ones."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def read(path: Path) -> Page:
    """Takes a page apart. Faults of its form are noted in it."""
    page = Page(path)
    block, indent, mark, stops, touching, ended = None, "", None, False, None, 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if block is not None:
            if fence and not fence[2]:
                page.blocks.append(block)
                ended = number
                if block.language in OUTPUT and touching is not None:
                    touching.output = block
                touching = block if block.language in RUN and not block.mark else None
                block = None
            else:
                block.text += line.removeprefix(indent) + "\n"
        elif fence:
            indent, language = fence[1], fence[2].split(",")[0]
            block = Block(number, language, "", *(mark or ("", "")), stops_before=stops)
            mark, stops = None, False
        elif comment := COMMENT.match(line):
            if comment[1] == "stop":
                stops = True
            else:
                mark = (comment[1], (comment[2] or "").strip())
                if not mark[1]:
                    page.faults.append(f"{path}:{number}: `{comment[1]}` says nothing")
                if page.blocks and ended == number - 1 and not page.blocks[-1].mark:
                    page.blocks[-1].mark, page.blocks[-1].argument = mark
                    mark, touching = None, None
        elif line.strip():
            if mark is not None:
                page.faults.append(f"{path}:{number}: a comment above belongs to no block")
            mark, touching = None, None
            if heading := HEADING.match(line):
                name, repeated = anchor(heading[1]), 0
                while name in page.anchors:
                    repeated += 1
                    name = f"{anchor(heading[1])}-{repeated}"
                page.anchors.add(name)
            page.links += [(number, link) for link in LINK.findall(re.sub(r"`[^`]*`", "", line))]
    if block is not None:
        page.faults.append(f"{path}:{block.line}: the block has no end")
    return page


def check_links(pages: dict[Path, Page]) -> list[str]:
    """Links within the project: the file is there, and has the heading."""
    faults = []
    for page in pages.values():
        for number, link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, heading = link.partition("#")
            target = (page.path.parent / name).resolve() if name else page.path.resolve()
            where = f"{page.path}:{number}: {link}"
            if not target.exists():
                faults.append(f"{where}: there is no such file")
            elif heading and target.suffix == ".md":
                known = pages[target].anchors if target in pages else read(target).anchors
                if heading not in known:
                    faults.append(f"{where}: there is no such heading")
    return faults


def check_blocks(page: Page, root: Path) -> list[str]:
    """Each block is run, compared, or says why not."""
    faults = []
    for block in page.blocks:
        where = f"{page.path}:{block.line}"
        if block.mark in ("run by", "part of") and not (root / block.argument).is_file():
            faults.append(f"{where}: there is no {block.argument}")
        elif block.mark == "part of":
            if block.text not in (root / block.argument).read_text():
                faults.append(f"{where}: is not what {block.argument} says")
        elif not block.mark and block.language not in (*RUN, *OUTPUT, *PROSE):
            faults.append(f"{where}: nothing runs or compiles this block ({block.language}); say what does")
    return faults


# --- running

PRELUDE = r"""
set -eu -o pipefail
exec 3>&1 </dev/null
background() {
    ( set -eu; . "$1" ) >"$1.out" 2>&1 3>&- &
    started=$! deadline=$((SECONDS + READY_SECONDS))
    running="${running:-} $started"
    until eval "$2" >/dev/null 2>&1; do
        kill -0 "$started" 2>/dev/null || { cat "$1.out"; echo "it ended"; return 1; }
        [ "$SECONDS" -lt "$deadline" ] || { cat "$1.out"; echo "not ready: $2"; return 1; }
        sleep 0.1
    done
}
stop_background() {
    for started in ${running:-}; do kill "$started" 2>/dev/null || :; done
    for started in ${running:-}; do wait "$started" 2>/dev/null || :; done
    running=""
}
"""


def segments(text: str) -> list[tuple[str, str | None]]:
    """A block in parts, each with the text that its output must hold."""
    parts, commands = [], ""
    for line in text.splitlines():
        commands += line + "\n"
        if promise := PROMISE.match(line):
            parts.append((commands, promise[1].strip()))
            commands = ""
    return [*parts, (commands, None)] if commands.strip() else parts


def loosely(text: str) -> str:
    """Without what differs from run to run: times, tokens, ids of traces, the number in a slug."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"eyJ[\w.\-]+", "TOKEN", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "TRACE", text)
    return re.sub(r"-\d{10}\b", "-NUMBER", text)


def same_output(language: str, expected: str, actual: str) -> bool:
    if language == "json":
        try:
            return json.loads(loosely(expected)) == json.loads(loosely(actual))
        except ValueError:
            return False
    # The status line as it is; of the other lines, their names.
    heads = [
        [line if i == 0 else line.split(":")[0] for i, line in enumerate(text.strip().splitlines())]
        for text in (expected, actual)
    ]
    return heads[0] == heads[1]


def run(page: Page, folder: Path, localise, environment: dict[str, str]) -> list[str]:
    """Runs what a page shows in a folder; `localise` puts this machine's addresses in place of the page's."""
    script = PRELUDE.replace("READY_SECONDS", str(READY_SECONDS))
    parts = folder / ".parts"
    parts.mkdir()
    expected = []
    for block in page.blocks:
        if block.stops_before:
            script += "stop_background\n"
        if block.language not in RUN or block.mark in ("not run", "run by", "part of"):
            continue
        where = f"{page.path}:{block.line}"
        if block.language == "sql":
            cut = [(f"psql -X -v ON_ERROR_STOP=1 \"$DATABASE_URL\" <<'SQL'\n{block.text}SQL\n", None)]
        elif block.mark == "background":
            # In the place of its shell, so that the shell's id is the one to stop; `env` understands assignments.
            *before, last = block.text.rstrip("\n").split("\n")
            cut = [("\n".join([*before, f"exec env {last}\n"]), None)]
        else:
            cut = segments(block.text)
        for number, (commands, promise) in enumerate(cut):
            part = parts / f"{block.line}.{number}"
            part.write_text(localise(commands))
            script += f"echo '{where}' >&3\n"
            if block.mark == "background":
                probe = localise(block.argument).replace("'", "'\\''")
                script += f"background '{part}' '{probe}' >'{part}.said' 2>&1\n"
            else:
                script += f"exec >'{part}.said' 2>&1\n. '{part}'\n"
            output = block.output if number == len(cut) - 1 else None
            expected.append((where, part, promise, output))
    script += "stop_background\n"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    faults = []
    try:
        reached, _ = process.communicate(timeout=PAGE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        reached, _ = process.communicate()
        faults.append(f"{page.path}: not done after {PAGE_SECONDS} seconds")
    finally:
        # Whatever the page left running, because it broke off, is in its group.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    last = reached.splitlines()[-1] if reached.strip() else str(page.path)
    if process.returncode != 0:
        said = [path for path in parts.glob("*.said") if path.is_file()]
        newest = max(said, key=lambda path: path.stat().st_mtime_ns, default=None)
        told = newest.read_text()[-2000:] if newest else ""
        faults.append(f"{last}: ended with {process.returncode}\n{told}")
        return faults
    for where, part, promise, output in expected:
        said = Path(f"{part}.said").read_text()
        if promise is not None and localise(promise) not in said:
            faults.append(f"{where}: promised `{promise}`, but said:\n{said[-2000:]}")
        if output is not None and not same_output(output.language, localise(output.text), said):
            faults.append(f"{page.path}:{output.line}: shown:\n{output.text}but it said:\n{said[-2000:]}")
    return faults


def main() -> int:
    """`docs.py <root> <port> <page>...`, with the servers' addresses in the environment."""
    root, port = Path(sys.argv[1]), sys.argv[2]
    skipped = {".git", "target", "node_modules", ".venv"}
    everything = {
        path.resolve(): read(path.relative_to(root))
        for path in sorted(root.rglob("*.md"))
        if not skipped & set(path.relative_to(root).parts) and not path.relative_to(root).parts[0].startswith("target")
    }
    asked = [everything[(root / name).resolve()] for name in sys.argv[3:]]
    faults = check_links(everything)
    for page in asked:
        faults += page.faults + check_blocks(page, root)

    pages, otlp = free_port(), free_port()
    addresses = {
        "localhost:8000": f"localhost:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "localhost:4319": f"localhost:{pages}",
        "localhost:4318": f"localhost:{otlp}",
        "localhost:5432": os.environ["DOCS_POSTGRES"],
        "localhost:6379": os.environ["DOCS_REDIS"],
    }

    def localise(text: str) -> str:
        for shown, actual in addresses.items():
            text = text.replace(shown, actual)
        return text

    for page in asked:
        if not any(block.language in RUN and block.mark in ("", "background") for block in page.blocks):
            print(f"{page.path}: nothing to run")
            continue
        with tempfile.TemporaryDirectory(prefix="pressroom-docs.") as folder:
            folder = Path(folder)
            prepare(folder, root, localise)
            environment = prepared_environment(page, localise, port) | {
                "OBSERVATORY_PORT": str(pages),
                "OBSERVATORY_OTLP_HTTP_PORT": str(otlp),
                "OBSERVATORY_OTLP_GRPC_PORT": "0",
                "OBSERVATORY_HEALTH_PORT": "0",
            }
            found = run(page, folder, localise, environment)
        print(f"{page.path}: {'; '.join(found) if found else 'holds'}")
        faults += found
    for fault in faults:
        print(f"FAULT {fault}", file=sys.stderr)
    print(f"{len(asked)} pages, {len(faults)} faults")
    return 1 if faults else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(folder: Path, root: Path, localise) -> None:
    """Makes the folder look like the project after a build, without anything that a page writes going there."""
    for entry in root.iterdir():
        if entry.name not in (".git", ".env", ".env.example", "data", "target"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".env.example").write_text(localise((root / ".env.example").read_text()))
    (folder / "target" / "release").mkdir(parents=True)
    (folder / "target" / "release" / "pressroom").symlink_to(os.environ["DOCS_PRESSROOM"])


def prepared_environment(page: Page, localise, port: str) -> dict[str, str]:
    """What a page may count on. README begins with nothing; other pages with an empty database and the addresses."""
    subprocess.run(["redis-cli", "-u", f"redis://{os.environ['DOCS_REDIS']}/0", "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)
    made = "SELECT datname FROM pg_database WHERE datname LIKE 'pressroom%'"
    databases = subprocess.run(["psql", "-XAtc", made], check=True, capture_output=True, text=True).stdout.split()
    sql = [f"DROP DATABASE {name} WITH (FORCE)" for name in databases] + ["DROP ROLE IF EXISTS pressroom"]
    environment = {**os.environ, "PORT": port, "HOST": "127.0.0.1"}
    if page.path.name != "README.md":
        # README shows telemetry; elsewhere nobody receives it.
        environment["OTEL_SDK_DISABLED"] = "true"
        sql += ["CREATE ROLE pressroom LOGIN PASSWORD 'password'", "CREATE DATABASE pressroom OWNER pressroom"]
        environment |= {
            "DATABASE_URL": localise("postgresql://pressroom:password@localhost:5432/pressroom"),
            "REDIS_URL": localise("redis://localhost:6379/0"),
            "SECRET_KEY": "a-key-for-pages-that-nobody-else-uses",
        }
    for statement in sql:
        subprocess.run(["psql", "-Xqc", statement], check=True, stderr=subprocess.DEVNULL)
    return environment


if __name__ == "__main__":
    sys.exit(main())
