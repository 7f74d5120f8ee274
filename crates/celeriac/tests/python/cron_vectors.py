"""Writes tests/vectors/cron.json: the next due times as computed by Celery's crontab.

    <python with celery> tests/python/cron_vectors.py > tests/vectors/cron.json

Generated with Celery 5.6.3; 5.7.0 computes the same times. Clock changes are excluded, because celeriac
intentionally handles them differently.
"""

import json
import sys
from datetime import datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from celery import Celery
from celery.schedules import crontab

EXPRESSIONS = [
    "* * * * *",
    "*/15 * * * *",
    "*/7 * * * *",
    "0 * * * *",
    "59 23 * * *",
    "0 0 1 1 *",
    "0 0 29 2 *",
    "30 3 * * *",
    "0,30 8-17 * * mon-fri",
    "0 0 13 * fri",
    "5 4 * * sun",
    "0 22-2 * * *",
    "0 22-5/2 * * *",
    "*/20 9-17/4 * * *",
    "0 0 31 * *",
    "0 0 30 4,6,9,11 *",
    "15 14 1 * *",
    "0 12 1-7 * mon",
    "0 0 */2 * *",
    "0 0 */3 */2 *",
    "10 10 * nov-feb *",
    "10 10 * january,July *",
    "0 6 * * sat,sun",
    "0 6 * * fri-mon",
    "0 6 * * */2",
    "1,2,3,58-1 0 * * *",
    "0 0 29 2 mon",
    "45 23 28-31 12 *",
    "*/59 */23 * * *",
    "0 0 1-7,15-21 * monday",
    "7-7 7-7 7-7 * *",
    "3-40/13 1,5-7 10-20/5 mar-oct/3 tue-sat/2",
]

STARTS = {
    "UTC": ["2026-11-22T12:34:56", "2027-12-31T23:59:00", "2028-02-28T00:00:00"],
    "Europe/Berlin": ["2026-06-10T07:30:00"],
}


def series(expression, zone, start, count):
    app = Celery()
    app.conf.timezone = zone.key
    last = start
    for _ in range(count):
        schedule = crontab.from_string(expression)
        schedule.app = app
        schedule.nowfun = lambda last=last: last
        last = last + schedule.remaining_estimate(last)
        last = last.astimezone(zone)
        # Rounded because Celery's estimate is a difference of clocks.
        last = (last + timedelta(milliseconds=500)).replace(microsecond=0)
        yield last


cases = []
for expression in EXPRESSIONS:
    for name, starts in STARTS.items():
        zone = ZoneInfo(name)
        for start in starts:
            begin = datetime.fromisoformat(start).replace(tzinfo=zone)
            due = list(series(expression, zone, begin, 6))
            due = list(takewhile(lambda time: time.utcoffset() == begin.utcoffset(), due))
            cases.append(
                {
                    "expression": expression,
                    "zone": name,
                    "start": begin.isoformat(),
                    "due": [time.isoformat() for time in due],
                }
            )

lines = ",\n".join(json.dumps(case) for case in cases)
sys.stdout.write(f"[\n{lines}\n]\n")
