"""The current fault of a chaos run, and the figures and broken promises that are attributed to it."""

import collections
import pathlib
import threading
import time

# Shortest duration of each fault in seconds. Faults that requests might wait for last longer than WAIT_LIMIT, which a
# request that waited for the end of the fault would exceed.
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
    "redis_full": 7,
    "redis_paused": 7,
    "log_stalled": 7,
    "clients_not_reading": 7,
    "login_storm": 6,
    "signals": 1,
}
# Faults during which readiness may be 503.
WITHOUT_POSTGRES = {"postgres_stopped", "postgres_killed", "postgres_paused", "fail_over", "disk_full"}

WRITES = {"create", "update", "favourite", "register"}
# Operations that compute a password hash, and wait for their turn in a login storm.
HASHING = {"login", "register"}

# The promises: waits and the recovery in seconds, memory in MiB.
WAIT_LIMIT = 5
LOGIN_WAIT_LIMIT = 35
MEMORY_LIMIT = 128
RECOVERY_LIMIT = 10

lock = threading.Lock()


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
        # Hostile clients of a fault: a function that runs them until its argument, an event, is set.
        self.hostile = {}
        self.healed = None
        self.recovered = True
        self.figures = collections.defaultdict(Figures)
        self.violations = collections.Counter()
        self.examples = {}
        # Number of responses other than 2xx, by status.
        self.failed = collections.Counter()

    def violation(self, kind, fault, detail=""):
        with lock:
            key = kind if fault == "none" else f"{kind} ({fault})"
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

    def record(self, operation, status, started, fault, detail=""):
        """Records one request, sent during `fault`; `status` is 200 for any success, None if there was no response."""
        now = time.monotonic()
        wait = now - started
        with lock:
            figures = self.figures[fault]
            figures.requests += 1
            figures.succeeded += status == 200
            figures.unavailable += status == 503
            if status != 200:
                self.failed["no response" if status is None else status] += 1
            queued = fault == "login_storm" and operation in HASHING
            if not queued:
                figures.longest = max(figures.longest, wait)
            if operation == "read" and status == 200:
                figures.reads.append(wait)
            recovery = 0
            if self.healed and not self.recovered and started > self.healed and operation in WRITES and status == 200:
                self.recovered = True
                recovery = now - self.healed
                figures.recovery = max(figures.recovery, recovery)
                (self.folder / "recovered").touch()
        if recovery > RECOVERY_LIMIT:
            self.violation("writes succeeded too late after the fault", fault, f"{recovery:.1f} s")
        if status is None:
            self.violation("no response", fault, f"{operation}: {detail}")
        elif status not in (200, 503):
            self.violation(f"status {status}", fault, f"{operation}: {detail}")
        if wait > (LOGIN_WAIT_LIMIT if queued else WAIT_LIMIT):
            self.violation("response too late", fault, f"{operation}: {wait:.1f} s, status {status}")

    def record_storm(self, status, seconds):
        with lock:
            self.figures["login_storm"].storm[status] += 1
        if status not in (200, 401, 429, 503):
            self.violation(f"status {status}", "login_storm", "login in a storm")
        if seconds > LOGIN_WAIT_LIMIT:
            self.violation("response too late", "login_storm", f"login in a storm: {seconds:.1f} s")
