"""Checks pages of documentation: links, commands and their output. Called by scripts/check-docs.

A page is executed from top to bottom. Its `sh` blocks run in one shell in an empty folder, its `sql` blocks in psql.
Expected output (`# => text` after a command, or a `json` or `http` block directly below) is compared with the actual
output. A marker, which is a comment on a separate line before a block or directly below its end, changes the handling
of the block:

    <!-- not run: reason -->       the block cannot run here
    <!-- run by: path -->          a test or script in the project runs the block; the path must exist
    <!-- part of: path -->         the block is an excerpt of that file, which is compiled or run elsewhere
    <!-- background: command -->   the last line of the block, a simple command, runs in the background; the page
                                   continues when the command in the marker succeeds
    <!-- stop -->                  stops the background commands; may be anywhere
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
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|\bsrc(?:set)?=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} (.*)$")
EXPECTATION = re.compile(r"^(?:.*\s)?# => (.*)$")

RUN = ("sh", "sql")
OUTPUT = ("json", "http")
# Pages that start embedded mode.
EMBEDDED = (Path("README.md"), Path("docs/api.md"))

# Blocks that are neither run nor compiled.
PROSE = ("text", "mermaid", "")

# Time limits for a page, and for a background command to become ready.
PAGE_SECONDS = 120
READY_SECONDS = 30


@dataclass
class Block:
    line: int
    language: str
    text: str
    marker: str = ""
    argument: str = ""
    output: "Block | None" = None
    stops_before: bool = False


@dataclass
class Page:
    path: Path
    blocks: list[Block] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    links: list[tuple[int, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def anchor(heading: str) -> str:
    """Returns GitHub's anchor of a heading, without the number of a repeated one."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def read(path: Path) -> Page:
    """Parses a page and records syntax errors."""
    page = Page(path)
    # `runnable` is the block above if an output block may follow; `ended` is the line number of its end.
    block, indent, marker, stops, runnable, ended = None, "", None, False, None, 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if block is not None:
            if fence and not fence[2]:
                page.blocks.append(block)
                ended = number
                if block.language in OUTPUT and runnable is not None:
                    runnable.output = block
                runnable = block if block.language in RUN and not block.marker else None
                block = None
            else:
                block.text += line.removeprefix(indent) + "\n"
        elif fence:
            indent, language = fence[1], fence[2].split(",")[0]
            block = Block(number, language, "", *(marker or ("", "")), stops_before=stops)
            marker, stops = None, False
        elif comment := COMMENT.match(line):
            if comment[1] == "stop":
                stops = True
            else:
                marker = (comment[1], (comment[2] or "").strip())
                if not marker[1]:
                    page.errors.append(f"{path}:{number}: `{comment[1]}` lacks its argument")
                if page.blocks and ended == number - 1 and not page.blocks[-1].marker:
                    page.blocks[-1].marker, page.blocks[-1].argument = marker
                    marker, runnable = None, None
        elif line.strip():
            if marker is not None:
                page.errors.append(f"{path}:{number}: the marker above belongs to no block")
            marker, runnable = None, None
            if heading := HEADING.match(line):
                name, repeated = anchor(heading[1]), 0
                while name in page.anchors:
                    repeated += 1
                    name = f"{anchor(heading[1])}-{repeated}"
                page.anchors.add(name)
            links = LINK.findall(re.sub(r"`[^`]*`", "", line))
            page.links += [(number, link or picture) for link, picture in links]
    if block is not None:
        page.errors.append(f"{path}:{block.line}: the block is not closed")
    return page


def check_links(pages: dict[Path, Page]) -> list[str]:
    """Checks that links and pictures within the project point to existing files and headings."""
    errors = []
    for page in pages.values():
        for number, link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, heading = link.partition("#")
            target = (page.path.parent / name).resolve() if name else page.path.resolve()
            where = f"{page.path}:{number}: {link}"
            if not target.exists():
                errors.append(f"{where}: no such file")
            elif heading and target.suffix == ".md":
                known = pages[target].anchors if target in pages else read(target).anchors
                if heading not in known:
                    errors.append(f"{where}: no such heading")
    return errors


