"""The Python side of bench/tasks: the same no-op task, and clients that send it and wait for its results."""

import os
import sys
import time

from celery import Celery

app = Celery("noop", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task(name="noop")
def noop(article_id, event):
    return None


def sends(count):
    """Returns the sends per second of a loop."""
    noop.apply_async((1, "created"), ignore_result=True)
    begin = time.monotonic()
    for _ in range(count):
        noop.apply_async((1, "created"), ignore_result=True)
    return count / (time.monotonic() - begin)


def round_trips(count):
    """Returns the tasks per second of .delay() and .get() for every result, while a worker runs."""
    noop.delay(1, "created").get(timeout=60)
    begin = time.monotonic()
    for result in [noop.delay(1, "created") for _ in range(count)]:
        result.get(timeout=60)
    return count / (time.monotonic() - begin)


if __name__ == "__main__":
    print({"sends": sends, "round_trips": round_trips}[sys.argv[1]](int(sys.argv[2])))
