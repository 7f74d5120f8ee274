"""Celery: tasks are acknowledged after they have run. Unacknowledged tasks run again 10 seconds after their delivery (by
default, after an hour)."""

import os

import job as bench
from celery import Celery

app = Celery("bench", broker=os.environ["BROKER_URL"])
app.conf.update(
    broker_transport_options={"visibility_timeout": 10},
    task_acks_late=True,
    task_ignore_result=True,
    task_reject_on_worker_lost=True,
)


@app.task(name="job")
def job(id, sent, takes):
    bench.run(id, sent, takes)


if __name__ == "__main__":
    bench.requests(job.delay)
