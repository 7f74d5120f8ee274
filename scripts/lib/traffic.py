"""Generates steady traffic through a proxy, counts failures, and receives the resulting notifications.

    traffic.py <url of the API> <port of the webhook receiver> <folder>

Registers an author and a reader who is notified of each new article, then reads and creates articles until SIGTERM.
Creates the file `steady` in the folder when the load has started. After SIGTERM, waits for outstanding notifications,
prints the counts, and exits with 1 if a request failed or a notification is missing or duplicated.
"""

import collections
import http.client
import http.server
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time
import urllib.parse

CONNECTIONS = int(os.environ.get("CONNECTIONS", "32"))
# Total per second, over all connections.
REQUESTS = int(os.environ.get("REQUESTS", "120"))
# Every nth request creates an article.
CREATE_EVERY = 6
# Response time of the webhook receiver: with it, some notifications are in flight whenever a worker stops.
RECEIVER_SECONDS = 0.3
# Time limit for every wait, in seconds.
TIMEOUT = 60
SHOWN_FAILURES = 20

stopping = threading.Event()
lock = threading.Lock()
counts = collections.Counter()
failures = []
seconds = []
slugs = []
notified = collections.Counter()


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(RECEIVER_SECONDS)
        with lock:
            notified[body["data"]["article"]["slug"]] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


class Client:
    """A client with one keep-alive connection, from the given local address."""

    def __init__(self, url, address="127.0.0.1"):
        self.url = urllib.parse.urlsplit(url)
        self.address = address
        self.connection = None

    def request(self, method, path, token=None, body=None):
        """Returns the response body; raises connection errors, and UnexpectedStatus for a status other than 2xx."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if self.connection is None:
            self.connection = http.client.HTTPConnection(
                self.url.hostname, self.url.port, timeout=TIMEOUT, source_address=(self.address, 0)
            )
        try:
            self.connection.request(method, path, body and json.dumps(body), headers)
            response = self.connection.getresponse()
            content = response.read()
        except Exception:
            self.connection.close()
            self.connection = None
            raise
        if not 200 <= response.status < 300:
            raise UnexpectedStatus(response.status, content)
        return json.loads(content or "null")


class UnexpectedStatus(Exception):
    def __init__(self, status, content):
        super().__init__(f"{status} {content[:200]!r}")
        self.status = status


def one_request(client, token, number):
    if number % CREATE_EVERY == 0:
        body = {"title": f"Article {number}", "body": "x" * 1000}
        article = client.request("POST", "/api/articles/", token, body)
        with lock:
            slugs.append(article["slug"])
        return "created"
    if number % CREATE_EVERY == 1:
        client.request("GET", "/api/articles/?per_page=5")
        return "listed"
    with lock:
        slug = random.choice(slugs)
    client.request("GET", f"/api/articles/{slug}")
    return "read"


def load(url, token, numbers):
    client = Client(url)
    pause = CONNECTIONS / REQUESTS
    due = time.monotonic()
    while not stopping.is_set():
        due += pause
        time.sleep(max(0.0, due - time.monotonic()))
        started = time.monotonic()
        try:
            outcome = one_request(client, token, next(numbers))
        except Exception as error:  # every exception counts as a failed request
            outcome = "failed"
            with lock:
                failures.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
        with lock:
            counts[outcome] += 1
            seconds.append(time.monotonic() - started)


def sign_up(client, name):
    body = {"email": f"{name}@example.com", "password": "correct horse battery", "name": name}
    return client.request("POST", "/api/register", body=body)["token"]["access_token"]


def main():
    url, port, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    receiver = Server(("127.0.0.1", port), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()

    client = Client(url)
    author, reader = sign_up(client, "author"), sign_up(client, "reader")
    first = client.request("POST", "/api/articles/", author, {"title": "First", "body": "x"})["slug"]
    # A reader who favorites an article is notified of the author's next articles. The first article is not counted, because
    # its task may run before or after this request.
    client.request("POST", f"/api/articles/{first}/favorite", reader)
    slugs.append(first)

    started = time.monotonic()
    numbers = itertools.count(1)
    threads = [threading.Thread(target=load, args=(url, author, numbers)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    (folder / "steady").touch()
    stopping.wait()
    for thread in threads:
        thread.join()
    lasted = time.monotonic() - started

    created = set(slugs) - {first}
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with lock:
            if created <= notified.keys():
                break
        time.sleep(0.1)
    # Waits for late duplicates.
    time.sleep(2 * RECEIVER_SECONDS)

    with lock:
        missing = created - notified.keys()
        twice = [slug for slug in created if notified[slug] > 1]
    total = counts.total()
    waits = sorted(seconds)
    print(f"requests: {total} in {lasted:.1f} s, {total / lasted:.0f} per second over {CONNECTIONS} connections")
    print(f"  {counts['read']} articles read, {counts['listed']} lists, {counts['created']} articles created")
    print(f"  median {waits[len(waits) // 2] * 1000:.1f} ms, longest {waits[-1] * 1000:.0f} ms")
    print(f"failed requests: {counts['failed']}")
    for failure in failures[:SHOWN_FAILURES]:
        print(f"  {failure}")
    print(f"notifications: {len(created) - len(missing)} of {len(created)} arrived, {len(twice)} of them more than once")
    receiver.shutdown()
    sys.exit(1 if failures or missing or twice or not created else 0)


if __name__ == "__main__":
    main()
