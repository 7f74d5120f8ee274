"""The clients and the verdict of the chaos run.

    chaos.py schedule <seed> <seconds> <fault>...
    chaos.py run <url of the API> <port of the webhook receiver> <folder>

`schedule` prints the given faults, by default all, one per line: name, seconds, and a number that chooses between variants.
The output depends only on the arguments.

`run` sends mixed load until SIGTERM, while scripts/chaos injects the faults. The file `fault` in the folder names the current
fault and its phase, `active` or `healed`; the file `serve.pid` has the id of the server's process. After the first write that
succeeds in the phase `healed`, `run` creates the file `recovered`. At the end it reads back every acknowledged write, waits
for the notifications, prints the figures, and exits with 1 if a promise was broken.
"""

import collections
import concurrent.futures
import hashlib
import http.server
import json
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

import hostile
import traffic

# Shortest duration of each fault in seconds. Faults during which requests may wait last longer than WAIT_LIMIT.
FAULTS = {
    "postgres_stopped": 2,
    "postgres_killed": 1,
    "postgres_paused": 7,
    "fail_over": 3,
    "disk_full": 5,
    "row_locked": 7,
    "table_locked": 7,
    "redis_flushed": 3,
    "redis_killed": 3,
    "redis_paused": 7,
    "log_stalled": 7,
    "clients_not_reading": 7,
    "login_storm": 6,
    "signals": 1,
}
# Time between two faults, in seconds: recovery, and a pause of a second.
PAUSE = 2
# Faults during which readiness may be 503.
WITHOUT_POSTGRES = {"postgres_stopped", "postgres_killed", "postgres_paused", "fail_over", "disk_full"}

CONNECTIONS = int(os.environ.get("CONNECTIONS", "32"))
# Total per second, over all connections.
REQUESTS = int(os.environ.get("REQUESTS", "100"))
# Shares of the load.
OPERATIONS = {
    "read": 40, "list": 12, "search": 8, "create": 5, "update": 6, "favourite": 12, "contend": 8, "register": 4, "login": 5,
}  # fmt: skip
WRITES = {"create", "update", "favourite", "register"}
# Their password hashes wait in the queue of logins.
HASHING = {"login", "register"}
AUTHORS = 16
READERS = 8
LARGE_ARTICLES = 40

# The promises.
WAIT_LIMIT = 5
LOGIN_WAIT_LIMIT = 35
MEMORY_LIMIT = 128
RECOVERY_LIMIT = 10
NOTIFICATION_LIMIT = int(os.environ.get("NOTIFICATION_SECONDS", "240"))

PASSWORD = "correct horse battery"
# werkzeug's hash of another password, with its default cost of 32 MiB; a login with PASSWORD computes it and fails.
SCRYPT = "scrypt:32768:8:1$salt$" + hashlib.scrypt(
    b"another password", salt=b"salt", n=32768, r=8, p=1, maxmem=1 << 26
).hex()

stopping = threading.Event()
lock = threading.Lock()


def schedule(seed, seconds, names):
    """Returns the faults of a run: each once in random order, and again for longer until the time is used up."""
    chance = random.Random(seed)
    faults, used, longer = [], 0, 1
    while used < seconds:
        for name in chance.sample(names, len(names)):
            lasts = round(FAULTS[name] * chance.uniform(1, longer), 1)
            faults.append((name, lasts, chance.randrange(1 << 15)))
            used += lasts + PAUSE
        longer = 2.5
    return faults


class Figures:
    """Measurements during one kind of fault and after it, over all its occurrences."""

    def __init__(self):
        self.times = self.requests = self.succeeded = self.unavailable = 0
        self.storm = collections.Counter()
        self.reads = []
        self.longest = self.peak = self.recovery = 0.0


