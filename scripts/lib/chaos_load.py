"""The load of a chaos run: mixed requests whose acknowledged writes are recorded, health probes, and a receiver of
notifications.
"""

import collections
import os
import random
import time
import urllib.parse

import clients
from chaos_watch import WAIT_LIMIT, WITHOUT_POSTGRES, lock

# Total per second, over all connections.
REQUESTS = int(os.environ.get("REQUESTS", "100"))
# Relative frequency of each operation, which is a method of Load.
OPERATIONS = {
    "read": 40,
    "list": 12,
    "search": 8,
    "create": 5,
    "update": 6,
    "favourite": 12,
    "contend": 8,
    "register": 4,
    "login": 5,
}
AUTHORS = 16
READERS = 8
LARGE_ARTICLES = 40


class Receiver(clients.Receiver):
    """Counts notifications by event, article, recipient and webhook id."""

    received = collections.defaultdict(collections.Counter)

    def receive(self, body):
        key = body["type"], body["data"]["article"]["slug"], body["data"]["recipient"]["id"]
        with lock:
            self.received[key][self.headers["webhook-id"]] += 1


class Article:
    """An article whose creation was acknowledged."""

    def __init__(self, slug, author):
        self.slug = slug
        self.author = author
        # Descriptions that it may have: that of the last acknowledged change, and those of unacknowledged changes.
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
        client = clients.Client(url)
        self.authors = [clients.sign_up(client, f"author-{n}") for n in range(AUTHORS)]
        self.readers = [clients.sign_up(client, f"reader-{n}") for n in range(READERS)]
        large = [self.post(client, 0, f"Large {n}", "x" * 900_000) for n in range(LARGE_ARTICLES)]
        # Paths with large responses: each large article, and equally often a list of them.
        self.large = [f"/api/articles/{slug}" for slug in large]
        self.large += ["/api/articles/?search=Large&per_page=100"] * len(large)
        # The first reader is notified of each later article. The others add and remove these favourites.
        self.contested = [self.post(client, n, f"First {n}") for n in range(1, AUTHORS)]
        for slug in self.contested:
            client.request("POST", f"/api/articles/{slug}/favorite", self.readers[0])
        self.fan = client.request("GET", "/api/user", self.readers[0])["id"]
        # Enough newer articles to keep the large ones out of the lists.
        for _ in range(60):
            self.create(client, random.Random(0))

    def post(self, client, author, title, body="x" * 1000):
        article = {"title": title, "description": "0", "body": body}
        return client.request("POST", "/api/articles/", self.authors[author], article)["slug"]

    def run(self, number):
        chance = random.Random(f"{self.seed}/{number}")
        client = clients.Client(self.url)
        operations, weights = list(OPERATIONS), list(OPERATIONS.values())
        for _ in clients.paced(REQUESTS):
            (operation,) = chance.choices(operations, weights)
            started, fault = time.monotonic(), self.watch.fault
            try:
                getattr(self, operation)(client, chance)
                status, detail = 200, ""
            except clients.UnexpectedStatus as error:
                status, detail = error.status, str(error)
            except Exception as error:  # any other exception means that there was no valid response
                status, detail = None, f"{type(error).__name__}: {error}"
            self.watch.record(operation, status, started, fault, detail)

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
        # The change may take effect even without a response.
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
        self.registered.append((f"{name}@example.com", clients.sign_up(client, name)))

    def login(self, client, chance):
        email = f"reader-{chance.randrange(READERS)}@example.com"
        client.request("POST", "/api/login", body={"email": email, "password": clients.PASSWORD})


def probe(url, watch):
    """Requests liveness and readiness four times a second."""
    client = clients.Client(url, "127.0.0.10")
    while not clients.stopping.is_set():
        for endpoint in ("live", "ready"):
            started = time.monotonic()
            fault = watch.fault
            excused = endpoint == "ready" and fault in WITHOUT_POSTGRES
            try:
                client.request("GET", f"/api/health/{endpoint}")
                status = 200
            except clients.UnexpectedStatus as error:
                status = error.status
            except Exception as error:
                status = f"{type(error).__name__}: {error}"
            wait = time.monotonic() - started
            if status != 200 and not excused:
                watch.violation(f"health: not {endpoint}", fault, str(status))
            if wait > WAIT_LIMIT:
                watch.violation("response too late", fault, f"health/{endpoint}: {wait:.1f} s")
        time.sleep(0.25)
