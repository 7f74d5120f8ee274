"""Tasks for a Python worker, which examples/producer.rs sends: celery -A worker worker -E -n python@%h"""

import os

from celery import Celery

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
app = Celery("shop", broker=url, backend=url)
app.conf.task_default_queue = "python"


@app.task(name="shop.add")
def add(a, b):
    return a + b


@app.task(name="shop.total")
def total(numbers):
    return sum(numbers)


@app.task(name="shop.broken")
def broken():
    raise ValueError("not today")
