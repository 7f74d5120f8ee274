//! Times by a cron expression with Celery's rules (`celery.schedules.crontab`, 5.6), in a time zone.
//!
//! They differ from cron's own in one point: a day must match day-of-month **and** day-of-week, so `0 0 13 * fri` is
//! every Friday the 13th.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone},
};
use thiserror::Error;

/// No expression that matches at all goes longer without: a 29th of February on a given weekday comes after 40
/// years at the latest (across 2100).
const HORIZON_DAYS: usize = 366 * 41;

/// An expression of five fields: minute, hour, day of month, month, day of week.
///
/// Each is a list, separated by commas, of `*`, `*/step`, a number, a range `from-to` or `from-to/step`. A range
/// whose end comes before its start goes round (`22-2` hours, `fri-mon`). Months and days of the week may be
/// named; the first three letters count. Sunday is 0, and there is no 7.
///
/// Where clocks change, an expression that names hours runs exactly once for each of its times: one that the clock
/// jumps over runs as much later as the clock jumps, one that comes twice runs the first time. An
/// expression for every hour (`*`) goes by the time that really passes: it runs in both of two equal hours, and not
/// for one that does not exist.
#[derive(Debug, Clone)]
pub struct Cron {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    zone: TimeZone,
    text: String,
}

/// Small numbers, one a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.0 & (1 << number) != 0)
    }

    fn numbers(self) -> impl Iterator<Item = i8> {
        (0..60).filter(move |number| self.has(*number))
    }
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CronError {
    /// It has another number of fields.
    #[error("a cron expression has five fields, not {0}: minute, hour, day of month, month, day of week")]
    Fields(usize),
    /// One of its fields is not understood.
    #[error(
        "{field} cannot be {text:?}: it is a list of *, numbers from {first} to {last}, ranges and steps"
    )]
    Field {
        /// Which.
        field: &'static str,
        /// The part that is wrong.
        text: String,
        /// The smallest number that it may hold.
        first: u8,
        /// The largest.
        last: u8,
    },
    /// No month has such a day.
    #[error("no such day ever comes")]
    Never,
}

impl FromStr for Cron {
    type Err = CronError;

    /// Reads an expression in UTC.
    fn from_str(text: &str) -> Result<Self, CronError> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(CronError::Fields(fields.len()));
        };
        let cron = Self {
            minutes: MINUTES.read(minutes)?,
            hours: HOURS.read(hours)?,
            days: DAYS.read(days)?,
            months: MONTHS.read(months)?,
            weekdays: WEEKDAYS.read(weekdays)?,
            zone: TimeZone::UTC,
            text: fields.join(" "),
        };
        let comes = |month: i8| {
            let longest = match month {
                2 => 29,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            cron.days.numbers().any(|day| day <= longest)
        };
        if cron.months.numbers().any(comes) {
            Ok(cron)
        } else {
            Err(CronError::Never)
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cron {
    /// The same times by the clocks of this zone.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// The first time after `after`; `None` at the end of all time.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // A time that the clock jumps over may end up on the day after its own.
        let mut date = self.date(after).yesterday().ok()?;
        let mut found = None;
        for _ in 0..HORIZON_DAYS {
            let here = self.on(date).into_iter().find(|time| *time > after);
            match (found, here) {
                (Some(found), Some(here)) => return Some(here.min(found)),
                (Some(found), None) => return Some(found),
                (None, here) => found = here,
            }
            let Ok(tomorrow) = date.tomorrow() else { break };
            date = tomorrow;
        }
        found
    }

    /// The last time at or before `until`, if it is after `after`.
    pub(super) fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.date(after).yesterday().ok()?;
        let mut date = self.date(until);
        let mut found: Option<Timestamp> = None;
        while date >= first {
            let here = self.on(date).into_iter().rfind(|time| *time <= until);
            match (found, here) {
                (Some(found), Some(here)) => return Some(here.max(found)).filter(|time| *time > after),
                (Some(found), None) => return Some(found).filter(|time| *time > after),
                (None, here) => found = here,
            }
            let Ok(yesterday) = date.yesterday() else { break };
            date = yesterday;
        }
        found.filter(|time| *time > after)
    }

    fn date(&self, time: Timestamp) -> Date {
        self.zone.to_datetime(time).date()
    }

    /// The times that belong to a day, in order.
    fn on(&self, date: Date) -> Vec<Timestamp> {
        let matches = self.months.has(date.month())
            && self.days.has(date.day())
            && self.weekdays.has(date.weekday().to_sunday_zero_offset());
        if !matches {
            return Vec::new();
        }
        let every_hour = self.hours == HOURS.all();
        let mut times = Vec::new();
        for hour in self.hours.numbers() {
            for minute in self.minutes.numbers() {
                let civil = date.to_datetime(Time::constant(hour, minute, 0, 0));
                let resolved = self.zone.to_ambiguous_timestamp(civil);
                match resolved.offset() {
                    AmbiguousOffset::Gap { .. } if every_hour => {}
                    AmbiguousOffset::Fold { .. } if every_hour => {
                        times.extend(resolved.earlier());
                        times.extend(resolved.later());
                    }
                    _ => times.extend(resolved.compatible()),
                }
            }
        }
        times.sort_unstable();
        times.dedup();
        times
    }
}

