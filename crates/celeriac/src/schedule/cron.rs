//! Cron expressions with Celery's rules (`celery.schedules.crontab`, 5.6), in a time zone.
//!
//! Celery's rules differ from cron's in one point: a day must match both day of month and day of week, so
//! `0 0 13 * fri` is every Friday the 13th.

use std::{fmt, iter, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, Time},
    tz::{AmbiguousOffset, TimeZone},
};
use thiserror::Error;

/// Number of days to search. The longest gap between two matches is 40 years, for 29 February on a given
/// weekday across 2100.
const MAX_GAP_DAYS: usize = 366 * 41;

/// Cron expression of five fields: minute, hour, day of month, month, day of week.
///
/// Each field is a comma-separated list of `*`, `*/step`, a number, a range `from-to` or `from-to/step`. A
/// range whose end is before its start wraps around (hours `22-2`, days `fri-mon`). Months and days of the
/// week may be given by name; only the first three letters count. Sunday is 0; 7 is not accepted.
///
/// When the clocks change, an expression that names hours runs exactly once for each of its times: a time
/// that the clock skips runs later by the length of the skip, and a time that occurs twice runs at its first
/// occurrence. An expression for every hour (`*`) follows elapsed time: it runs in both occurrences of a
/// repeated hour, and does not run for a skipped hour.
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

/// Set of numbers below 60, stored as a bit mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set(u64);

impl Set {
    fn contains(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.0 & (1 << number) != 0)
    }

    fn numbers(self) -> impl Iterator<Item = i8> {
        (0..60).filter(move |number| self.contains(*number))
    }
}

/// Reason a cron expression is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CronError {
    /// The number of fields is not five.
    #[error("a cron expression has five fields (minute, hour, day of month, month, day of week), not {0}")]
    Fields(usize),
    /// A field is invalid.
    #[error(
        "invalid {field} {text:?}: expected a list of *, numbers from {first} to {last}, ranges and steps"
    )]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The invalid part of the field.
        text: String,
        /// Smallest valid number.
        first: u8,
        /// Largest valid number.
        last: u8,
    },
    /// The expression never matches: no selected month has a selected day.
    #[error("no date matches the day of month and the month")]
    Never,
}

impl FromStr for Cron {
    type Err = CronError;

    /// Parses an expression, to be evaluated in UTC.
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
        // 2024 is a leap year.
        let exists = |month| cron.days.numbers().any(|day| Date::new(2024, month, day).is_ok());
        if !cron.months.numbers().any(exists) {
            return Err(CronError::Never);
        }
        Ok(cron)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cron {
    /// Sets the time zone in which the expression is evaluated; the default is UTC.
    #[must_use]
    pub fn in_zone(self, zone: TimeZone) -> Self {
        Self { zone, ..self }
    }

    /// Returns the first time after `after`, or `None` if there is none up to the end of the year 9999.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // A time that the clock skips may move to the following day.
        let first = self.date(after).yesterday().ok()?;
        let dates = iter::successors(Some(first), |date| date.tomorrow().ok()).take(MAX_GAP_DAYS);
        let time_on = |date| self.times_on(date).into_iter().find(|time| *time > after);
        nearest(dates.map(time_on), Ord::min)
    }

    /// Returns the last time at or before `until`, if it is later than `after`.
    pub(super) fn last(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.date(after).yesterday().ok()?;
        let dates = iter::successors(Some(self.date(until)), |date| date.yesterday().ok());
        let dates = dates.take_while(|date| *date >= first);
        let time_on = |date| self.times_on(date).into_iter().rfind(|time| *time <= until);
        nearest(dates.map(time_on), Ord::max).filter(|time| *time > after)
    }

    fn date(&self, time: Timestamp) -> Date {
        self.zone.to_datetime(time).date()
    }

    /// Returns the times of a day, in order.
    fn times_on(&self, date: Date) -> Vec<Timestamp> {
        let matches = self.months.contains(date.month())
            && self.days.contains(date.day())
            && self.weekdays.contains(date.weekday().to_sunday_zero_offset());
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

/// Returns the nearest time. A skipped time may move past a time of the adjacent day, so the day after the
/// first match, in the order of `times`, is considered too.
fn nearest(
    times: impl Iterator<Item = Option<Timestamp>>,
    nearer: fn(Timestamp, Timestamp) -> Timestamp,
) -> Option<Timestamp> {
    let mut times = times.skip_while(Option::is_none);
    let found = times.next()??;
    let other = times.next().flatten();
    Some(other.map_or(found, |other| nearer(found, other)))
}

/// Name and valid values of a field.
struct Field {
    name: &'static str,
    first: u8,
    last: u8,
    /// Names of the values, separated by spaces, starting with the name of `first`.
    names: &'static str,
}

const MINUTES: Field = Field::new("minute", 0, 59, "");
const HOURS: Field = Field::new("hour", 0, 23, "");
const DAYS: Field = Field::new("day of month", 1, 31, "");
const MONTHS: Field = Field::new("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec");
const WEEKDAYS: Field = Field::new("day of week", 0, 6, "sun mon tue wed thu fri sat");

impl Field {
    const fn new(name: &'static str, first: u8, last: u8, names: &'static str) -> Self {
        Self {
            name,
            first,
            last,
            names,
        }
    }

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
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (self.number(from)?, self.number(to)?),
            None if range == "*" => (self.first, self.last),
            // Celery rejects `5/10`, which other implementations read as `5-59/10`.
            None if range == part => (self.number(range)?, self.number(range)?),
            None => return None,
        };
        let size = self.last - self.first + 1;
        let length = (to + size - from) % size + 1;
        let step = digits(step).filter(|step| *step > 0)?;
        let numbers = (0..length)
            .step_by(step.into())
            .map(|offset| self.first + (from - self.first + offset) % size)
            .fold(0, |set, number| set | 1 << number);
        Some(Set(numbers))
    }

    fn number(&self, text: &str) -> Option<u8> {
        if let Some(number) = digits(text) {
            return (self.first..=self.last).contains(&number).then_some(number);
        }
        let start = text.get(..3)?;
        if !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return None;
        }
        let mut names = (self.first..).zip(self.names.split(' '));
        let found = names.find(|(_, name)| name.eq_ignore_ascii_case(start))?;
        Some(found.0)
    }
}

/// Parses a number without a sign.
fn digits(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

#[cfg(test)]
mod tests;
