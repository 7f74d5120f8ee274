"""The load and the verdict of the chaos run.

    chaos.py schedule <seed> <seconds> <fault>...
    chaos.py run <url of the API> <port of the webhook receiver> <folder>

`schedule` prints the given faults, by default all, one per line: name, seconds, and a number that chooses between
variants. The output depends only on the arguments.

`run` sends mixed load until SIGTERM, while scripts/chaos injects the faults. The file `fault` in the folder names the
current fault and its phase, `active` or `healed`; the file `serve.pid` has the id of the server's process. After the first
write that succeeds in the phase `healed`, `run` creates the file `recovered`. At the end it waits for the notifications of
all articles, creates the file `notified`, receives more of them until the file `drained` exists, reads back every
acknowledged write, prints the figures, and exits with 1 if a promise was broken.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.parse

import clients
import hostile
from chaos_load import Load, Receiver, probe
from chaos_watch import FAULTS, MEMORY_LIMIT, Watch, lock

# Estimated time between two faults, in seconds: the recovery, and a pause of a second.
PAUSE = 2
# Maximum delay of a notification after the last fault, in seconds.
NOTIFICATION_LIMIT = int(os.environ.get("NOTIFICATION_SECONDS", "240"))

# werkzeug's hash of another password, with its default cost of 32 MiB. A login with PASSWORD computes the hash, and fails.
SCRYPT = "scrypt:32768:8:1$salt$" + hashlib.scrypt(
    b"another password", salt=b"salt", n=32768, r=8, p=1, maxmem=1 << 26
).hex()


def schedule(seed, seconds, names):
    """Returns the faults of a run: each once in random order, then again with longer durations until the time is used up."""
    chance = random.Random(seed)
    faults, used, longer = [], 0, 1
    while used < seconds:
        for name in chance.sample(names, len(names)):
            if longer > 1 and used >= seconds:
                break
            duration = round(FAULTS[name] * chance.uniform(1, longer), 1)
            faults.append((name, duration, chance.randrange(1 << 15)))
            used += duration + PAUSE
        longer = 2.5
    return faults


def read_back(load, watch):
    """Reads back every acknowledged write; returns a line for the report."""
    local = threading.local()

    def get(path, token=None):
        if not hasattr(local, "client"):
            local.client = clients.Client(load.url)
        for attempt in range(3):
            try:
                return local.client.request("GET", path, token)
            except clients.UnexpectedStatus as error:
                if error.status != 503 or attempt == 2:
                    return {"error": str(error)}
                time.sleep(1)

    def article(article):
        found = get(f"/api/articles/{article.slug}")
        if found.get("description") not in article.possible | {article.acknowledged}:
            watch.violation("an acknowledged article or change was lost", "none", f"{article.slug}: {str(found)[:200]}")

    def favourite(pair):
        found = get(f"/api/articles/{pair[0]}", load.readers[pair[1]])
        if not found.get("favorited"):
            watch.violation("an acknowledged favourite was lost", "none", f"{pair}: {str(found)[:200]}")

    def registration(account):
        found = get("/api/user", account[1])
        if found.get("email") != account[0]:
            watch.violation("an acknowledged registration was lost", "none", f"{account[0]}: {str(found)[:200]}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for check, items in (article, load.articles), (favourite, load.favourites), (registration, load.registered):
            list(pool.map(check, items))
    return (
        f"read back: {len(load.articles)} articles with their last changes, {len(load.favourites)} favourites, "
        f"{len(load.registered)} registrations"
    )


def committed(load):
    """Returns the slugs of all articles that the load created, acknowledged or not."""
    client, slugs, cursor = clients.Client(load.url), set(), ""
    while cursor is not None:
        page = client.request("GET", f"/api/articles/?per_page=100&cursor={urllib.parse.quote(cursor)}")
        slugs.update(a["slug"] for a in page["articles"] if a["title"].startswith("Article "))
        cursor = page["next_cursor"]
    return slugs


def notifications(load, watch):
    """Waits for the notification of each article; returns a line for the report."""
    slugs, started = committed(load), time.monotonic()
    received = Receiver.received

    def missing():
        with lock:
            return [slug for slug in slugs if ("article.created", slug, load.fan) not in received]

    while missing() and time.monotonic() - started < NOTIFICATION_LIMIT:
        time.sleep(0.5)
    waited = time.monotonic() - started
    for slug in missing():
        watch.violation("a notification was not delivered", "none", slug)
    (watch.folder / "notified").touch()
    while not (watch.folder / "drained").exists():
        time.sleep(0.1)
    with lock:
        for (event, slug, reader), ids in received.items():
            if event == "article.created" and len(ids) > 1:
                watch.violations["a notification was delivered under several ids"] += 1
        repeated = sum(count - 1 for ids in received.values() for count in ids.values())
        total = len(received)
    acknowledged = {article.slug for article in load.articles}
    return (
        f"{len(slugs) - len(missing())} of {len(slugs)} articles were notified "
        f"({len(slugs - acknowledged)} of them committed without an acknowledgement), the last after {waited:.0f} s; "
        f"{total} notifications in all, {repeated} repeated under the same id"
    )


def label(fault):
    return "no fault" if fault == "none" else fault.replace("_", " ")


def report(watch, lines):
    """Prints the figures and the violations; returns the exit code."""
    print(f"{'fault':<20} {'times':>5} {'requests':>8} {'2xx':>7} {'503':>6}", end="")
    print(f" {'read p99':>9} {'longest':>9} {'recovery':>9} {'memory':>8}")
    for name in ["none", *FAULTS]:
        f = watch.figures.get(name)
        if not f or not f.times:
            continue
        p99 = sorted(f.reads)[len(f.reads) * 99 // 100] if f.reads else 0
        print(
            f"{label(name):<20} {f.times:>5} {f.requests:>8} {f.succeeded:>7} {f.unavailable:>6} "
            f"{p99 * 1000:>6.0f} ms {f.longest:>7.2f} s {f.recovery:>7.2f} s {f.peak:>4.0f} MiB"
        )
    over = [f"{label(name)} {f.peak:.0f}" for name, f in watch.figures.items() if f.peak > MEMORY_LIMIT]
    if over:
        watch.violation(f"memory over {MEMORY_LIMIT} MiB", "none", ", ".join(over))
    storm = watch.figures["login_storm"].storm
    if storm:
        print("logins in storms: " + ", ".join(f"{count} x {status}" for status, count in sorted(storm.items())))
    for line in lines:
        print(line)
    lost = sum(n for kind, n in watch.violations.items() if kind.startswith("an acknowledged "))
    failed = ", ".join(f"{count} x {status}" for status, count in sorted(watch.failed.items(), key=str)) or "none"
    longest, peak = (max(getattr(f, name) for f in watch.figures.values()) for name in ("longest", "peak"))
    print(
        f"in all: {lost} acknowledged writes lost; failed requests: {failed}; longest wait {longest:.2f} s, "
        f"except for hashes in login storms; memory at most {peak:.0f} MiB"
    )
    for line in (watch.folder / "violations").read_text().splitlines():
        watch.violations[line] += 1
    for key, count in watch.violations.most_common():
        print(f"VIOLATION: {key}: {count}; first: {watch.examples.get(key, 'see the faults above')}")
    return 1 if watch.violations else 0


def main():
    if sys.argv[1] == "schedule":
        if unknown := set(sys.argv[4:]) - set(FAULTS):
            sys.exit(f"unknown faults: {', '.join(unknown)}; the faults are {', '.join(FAULTS)}")
        for fault in schedule(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:] or list(FAULTS)):
            print(*fault)
        return 0
    url, port, folder = sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: clients.stopping.set())
    clients.start_receiver(port, Receiver)

    watch = Watch(folder)
    load = Load(url, watch, os.environ["CHAOS_SEED"])
    set_hash = f"UPDATE users SET password_hash = '{SCRYPT}' WHERE email = 'author-0@example.com'"
    subprocess.run([os.environ["PSQL"], os.environ["POSTGRES_URL"], "-XAtqc", set_hash], check=True)
    server = urllib.parse.urlsplit(url).port
    accounts = [("author-0@example.com", clients.PASSWORD), ("author-1@example.com", clients.PASSWORD)]
    watch.hostile = {
        "clients_not_reading": lambda ended: hostile.do_not_read(server, load.large, ended),
        "login_storm": lambda ended: hostile.storm(server, accounts, ended, watch.record_storm),
    }
    threading.Thread(target=watch.follow, daemon=True).start()
    threads = [threading.Thread(target=load.run, args=(n,)) for n in range(clients.CONNECTIONS)]
    threads.append(threading.Thread(target=probe, args=(url, watch)))
    duration = clients.run(threads, folder)

    requests = sum(figures.requests for figures in watch.figures.values())
    lines = [f"{requests / duration:.0f} requests per second for {duration:.0f} s"]
    for check in notifications, read_back:
        try:
            lines.append(check(load, watch))
        except Exception as error:
            watch.violation(f"{check.__name__.replace('_', ' ')} failed", "none", f"{type(error).__name__}: {error}")
            (folder / "notified").touch()
    return report(watch, lines)


if __name__ == "__main__":
    sys.exit(main())
