"""Sends tasks to the Rust worker in examples/worker.rs and reads their results."""

import os

from celery import Celery

url = os.environ.get("REDIS_URL", "redis://localhost:6379/0")
app = Celery("shop", broker=url, backend=url)
app.conf.task_default_queue = "rust"


def main():
    invoice = app.signature("shop.invoice")
    result = invoice.delay({"number": 7, "cents": 1250}, currency="EUR")
    print("invoice:", result.get(timeout=30))

    result = app.send_task("shop.flaky")
    print("flaky succeeded on retry", result.get(timeout=30))

    # The worker reports NotRegistered and continues.
    result = app.send_task("shop.unknown")
    print("unknown:", type(result.get(timeout=30, propagate=False)).__name__)


if __name__ == "__main__":
    main()
