"""The task of the Python task queues, and the requests that their clients read: see src/main.rs."""

import os
import sys
import time

import redis

records = redis.Redis.from_url(os.environ["RECORDS_URL"])


def now():
    """Returns the microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def run(id, sent, takes):
    """Sleeps, and then records the id and the time between sending and start."""
    if id < 0:
        return
    waited = now() - sent
    time.sleep(takes / 1000)
    records.rpush("ran", f"{id} {waited}")


def requests(send):
    """Sends tasks as requested on standard input."""
    for line in sys.stdin:
        first, count, rate, takes = line.split()
        begin = time.monotonic()
        for number in range(int(count)):
            if float(rate):
                time.sleep(max(0, begin + number / float(rate) - time.monotonic()))
            send(-1 if int(first) < 0 else int(first) + number, now(), int(takes))
        print("sent", flush=True)