def check_blocks(page: Page, root: Path) -> list[str]:
    """Checks that each block is run, compared, or has a marker."""
    errors = []
    for block in page.blocks:
        where = f"{page.path}:{block.line}"
        if block.marker in ("run by", "part of") and not (root / block.argument).is_file():
            errors.append(f"{where}: {block.argument} does not exist")
        elif block.marker == "part of":
            if block.text not in (root / block.argument).read_text():
                errors.append(f"{where}: differs from {block.argument}")
        elif not block.marker and block.language not in (*RUN, *OUTPUT, *PROSE):
            errors.append(f"{where}: nothing runs or compiles this block ({block.language}); add a marker")
    return errors


# --- running

PRELUDE = r"""
set -eu -o pipefail
exec 3>&1 </dev/null
background() {
    ( set -eu; . "$1" ) >"$1.out" 2>&1 3>&- &
    started=$! deadline=$((SECONDS + READY_SECONDS))
    running="${running:-} $started"
    until eval "$2" >/dev/null 2>&1; do
        kill -0 "$started" 2>/dev/null || { cat "$1.out"; echo "the command exited"; return 1; }
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
    """Splits a block at its expected outputs, `# => text`."""
    parts, commands = [], ""
    for line in text.splitlines():
        commands += line + "\n"
        if expectation := EXPECTATION.match(line):
            parts.append((commands, expectation[1].strip()))
            commands = ""
    return [*parts, (commands, None)] if commands.strip() else parts


def normalised(text: str) -> str:
    """Replaces values that differ from run to run: times, tokens, trace ids, the number in a slug."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", text)
    text = re.sub(r"eyJ[\w.\-]+", "TOKEN", text)
    text = re.sub(r"\b[0-9a-f]{32}\b", "TRACE", text)
    return re.sub(r"-\d{10}\b", "-NUMBER", text)


def same_output(language: str, expected: str, actual: str) -> bool:
    if language == "json":
        try:
            return json.loads(normalised(expected)) == json.loads(normalised(actual))
        except ValueError:
            return False
    # Compares the status line and the names of headers.
    heads = [
        [line if i == 0 else line.split(":")[0] for i, line in enumerate(text.strip().splitlines())]
        for text in (expected, actual)
    ]
    return heads[0] == heads[1]


