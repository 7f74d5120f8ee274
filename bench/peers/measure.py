"""Measures task queues on Redis for bench/peers/run, and prints a Markdown table.

    measure.py <Redis URL> <Rust program> <interpreter with Celery> <log of the workers> [<task queue>...]
"""

import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import redis

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("ROUNDS", "3"))
KILLS = int(os.environ.get("KILLS", "10"))
SECONDS = float(os.environ.get("SECONDS_EACH", "5"))
SCALE = float(os.environ.get("SCALE", "1"))

URL, RUST, CELERY, LOG, *chosen = sys.argv[1:]
broker = redis.Redis.from_url(URL + "/0")
records = redis.Redis.from_url(URL + "/1")
environment = os.environ | {
    "BROKER_URL": URL + "/0",
    "RECORDS_URL": URL + "/1",
    "PYTHONPATH": str(HERE),
    "PYTHONDONTWRITEBYTECODE": "1",
    "RUST_LOG": "error",
}
processes = []
log = open(LOG, "wb")


@dataclass
class Peer:
    title: str
    sender: list[str]
    worker: list[str]
    # Returns the number of tasks that wait or are not acknowledged.
    left: Callable[[], int]
    # Tasks per measurement of the throughput, about three seconds' worth. apalis cannot read a queue of 8,000 or more.
    tasks: int
    # Seconds after the last arrival of a missing task until the others count as lost.
    quiet: float = 30
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name, value):
        self.figures.setdefault(name, []).append(value)

    def median(self, name):
        return statistics.median(self.figures[name])


def kombu_left():
    return broker.llen("celery") + broker.hlen("unacked")


def rusty_celery_left():
    return broker.llen("celery") + broker.hlen("_celery.celery_process_map")


def apalis_left():
    workers = broker.zrange("bench:workers", 0, -1)
    inflight = sum(broker.scard(b"bench:inflight:" + worker) for worker in workers)
    # Every task is scheduled first, even if it is due immediately.
    return broker.zcard("bench:scheduled") + broker.llen("bench:active") + inflight


def taskiq_left():
    groups = broker.xinfo_groups("taskiq")
    return groups[0]["lag"] + groups[0]["pending"]


def rust(library, command):
    return [RUST, library, command, URL + "/0"]


def python(module):
    return [sys.executable, "-m", module]


PEERS = {
    "celeriac": Peer("celeriac", rust("celeriac", "send"), rust("celeriac", "work"), kombu_left, 100_000),
    "apalis": Peer("apalis", rust("apalis", "send"), rust("apalis", "work"), apalis_left, 7_000),
    "rusty-celery": Peer(
        "rusty-celery", rust("rusty-celery", "send"), rust("rusty-celery", "work"), rusty_celery_left, 30_000
    ),
    "celery": Peer(
        "Celery",
        [CELERY, "-m", "celery_app"],
        [CELERY, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "-c", "2", "--loglevel", "error"],
        kombu_left,
        2_000,
        # A worker looks for tasks to run again at its start, and then every 100 seconds.
        quiet=120,
    ),
    "taskiq": Peer(
        "taskiq",
        python("taskiq_app"),
        [*python("taskiq"), "worker", "--workers", "2", "--max-async-tasks", "10", "--log-level", "ERROR"]
        + ["taskiq_app:broker"],
        taskiq_left,
        5_000,
    ),
    "dramatiq": Peer(
        "dramatiq",
        python("dramatiq_app"),
        [*python("dramatiq"), "--processes", "2", "--threads", "10", "dramatiq_app"],
        lambda: broker.hlen("dramatiq:default.msgs"),
        3_000,
    ),
}


def start(command, **options):
    process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=log, **options)
    processes.append(process)
    return process


