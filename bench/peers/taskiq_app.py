"""taskiq on Redis streams: tasks are acknowledged after they have run, and claimed by another worker after 10 seconds (by default
600)."""

import asyncio
import os

import job as bench
import redis.asyncio
from taskiq_redis import RedisStreamBroker

broker = RedisStreamBroker(os.environ["BROKER_URL"], consumer_id="0", idle_timeout=10_000, unacknowledged_lock_timeout=10)
records = redis.asyncio.Redis.from_url(os.environ["RECORDS_URL"])


@broker.task(task_name="job")
async def job(id: int, sent: int, takes: int) -> None:
    if id < 0:
        return
    waited = bench.now() - sent
    await asyncio.sleep(takes / 1000)
    await records.rpush("ran", f"{id} {waited}")


if __name__ == "__main__":
    with asyncio.Runner() as runner:
        runner.run(broker.startup())
        bench.requests(lambda *arguments: runner.run(job.kiq(*arguments)))