/// What a field may hold.
struct Field {
    name: &'static str,
    first: u8,
    last: u8,
    /// Names of the numbers from `first` on.
    names: &'static [&'static str],
}

const MINUTES: Field = Field {
    name: "the minute",
    first: 0,
    last: 59,
    names: &[],
};
const HOURS: Field = Field {
    name: "the hour",
    first: 0,
    last: 23,
    names: &[],
};
const DAYS: Field = Field {
    name: "the day of month",
    first: 1,
    last: 31,
    names: &[],
};
const MONTHS: Field = Field {
    name: "the month",
    first: 1,
    last: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
};
const WEEKDAYS: Field = Field {
    name: "the day of week",
    first: 0,
    last: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

impl Field {
    const fn all(&self) -> Set {
        Set((1 << (self.last + 1)) - (1 << self.first))
    }

    fn read(&self, text: &str) -> Result<Set, CronError> {
        let mut numbers = 0;
        for part in text.split(',') {
            let Some(Set(more)) = self.part(part) else {
                return Err(CronError::Field {
                    field: self.name,
                    text: part.chars().take(40).collect(),
                    first: self.first,
                    last: self.last,
                });
            };
            numbers |= more;
        }
        Ok(Set(numbers))
    }

    fn part(&self, part: &str) -> Option<Set> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(digits(step)?)),
            None => (part, None),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (self.first, self.last),
            (_, Some((from, to))) => (self.number(from)?, self.number(to)?),
            (number, None) if step.is_none() => (self.number(number)?, self.number(number)?),
            // Celery refuses `5/10`, which elsewhere means `5-59/10`.
            _ => return None,
        };
        let round = self.last - self.first + 1;
        let length = (to + round - from) % round + 1;
        let step = usize::from(step.unwrap_or(1));
        if step == 0 {
            return None;
        }
        let numbers = (0..length)
            .step_by(step)
            .map(|offset| self.first + (from - self.first + offset) % round)
            .fold(0, |set, number| set | 1 << number);
        Some(Set(numbers))
    }

    fn number(&self, text: &str) -> Option<u8> {
        if let Some(number) = digits(text) {
            return (self.first..=self.last).contains(&number).then_some(number);
        }
        let start = text.get(..3)?.to_ascii_lowercase();
        if !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let place = self.names.iter().position(|name| *name == start)?;
        Some(self.first + u8::try_from(place).ok()?)
    }
}

/// A number without a sign.
fn digits(text: &str) -> Option<u8> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;
