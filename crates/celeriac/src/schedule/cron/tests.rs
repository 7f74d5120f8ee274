use serde::Deserialize;

use super::*;

fn cron(expression: &str) -> Cron {
    expression
        .parse()
        .unwrap_or_else(|error| panic!("{expression}: {error}"))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Berlin's daylight saving rule, without a time zone database.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn following(cron: &Cron, start: &str, count: usize) -> Vec<String> {
    let next = |time: &Timestamp| cron.next(*time);
    std::iter::successors(Some(at(start)), next)
        .skip(1)
        .take(count)
        .map(|time| time.to_string())
        .collect()
}

#[derive(Deserialize)]
struct Case {
    expression: String,
    zone: String,
    start: Timestamp,
    due: Vec<Timestamp>,
}

/// The expected times were computed by Celery; see `tests/python/cron_vectors.py`.
#[test]
fn times_match_celery() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/vectors/cron.json")).unwrap();
    let mut compared = 0;
    for case in &cases {
        let zone = match case.zone.as_str() {
            "UTC" => TimeZone::UTC,
            "Europe/Berlin" => berlin(),
            other => panic!("{other}"),
        };
        let cron = cron(&case.expression).in_zone(zone);
        let mut time = case.start;
        for expected in &case.due {
            let next = cron.next(time);
            assert_eq!(next, Some(*expected), "{cron} in {} after {time}", case.zone);
            time = *expected;
            compared += 1;
        }
    }
    assert!(cases.len() >= 120 && compared > 600, "{compared}");
}

#[test]
fn searching_backward_finds_the_same_times_as_forward() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/vectors/cron.json")).unwrap();
    for case in cases.iter().filter(|case| case.zone == "UTC") {
        let cron = cron(&case.expression);
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        let mut before = case.start;
        for time in &case.due {
            assert_eq!(cron.last(before, *time), Some(*time), "{cron} at {time}");
            assert_eq!(
                cron.last(before, *time - nanosecond),
                None,
                "{cron} before {time}"
            );
            assert_eq!(
                cron.last(case.start, *time + nanosecond),
                Some(*time),
                "{cron} after {time}"
            );
            before = *time;
        }
    }
}

#[test]
fn a_skipped_time_runs_once_and_later() {
    // 2027-03-28 has no hour from 02:00 to 03:00.
    let daily = cron("30 2 * * *").in_zone(berlin());
    assert_eq!(
        following(&daily, "2027-03-26T12:00:00Z", 3),
        [
            "2027-03-27T01:30:00Z",
            "2027-03-28T01:30:00Z",
            "2027-03-29T00:30:00Z"
        ]
    );
    // On that day 02:30 and 03:30 are the same instant.
    let twice = cron("30 2,3 * * *").in_zone(berlin());
    assert_eq!(
        following(&twice, "2027-03-27T12:00:00Z", 2),
        ["2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"]
    );
}

#[test]
fn a_repeated_time_runs_at_its_first_occurrence() {
    // On 2026-10-25 the hour from 02:00 to 03:00 occurs twice.
    let daily = cron("30 2 * * *").in_zone(berlin());
    assert_eq!(
        following(&daily, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    assert_eq!(
        daily.last(at("2026-10-24T12:00:00Z"), at("2026-10-25T01:30:00Z")),
        Some(at("2026-10-25T00:30:00Z"))
    );
}

#[test]
fn an_expression_for_every_hour_follows_elapsed_time() {
    let half_hourly = cron("*/30 * * * *").in_zone(berlin());
    let expected: Vec<String> = [
        "00:00", "00:30", "01:00", "01:30", "02:00", "02:30", "03:00", "03:30",
    ]
    .iter()
    .map(|time| format!("2026-10-25T{time}:00Z"))
    .collect();
    assert_eq!(following(&half_hourly, "2026-10-24T23:30:00Z", 8), expected);
    let expected = expected
        .iter()
        .map(|time| time.replace("2026-10-25", "2027-03-28"));
    assert_eq!(
        following(&half_hourly, "2027-03-27T23:30:00Z", 8),
        expected.collect::<Vec<_>>()
    );
}

#[test]
fn a_time_skipped_at_midnight_moves_to_the_next_day() {
    // On 1 June the clock goes from 23:30 to 00:30.
    let zone = TimeZone::posix("AAA0BBB,M6.1.1/23:30,M9.1.1").unwrap();
    let late = cron("45 23 * * *").in_zone(zone);
    let days = following(&late, "2026-05-31T00:00:00Z", 3);
    assert_eq!(
        days,
        [
            "2026-05-31T23:45:00Z",
            "2026-06-01T23:45:00Z",
            "2026-06-02T22:45:00Z"
        ]
    );
    assert_eq!(
        late.last(at("2026-05-31T23:45:00Z"), at("2026-06-02T00:00:00Z")),
        Some(at("2026-06-01T23:45:00Z"))
    );
}

#[test]
fn an_error_names_the_field_of_an_invalid_expression() {
    for (expression, expected) in [
        (
            "",
            "a cron expression has five fields (minute, hour, day of month, month, day of week), not 0",
        ),
        (
            "* * * *",
            "a cron expression has five fields (minute, hour, day of month, month, day of week), not 4",
        ),
        (
            "* * * * * *",
            "a cron expression has five fields (minute, hour, day of month, month, day of week), not 6",
        ),
        ("60 * * * *", "invalid minute \"60\""),
        ("* 24 * * *", "invalid hour \"24\""),
        ("* * 0 * *", "invalid day of month \"0\""),
        ("* * * 13 *", "invalid month \"13\""),
        ("* * * * 7", "invalid day of week \"7\""),
        ("*/0 * * * *", "invalid minute \"*/0\""),
        ("5/10 * * * *", "invalid minute \"5/10\""),
        ("1,,2 * * * *", "invalid minute \"\""),
        ("-1 * * * *", "invalid minute \"-1\""),
        ("+1 * * * *", "invalid minute \"+1\""),
        ("1-2-3 * * * *", "invalid minute \"1-2-3\""),
        ("1- * * * *", "invalid minute \"1-\""),
        ("*/ * * * *", "invalid minute \"*/\""),
        ("*/999 * * * *", "invalid minute \"*/999\""),
        ("**/2 * * * *", "invalid minute \"**/2\""),
        ("* jan * * *", "invalid hour \"jan\""),
        ("* * * * mo", "invalid day of week \"mo\""),
        ("* * * * mon1", "invalid day of week \"mon1\""),
        ("* * * * дни", "invalid day of week \"дни\""),
        ("* * L * *", "invalid day of month \"L\""),
        ("0 0 30 feb *", "no date matches the day of month and the month"),
        (
            "0 0 31 4,6,9,11 *",
            "no date matches the day of month and the month",
        ),
    ] {
        let error = expression.parse::<Cron>().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{expression}: {error}");
    }
}

#[test]
fn extreme_times_do_not_panic() {
    let rare = cron("0 0 29 2 mon");
    assert_eq!(rare.next(Timestamp::MAX), None);
    assert_eq!(rare.next(at("9990-01-01T00:00:00Z")), None);
    assert_eq!(cron("* * * * *").last(Timestamp::MIN, Timestamp::MIN), None);
}
