"""The parts of scripts/alarms that are not shell.

    alarms.py rules <file>                   prints the alert rules with every time divided by SPEED
    alarms.py load <url of the API> <file>   sends the requests that the file names, until SIGTERM
    alarms.py receive <port> <file>          answers every POST request with the status in the file, until SIGTERM

The load's file has one line: the kind of requests, and the number of threads. It is read again before each request.
"""

import http.server
import itertools
import pathlib
import re
import sys
import threading
import time

import clients

# The dispatcher pauses for up to five seconds between attempts while Redis fails, which the shortest range must exceed.
SPEED = 20
# Seconds between two requests of a thread.
PAUSE = 0.2
MAX_THREADS = 32


def shortened(rules):
    """Divides durations and ages by SPEED, and lowers the limits of memory and of failed logins."""
    minute = 60 // SPEED
    rules = rules.replace("[1h]", "[60m]")
    rules = re.sub(r"(\[|offset |for: )(\d+)m\b", lambda found: f"{found[1]}{int(found[2]) * minute}s", rules)
    rules, ages = re.subn(
        r"((?:_age|uptime)_seconds\)? [<>] )(\d+)", lambda found: f"{found[1]}{int(found[2]) // SPEED}", rules
    )
    assert ages == 4, ages
    lowered = [("> 512 * 1024 * 1024", "> 1"), ('"invalid_credentials"}[15s])) > 10', '"invalid_credentials"}[15s])) > 0.5')]
    for limit, low in lowered:
        assert limit in rules, limit
        rules = rules.replace(limit, low)
    return rules


class Load:
    def __init__(self, url, file):
        self.url, self.file, self.numbers = url, file, itertools.count(2)
        client = clients.Client(url)
        self.author, self.reader = clients.sign_up(client, "author"), clients.sign_up(client, "reader")
        # A reader who favorites an article is notified of its author's later ones.
        self.slug = self.create(client)["slug"]
        client.request("POST", f"/api/articles/{self.slug}/favorite", self.reader)

    def create(self, client):
        body = {"title": f"Article {next(self.numbers)}", "body": "x"}
        return client.request("POST", "/api/articles/", self.author, body)

    def request(self, client, kind):
        match kind:
            case "create":
                self.create(client)
            case "favorite":
                client.request("POST", f"/api/articles/{self.slug}/favorite", self.author)
            case "list":
                client.request("GET", "/api/articles/?per_page=5")
            case "login":
                body = {"email": "author@example.com", "password": "wrong password"}
                client.request("POST", "/api/login", body=body)

    def run(self, index):
        client = clients.Client(self.url)
        while not clients.stopping.wait(PAUSE):
            kind, threads = self.file.read_text().split()
            if index < int(threads):
                try:
                    self.request(client, kind)
                except Exception:  # many of these requests are meant to fail
                    pass


def receive(port, file):
    class Receiver(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(int(file.read_text()))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", port), Receiver).serve_forever()


def main():
    if sys.argv[1] == "rules":
        print(shortened(pathlib.Path(sys.argv[2]).read_text()), end="")
    elif sys.argv[1] == "receive":
        receive(int(sys.argv[2]), pathlib.Path(sys.argv[3]))
    else:
        load = Load(sys.argv[2], pathlib.Path(sys.argv[3]))
        for index in range(MAX_THREADS):
            threading.Thread(target=load.run, args=(index,), daemon=True).start()
        while True:
            time.sleep(1)


if __name__ == "__main__":
    main()
