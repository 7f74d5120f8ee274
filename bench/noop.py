"""The Python side of bench/tasks: the same no-op task, and a client that calls .delay() in a loop."""

import os
import sys
import time

from celery import Celery

app = Celery("noop", broker=os.environ["REDIS_URL"], backend=os.environ["REDIS_URL"])


@app.task(name="noop")
def noop(article_id, event):
    return None


if __name__ == "__main__":
    count = int(sys.argv[1])
    noop.delay(1, "created")
    begin = time.monotonic()
    for _ in range(count):
        noop.delay(1, "created")
    print(count / (time.monotonic() - begin))