class Watch:
    """The current fault, and the figures and violations attributed to it."""

    def __init__(self, folder):
        self.folder = folder
        self.fault = self.phase = ""
        # Functions that run a fault's hostile clients until an event is set.
        self.hostile = {}
        self.healed = None
        self.recovered = True
        self.figures = collections.defaultdict(Figures)
        self.violations = collections.Counter()
        self.examples = {}

    def violation(self, kind, detail=""):
        with lock:
            key = kind if self.fault == "none" else f"{kind} ({self.fault})"
            self.violations[key] += 1
            self.examples.setdefault(key, f"{time.strftime('%H:%M:%S')} {detail}")

    def follow(self):
        """Follows the current fault and the memory of the server, until the end of the process."""
        hostile_clients = None
        while True:
            fault, _, phase = (self.folder / "fault").read_text().strip().partition(" ")
            if (fault, phase) != (self.fault, self.phase):
                with lock:
                    self.change(fault, phase)
                if hostile_clients:
                    hostile_clients.set()
                    hostile_clients = None
                if phase == "active" and fault in self.hostile:
                    hostile_clients = threading.Event()
                    threading.Thread(target=self.hostile[fault], args=(hostile_clients,), daemon=True).start()
            self.measure_memory()
            time.sleep(0.05)

    def change(self, fault, phase):
        now = time.monotonic()
        if phase == "active":
            self.figures[fault].times += 1
            self.healed, self.recovered = None, fault == "none"
            self.reset_peak()
        else:
            self.healed = now
        self.fault, self.phase = fault, phase

    def server(self):
        return (self.folder / "serve.pid").read_text().strip()

    def reset_peak(self):
        try:
            pathlib.Path(f"/proc/{self.server()}/clear_refs").write_text("5")
        except OSError:
            pass

    def measure_memory(self):
        try:
            status = pathlib.Path(f"/proc/{self.server()}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                figures = self.figures[self.fault]
                figures.peak = max(figures.peak, int(line.split()[1]) / 1024)

    def record(self, operation, status, started, detail=""):
        """Records one request; `status` is None if there was no response."""
        now = time.monotonic()
        wait = now - started
        with lock:
            fault, figures = self.fault, self.figures[self.fault]
            figures.requests += 1
            figures.succeeded += status is not None and 200 <= status < 300
            figures.unavailable += status == 503
            queued = fault == "login_storm" and operation in HASHING
            if not queued:
                figures.longest = max(figures.longest, wait)
            if operation == "read" and status == 200:
                figures.reads.append(wait)
            first_write = (
                self.healed and not self.recovered and operation in WRITES
                and status in (200, 201) and started > self.healed
            )  # fmt: skip
            if first_write:
                self.recovered = True
                figures.recovery = max(figures.recovery, now - self.healed)
                (self.folder / "recovered").touch()
        if first_write and now - self.healed > RECOVERY_LIMIT:
            self.violation("writes failed too long after the fault", f"{now - self.healed:.1f} s")
        if status is None:
            self.violation("no response", f"{operation}: {detail}")
        elif status != 503 and not 200 <= status < 300:
            self.violation(f"status {status}", f"{operation}: {detail}")
        if wait > (LOGIN_WAIT_LIMIT if queued else WAIT_LIMIT):
            self.violation("wait too long", f"{operation}: {wait:.1f} s, status {status}")

    def record_storm(self, status, seconds):
        with lock:
            self.figures["login_storm"].storm[status] += 1
        if status not in (200, 401, 429, 503):
            self.violation(f"status {status}", "login in a storm")
        if seconds > LOGIN_WAIT_LIMIT:
            self.violation("wait too long", f"login in a storm: {seconds:.1f} s")


class Receiver(http.server.BaseHTTPRequestHandler):
    """Counts notifications by event, article and recipient, and the ids under which each arrived."""

    protocol_version = "HTTP/1.1"
    received = collections.defaultdict(collections.Counter)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = body["type"], body["data"]["article"]["slug"], body["data"]["recipient"]["id"]
        with lock:
            self.received[key][self.headers["webhook-id"]] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(traffic.Server):
    def handle_error(self, *_):
        """Ignores connections that a worker closed or lost."""


class Article:
    """An article whose creation was acknowledged."""

    def __init__(self, slug, author):
        self.slug = slug
        self.author = author
        # Descriptions that it may have: of the last acknowledged change, and of changes without an acknowledgement.
        self.acknowledged = "0"
        self.possible = set()


class Load:
    """Mixed requests, and what the server acknowledged."""

    def __init__(self, url, watch, seed):
        self.url = url
        self.watch = watch
        self.seed = seed
        self.numbers = iter(range(1, 1 << 60))
        self.articles = []
        # Articles that no thread is changing.
        self.idle = collections.deque()
        self.favourites = set()
        self.registered = []
        self.cursor = None
        client = traffic.Client(url)
        self.authors = [traffic.sign_up(client, f"author-{n}") for n in range(AUTHORS)]
        self.readers = [traffic.sign_up(client, f"reader-{n}") for n in range(READERS)]
        large = [self.post(client, 0, f"Large {n}", "x" * 900_000) for n in range(LARGE_ARTICLES)]
        # Paths of large responses.
        self.large = [f"/api/articles/{slug}" for slug in large] + ["/api/articles/?search=Large&per_page=100"] * len(large)
        # The first reader is notified of each later article. The other readers favour and unfavour these articles.
        self.contested = [self.post(client, n, f"First {n}") for n in range(1, AUTHORS)]
        for slug in self.contested:
            client.request("POST", f"/api/articles/{slug}/favorite", self.readers[0])
        self.fan = client.request("GET", "/api/user", self.readers[0])["id"]
        # Enough for the lists to contain no large article.
        for _ in range(60):
            self.create(client, random.Random(0))

    def post(self, client, author, title, body="x" * 1000):
        article = {"title": title, "description": "0", "body": body}
        return client.request("POST", "/api/articles/", self.authors[author], article)["slug"]

    def run(self, number):
        chance = random.Random(f"{self.seed}/{number}")
        client = traffic.Client(self.url)
        operations, weights = list(OPERATIONS), list(OPERATIONS.values())
        due = time.monotonic()
        while not stopping.is_set():
            # Requests that were due during a stall are not made up for.
            due = max(due + CONNECTIONS / REQUESTS, time.monotonic() - 1)
            time.sleep(max(0.0, due - time.monotonic()))
            (operation,) = chance.choices(operations, weights)
            started = time.monotonic()
            try:
                getattr(self, operation)(client, chance)
                status, detail = 200, ""
            except traffic.UnexpectedStatus as error:
                status, detail = error.status, str(error)
            except Exception as error:  # every other exception is a request without a valid response
                status, detail = None, f"{type(error).__name__}: {error}"
            self.watch.record(operation, status, started, detail)

    def read(self, client, chance):
        slug = chance.choice(self.articles).slug
        client.request("GET", f"/api/articles/{slug}", chance.choice([None, *self.readers]))

    def list(self, client, chance):
        if self.cursor and chance.random() < 0.5:
            client.request("GET", f"/api/articles/?cursor={urllib.parse.quote(self.cursor)}")
        else:
            page = client.request("GET", "/api/articles/", chance.choice([None, *self.readers]))
            self.cursor = page["next_cursor"]

    def search(self, client, chance):
        client.request("GET", f"/api/articles/?search=article+{chance.randrange(10, 100)}")

    def create(self, client, chance):
        author = chance.randrange(1, AUTHORS)
        article = Article(self.post(client, author, f"Article {next(self.numbers)}"), author)
        self.articles.append(article)
        self.idle.append(article)

    def update(self, client, chance):
        try:
            article = self.idle.popleft()
        except IndexError:
            return
        description = str(next(self.numbers))
        # It may take effect even if there is no acknowledgement.
        article.possible.add(description)
        try:
            path = f"/api/articles/{article.slug}"
            client.request("PUT", path, self.authors[article.author], {"description": description})
            article.possible.discard(description)
            article.acknowledged = description
        finally:
            self.idle.append(article)

    def favourite(self, client, chance):
        article, reader = chance.choice(self.articles), chance.randrange(READERS)
        client.request("POST", f"/api/articles/{article.slug}/favorite", self.readers[reader])
        self.favourites.add((article.slug, reader))

    def contend(self, client, chance):
        method, reader = chance.choice(["POST", "DELETE"]), chance.choice(self.readers[1:])
        client.request(method, f"/api/articles/{chance.choice(self.contested)}/favorite", reader)

    def register(self, client, _chance):
        name = f"user-{next(self.numbers)}"
        self.registered.append((f"{name}@example.com", traffic.sign_up(client, name)))

    def login(self, client, chance):
        email = f"reader-{chance.randrange(READERS)}@example.com"
        client.request("POST", "/api/login", body={"email": email, "password": PASSWORD})


def probe(url, watch):
    """Requests liveness and readiness four times a second."""
    client = traffic.Client(url, "127.0.0.10")
    while not stopping.is_set():
        for endpoint in ("live", "ready"):
            started = time.monotonic()
            with lock:
                excused = endpoint == "ready" and watch.fault in WITHOUT_POSTGRES
            try:
                client.request("GET", f"/api/health/{endpoint}")
                status = 200
            except traffic.UnexpectedStatus as error:
                status = error.status
            except Exception as error:
                status = f"{type(error).__name__}: {error}"
            wait = time.monotonic() - started
            if status != 200 and not excused:
                watch.violation(f"health: not {endpoint}", str(status))
            if wait > WAIT_LIMIT:
                watch.violation("wait too long", f"health/{endpoint}: {wait:.1f} s")
        time.sleep(0.25)


def read_back(load, watch):
    """Reads back every acknowledged write; returns a line for the report."""
    local = threading.local()

    def get(path, token=None):
        if not hasattr(local, "client"):
            local.client = traffic.Client(load.url)
        for attempt in range(3):
            try:
                return local.client.request("GET", path, token)
            except traffic.UnexpectedStatus as error:
                if error.status != 503 or attempt == 2:
                    return {"error": str(error)}
                time.sleep(1)

    def article(article):
        found = get(f"/api/articles/{article.slug}")
        if found.get("description") not in article.possible | {article.acknowledged}:
            watch.violation("an acknowledged article or change was lost", f"{article.slug}: {str(found)[:200]}")

    def favourite(pair):
        found = get(f"/api/articles/{pair[0]}", load.readers[pair[1]])
        if not found.get("favorited"):
            watch.violation("an acknowledged favourite was lost", f"{pair}: {str(found)[:200]}")

    def registration(account):
        found = get("/api/user", account[1])
        if found.get("email") != account[0]:
            watch.violation("an acknowledged registration was lost", f"{account[0]}: {str(found)[:200]}")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for check, items in (article, load.articles), (favourite, load.favourites), (registration, load.registered):
            list(pool.map(check, items))
    return (
        f"read back: {len(load.articles)} articles with their last changes, {len(load.favourites)} favourites, "
        f"{len(load.registered)} registrations"
    )


def committed(load):
    """Returns the slugs of all articles that the load created, acknowledged or not."""
    client, slugs, cursor = traffic.Client(load.url), set(), ""
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
        watch.violation("a notification was not delivered", slug)
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
    print(f"{'fault':<20} {'times':>5} {'requests':>8} {'2xx':>7} {'503':>6} {'read p99':>9} {'longest':>9} {'recovery':>9} {'memory':>8}")
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
        watch.violation(f"memory over {MEMORY_LIMIT} MiB", ", ".join(over))
    storm = watch.figures["login_storm"].storm
    if storm:
        print("logins in storms: " + ", ".join(f"{count} x {status}" for status, count in sorted(storm.items())))
    for line in lines:
        print(line)
    for line in (watch.folder / "violations").read_text().splitlines():
        watch.violations[line] += 1
    for key, count in watch.violations.most_common():
        print(f"VIOLATION: {key}: {count}; first: {watch.examples.get(key, 'see the faults above')}")
    return 1 if watch.violations else 0


def main():
    if sys.argv[1] == "schedule":
        for fault in schedule(int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:] or list(FAULTS)):
            print(*fault)
        return 0
    url, port, folder = sys.argv[2], int(sys.argv[3]), pathlib.Path(sys.argv[4])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    receiver = Server(("127.0.0.1", port), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()

    watch = Watch(folder)
    load = Load(url, watch, os.environ["CHAOS_SEED"])
    set_hash = f"UPDATE users SET password_hash = '{SCRYPT}' WHERE email = 'author-0@example.com'"
    subprocess.run([os.environ["PSQL"], os.environ["POSTGRES_URL"], "-XAtqc", set_hash], check=True)
    server = urllib.parse.urlsplit(url).port
    accounts = [("author-0@example.com", PASSWORD), ("author-1@example.com", PASSWORD)]
    watch.hostile = {
        "clients_not_reading": lambda ended: hostile.do_not_read(server, load.large, ended),
        "login_storm": lambda ended: hostile.storm(server, accounts, ended, watch.record_storm),
    }
    started = time.monotonic()
    threading.Thread(target=watch.follow, daemon=True).start()
    threads = [threading.Thread(target=load.run, args=(n,)) for n in range(CONNECTIONS)]
    threads.append(threading.Thread(target=probe, args=(url, watch)))
    for thread in threads:
        thread.start()
    (folder / "steady").touch()
    stopping.wait()
    for thread in threads:
        thread.join()
    lasted = time.monotonic() - started

    lines = [f"{sum(f.requests for f in watch.figures.values()) / lasted:.0f} requests per second for {lasted:.0f} s"]
    for check in read_back, notifications:
        try:
            lines.append(check(load, watch))
        except Exception as error:
            watch.violation(f"{check.__name__.replace('_', ' ')} failed", f"{type(error).__name__}: {error}")
    return report(watch, lines)


if __name__ == "__main__":
    sys.exit(main())
