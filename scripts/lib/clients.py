"""The clients that scripts/topology and scripts/chaos share, and the receiver of the notifications that they cause.

SIGTERM ends the load: a script sets `stopping` in its handler.
"""

import http.client
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse

CONNECTIONS = int(os.environ.get("CONNECTIONS", "32"))
# Time limit for every wait, in seconds.
TIMEOUT = 60
# Password of every registered user.
PASSWORD = "correct horse battery"

stopping = threading.Event()


class UnexpectedStatus(Exception):
    def __init__(self, status, content):
        super().__init__(f"{status} {content[:200]!r}")
        self.status = status


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


def sign_up(client, name):
    """Registers a user and returns the access token."""
    body = {"email": f"{name}@example.com", "password": PASSWORD, "name": name}
    return client.request("POST", "/api/register", body=body)["token"]["access_token"]


def paced(requests):
    """Yields each time that one of CONNECTIONS threads may send a request, until `stopping` is set.

    `requests` is the number per second over all threads.
    """
    due = time.monotonic()
    while not stopping.is_set():
        # Requests that were due during a stall are not made up for.
        due = max(due + CONNECTIONS / requests, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
        yield


def run(threads, folder):
    """Runs the threads until `stopping` is set, and returns the time in seconds.

    Creates the file `steady` in the folder when they have started.
    """
    started = time.monotonic()
    for thread in threads:
        thread.start()
    (folder / "steady").touch()
    stopping.wait()
    for thread in threads:
        thread.join()
    return time.monotonic() - started


class Receiver(http.server.BaseHTTPRequestHandler):
    """Accepts all notifications. Subclasses implement `receive(body)`, which is called on several threads."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.receive(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def start_receiver(port, receiver, address="127.0.0.1"):
    """Receives notifications with a subclass of Receiver until the end of the process."""
    server = Server((address, port), receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *arguments):
        """Ignores connections that a worker closed or lost."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*arguments)
