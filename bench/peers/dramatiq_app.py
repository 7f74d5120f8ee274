"""dramatiq on Redis: tasks are acknowledged after they have run, and queued again 10 seconds after the last heartbeat of their
worker (by default 60); one command in ten looks for such workers (by default one in a thousand)."""

import os

import dramatiq
import job as bench
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BROKER_URL"], heartbeat_timeout=10_000, maintenance_chance=100_000))


@dramatiq.actor(actor_name="job")
def job(id, sent, takes):
    bench.run(id, sent, takes)


if __name__ == "__main__":
    bench.requests(job.send)