def run(page: Page, folder: Path, localise, environment: dict[str, str]) -> list[str]:
    """Runs a page's blocks in a folder; `localise` replaces the page's addresses with the servers' actual ones."""
    script = PRELUDE.replace("READY_SECONDS", str(READY_SECONDS))
    parts = folder / ".parts"
    parts.mkdir()
    expected = []
    for block in page.blocks:
        if block.stops_before:
            script += "stop_background\n"
        if block.language not in RUN or block.marker in ("not run", "run by", "part of"):
            continue
        where = f"{page.path}:{block.line}"
        if block.language == "sql":
            cut = [(f"psql -X -v ON_ERROR_STOP=1 \"$DATABASE_URL\" <<'SQL'\n{block.text}SQL\n", None)]
        elif block.marker == "background":
            # `exec` gives the command the process id of the shell, which is stopped later; `env` accepts assignments.
            *before, last = block.text.rstrip("\n").split("\n")
            cut = [("\n".join([*before, f"exec env {last}\n"]), None)]
        else:
            cut = segments(block.text)
        for number, (commands, expectation) in enumerate(cut):
            part = parts / f"{block.line}.{number}"
            part.write_text(localise(commands))
            script += f"echo '{where}' >&3\n"
            if block.marker == "background":
                probe = localise(block.argument).replace("'", "'\\''")
                script += f"background '{part}' '{probe}' >'{part}.printed' 2>&1\n"
            else:
                script += f"exec >'{part}.printed' 2>&1\n. '{part}'\n"
            output = block.output if number == len(cut) - 1 else None
            expected.append((where, part, expectation, output))
    script += "stop_background\n"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    errors = []
    try:
        reached, _ = process.communicate(timeout=PAGE_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        reached, _ = process.communicate()
        errors.append(f"{page.path}: not finished after {PAGE_SECONDS} seconds")
    finally:
        # An aborted page may have left processes in its group.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    last = reached.splitlines()[-1] if reached.strip() else str(page.path)
    if process.returncode != 0:
        # Parts are named <line>.<number> and run in this order.
        outputs = sorted(parts.glob("*.printed"), key=lambda path: [int(part) for part in path.name.split(".")[:2]])
        printed = outputs[-1].read_text()[-2000:] if outputs else ""
        errors.append(f"{last}: exited with {process.returncode}\n{printed}")
        return errors
    for where, part, expectation, output in expected:
        printed = Path(f"{part}.printed").read_text()
        if expectation is not None and localise(expectation) not in printed:
            errors.append(f"{where}: expected `{expectation}`, but the output was:\n{printed[-2000:]}")
        if output is not None and not same_output(output.language, localise(output.text), printed):
            errors.append(f"{page.path}:{output.line}: expected:\n{output.text}but the output was:\n{printed[-2000:]}")
    return errors


def main() -> int:
    """Runs `docs.py <root> <port> <page>...`, with the servers' addresses in the environment."""
    root, port = Path(sys.argv[1]), sys.argv[2]
    skipped = {".git", "target", "node_modules", ".venv"}
    everything = {
        path.resolve(): read(path.relative_to(root))
        for path in sorted(root.rglob("*.md"))
        if not skipped & set(path.relative_to(root).parts) and not path.relative_to(root).parts[0].startswith("target")
    }
    requested = [everything[(root / name).resolve()] for name in sys.argv[3:]]
    errors = check_links(everything)
    for page in requested:
        errors += page.errors + check_blocks(page, root)

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

    for page in requested:
        if not any(block.language in RUN and block.marker in ("", "background") for block in page.blocks):
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
        print(f"{page.path}: {'; '.join(found) if found else 'ok'}")
        errors += found
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    print(f"{len(requested)} pages, {len(errors)} errors")
    return 1 if errors else 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prepare(folder: Path, root: Path, localise) -> None:
    """Fills the folder with links to the project's files and build; files that pages create stay in the folder."""
    for entry in root.iterdir():
        if entry.name not in (".git", ".env", ".env.example", "data", "target"):
            (folder / entry.name).symlink_to(entry)
    (folder / ".env.example").write_text(localise((root / ".env.example").read_text()))
    (folder / "target" / "release").mkdir(parents=True)
    (folder / "target" / "release" / "pressroom").symlink_to(os.environ["DOCS_PRESSROOM"])


def prepared_environment(page: Page, localise, port: str) -> dict[str, str]:
    """Returns a page's environment: none for pages that start embedded mode, and an empty database for the others."""
    subprocess.run(["redis-cli", "-u", f"redis://{os.environ['DOCS_REDIS']}/0", "FLUSHALL"], check=True, stdout=subprocess.DEVNULL)
    created = "SELECT datname FROM pg_database WHERE datname LIKE 'pressroom%'"
    databases = subprocess.run(["psql", "-XAtc", created], check=True, capture_output=True, text=True).stdout.split()
    sql = [f"DROP DATABASE {name} WITH (FORCE)" for name in databases] + ["DROP ROLE IF EXISTS pressroom"]
    environment = {**os.environ, "PORT": port, "HOST": "127.0.0.1"}
    if page.path not in EMBEDDED:
        # Embedded mode receives its own telemetry; on other pages there is no receiver.
        environment["OTEL_SDK_DISABLED"] = "true"
        sql += ["CREATE ROLE pressroom LOGIN PASSWORD 'password'", "CREATE DATABASE pressroom OWNER pressroom"]
        environment |= {
            "DATABASE_URL": localise("postgresql://pressroom:password@localhost:5432/pressroom"),
            "REDIS_URL": localise("redis://localhost:6379/0"),
            "SECRET_KEY": "a-key-that-only-the-pages-use-0123",
        }
    for statement in sql:
        subprocess.run(["psql", "-Xqc", statement], check=True, stderr=subprocess.DEVNULL)
    return environment


if __name__ == "__main__":
    sys.exit(main())