class Sender:
    def __init__(self, peer):
        self.process = start(peer.sender, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.next = 0

    def request(self, count, rate=0.0, takes=0, recorded=True):
        """Starts sending tasks."""
        first = self.next if recorded else -1
        self.next += count if recorded else 0
        self.process.stdin.write(f"{first} {count} {rate} {takes}\n")
        self.process.stdin.flush()

    def wait(self):
        if not self.process.stdout.readline():
            sys.exit("the client exited")

    def send(self, *arguments, **options):
        self.request(*arguments, **options)
        self.wait()


def start_worker(peer):
    return start(peer.worker, stdin=subprocess.DEVNULL, stdout=log)


def members(process):
    """Returns the processes of a session: worker processes and their children."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if int((path / "stat").read_text().rpartition(")")[2].split()[3]) == process.pid:
                yield path
        except OSError:
            continue


def kill(process):
    """Kills all processes of a session, as stopping a container does."""
    for path in members(process):
        try:
            os.kill(int(path.name), signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    processes.remove(process)


def memory(process):
    """Returns the memory of all processes of a session in MiB. Shared pages count once."""
    total = 0
    for path in members(process):
        try:
            lines = (path / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not happen within {seconds:.0f} seconds")
        time.sleep(0.002)


def ran():
    """Returns the recorded ids and latencies."""
    return [tuple(map(int, line.split())) for line in records.lrange("ran", 0, -1)]


def drain(peer, sender):
    """Returns the worker and its tasks per second, from the first task to the last; the queue is full before it starts."""
    count = int(peer.tasks * SCALE)
    sender.send(count, recorded=False)
    worker = start_worker(peer)
    wait_until(lambda: peer.left() < count, 60, f"{peer.title}: the first task")
    before, begin = peer.left(), time.monotonic()
    wait_until(lambda: peer.left() == 0, 120, f"{peer.title}: the end of the queue")
    return worker, before / (time.monotonic() - begin)


def load(peer):
    broker.flushall()
    sender = Sender(peer)
    worker, rate = drain(peer, sender)
    peer.note("rate", rate)
    count = int(rate / 10 * SECONDS)
    begin = time.monotonic()
    sender.send(count, rate=rate / 10)
    took = time.monotonic() - begin
    if took > SECONDS * 1.1:
        print(f"{peer.title}: sending took {took:.1f} s instead of {SECONDS:.1f} s", flush=True)
    wait_until(lambda: records.llen("ran") >= count, 60, f"{peer.title}: the last task at a tenth of the load")
    percentiles = statistics.quantiles((waited / 1000 for _, waited in ran()), n=100)
    peer.note("p50", percentiles[49])
    peer.note("p99", percentiles[98])
    peer.note("loaded", memory(worker))
    kill(worker)
    kill(sender.process)
    print(
        f"{peer.title}: {rate:.0f} tasks per second; at a tenth of that, p50 {percentiles[49]:.2f} ms, "
        f"p99 {percentiles[98]:.2f} ms",
        flush=True,
    )


def losses(peer):
    """Kills the worker repeatedly, a second after its first task, while the queue is never empty."""
    broker.flushall()
    sender = Sender(peer)
    worker = start_worker(peer)
    time.sleep(5)
    peer.note("idle", memory(worker))
    kill(worker)

    def refill():
        if peer.left() < 500:
            sender.send(500, takes=10)

    for _ in range(KILLS):
        refill()
        before = records.llen("ran")
        worker = start_worker(peer)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            refill()
            if records.llen("ran") > before and end > time.monotonic() + 1:
                end = time.monotonic() + 1
            time.sleep(0.02)
        kill(worker)

    # Some workers look for lost tasks only when there are new ones, so one task per second is sent.
    worker = start_worker(peer)
    sent = sender.next
    missing = set(range(sent))
    changed = time.monotonic()
    while time.monotonic() < changed + peer.quiet:
        sender.send(1)
        time.sleep(1)
        still = missing - {id for id, _ in ran()}
        if still != missing:
            missing, changed = still, time.monotonic()
    ids = [id for id, _ in ran() if id < sent]
    peer.note("sent", sent)
    peer.note("lost", len(missing))
    peer.note("twice", len(ids) - len(set(ids)))
    kill(worker)
    kill(sender.process)
    print(
        f"{peer.title}: of {sent} tasks, {len(missing)} did not run and {len(ids) - len(set(ids))} ran twice",
        flush=True,
    )


def main():
    peers = [PEERS[name] for name in chosen or PEERS]
    for number in range(ROUNDS):
        print(f"round {number + 1} of {ROUNDS}", flush=True)
        for peer in peers:
            load(peer)
    print(f"killing each worker {KILLS} times", flush=True)
    for peer in peers:
        losses(peer)

    print()
    print("| | tasks per second | latency p50, p99 | memory idle, after load | lost | ran twice |")
    print("| --- | --- | --- | --- | --- | --- |")
    for peer in peers:
        print(
            f"| {peer.title} | {peer.median('rate'):,.0f} | {peer.median('p50'):.1f} ms, {peer.median('p99'):.1f} ms"
            f" | {peer.median('idle'):.0f} MiB, {peer.median('loaded'):.0f} MiB"
            f" | {peer.median('lost'):.0f} of {peer.median('sent'):,.0f} | {peer.median('twice'):.0f} |"
        )


try:
    main()
finally:
    for process in [*processes]:
        kill(process)
