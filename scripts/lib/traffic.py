"""Generates steady traffic through a proxy, counts failures, and receives the resulting notifications.

    traffic.py <url of the API> <[address:]port of the webhook receiver> <folder> [faults]

Registers an author and a reader who is notified of each new article, then reads and creates articles until SIGTERM.
Creates the file `steady` in the folder when the load has started. After SIGTERM, waits for outstanding notifications,
prints the counts, and exits with 1 if a request failed or a notification is missing or duplicated. With `faults`, processes
are killed during the load: requests may fail and notifications may be duplicated, but every article whose creation was
acknowledged must be notified. The file `acknowledged` in the folder lists these articles.
"""

import collections
import itertools
import os
import pathlib
import random
import signal
import sys
import threading
import time

import clients
from clients import CONNECTIONS, TIMEOUT

# Total per second, over all connections.
REQUESTS = int(os.environ.get("REQUESTS", "120"))
# Every nth request creates an article.
CREATE_EVERY = 6
# Response time of the webhook receiver in seconds, so that some notifications are in flight whenever a worker stops.
RECEIVER_SECONDS = 0.3
SHOWN_FAILURES = 20

lock = threading.Lock()
counts = collections.Counter()
failures = []
seconds = []
slugs = []
notified = collections.Counter()


class Receiver(clients.Receiver):
    def receive(self, body):
        time.sleep(RECEIVER_SECONDS)
        with lock:
            notified[body["data"]["article"]["slug"]] += 1


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
    client = clients.Client(url)
    for _ in clients.paced(REQUESTS):
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


def main():
    url, receiver, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    faults = sys.argv[4:] == ["faults"]
    signal.signal(signal.SIGTERM, lambda *_: clients.stopping.set())
    address, _, port = receiver.rpartition(":")
    clients.start_receiver(int(port), Receiver, address or "127.0.0.1")

    client = clients.Client(url)
    # A server may have the users of an earlier run.
    run = f"{time.time():.0f}"
    author, reader = clients.sign_up(client, f"author-{run}"), clients.sign_up(client, f"reader-{run}")
    first = client.request("POST", "/api/articles/", author, {"title": "First", "body": "x"})["slug"]
    # A reader who favorites an article is notified of the author's later articles. The first article is not counted, because
    # its own notification may be sent before or after the reader favorites it.
    client.request("POST", f"/api/articles/{first}/favorite", reader)
    slugs.append(first)

    numbers = itertools.count(1)
    threads = [threading.Thread(target=load, args=(url, author, numbers)) for _ in range(CONNECTIONS)]
    duration = clients.run(threads, folder)

    created = set(slugs) - {first}
    (folder / "acknowledged").write_text("\n".join(sorted(created)))
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with lock:
            if created <= notified.keys():
                break
        time.sleep(0.1)
    # Time for a late duplicate to arrive.
    time.sleep(2 * RECEIVER_SECONDS)

    with lock:
        missing = created - notified.keys()
        twice = [slug for slug in created if notified[slug] > 1]
    total = counts.total()
    waits = sorted(seconds)
    print(f"requests: {total} in {duration:.1f} s, {total / duration:.0f} per second over {CONNECTIONS} connections")
    print(f"  {counts['read']} articles read, {counts['listed']} lists, {counts['created']} articles created")
    print(f"  median {waits[len(waits) // 2] * 1000:.1f} ms, longest {waits[-1] * 1000:.0f} ms")
    print(f"failed requests: {counts['failed']}")
    for failure in failures[:SHOWN_FAILURES]:
        print(f"  {failure}")
    print(f"notifications: {len(created) - len(missing)} of {len(created)} arrived, {len(twice)} of them more than once")
    for slug in sorted(missing)[:SHOWN_FAILURES]:
        print(f"  not notified: {slug}")
    sys.exit(1 if missing or not created or not faults and (failures or twice) else 0)


if __name__ == "__main__":
    main()
