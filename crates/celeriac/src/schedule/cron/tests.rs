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

/// Berlin's rule, without a time zone database.
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

/// The expected times were computed by Celery: see `tests/python/cron_vectors.py`.
#[test]
fn times_are_those_of_celery() {
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
fn looking_back_finds_what_looking_forward_found() {
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
fn a_time_that_the_clock_jumps_over_runs_once_and_later() {
    // 2027-03-28 has no 02:00 to 03:00.
    let daily = cron("30 2 * * *").in_zone(berlin());
    assert_eq!(
        following(&daily, "2027-03-26T12:00:00Z", 3),
        [
            "2027-03-27T01:30:00Z",
            "2027-03-28T01:30:00Z",
            "2027-03-29T00:30:00Z"
        ]
    );
    // 02:30 and 03:30 are the same instant then.
    let twice = cron("30 2,3 * * *").in_zone(berlin());
    assert_eq!(
        following(&twice, "2027-03-27T12:00:00Z", 2),
        ["2027-03-28T01:30:00Z", "2027-03-29T00:30:00Z"]
    );
}

#[test]
fn a_time_that_comes_twice_runs_the_first_time() {
    // 2026-10-25 has 02:00 to 03:00 twice.
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
fn an_expression_for_every_hour_goes_by_the_time_that_passes() {
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
fn a_jump_over_midnight_moves_a_time_to_the_next_day() {
    // The clock goes from 23:30 to 00:30 on the first of June.
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
fn what_cannot_be_understood_is_refused_with_its_field() {
    for (expression, expected) in [
        ("", "a cron expression has five fields, not 0"),
        ("* * * *", "a cron expression has five fields, not 4"),
        ("* * * * * *", "a cron expression has five fields, not 6"),
        ("60 * * * *", "the minute cannot be \"60\""),
        ("* 24 * * *", "the hour cannot be \"24\""),
        ("* * 0 * *", "the day of month cannot be \"0\""),
        ("* * * 13 *", "the month cannot be \"13\""),
        ("* * * * 7", "the day of week cannot be \"7\""),
        ("*/0 * * * *", "the minute cannot be \"*/0\""),
        ("5/10 * * * *", "the minute cannot be \"5/10\""),
        ("1,,2 * * * *", "the minute cannot be \"\""),
        ("-1 * * * *", "the minute cannot be \"-1\""),
        ("+1 * * * *", "the minute cannot be \"+1\""),
        ("1-2-3 * * * *", "the minute cannot be \"1-2-3\""),
        ("1- * * * *", "the minute cannot be \"1-\""),
        ("*/ * * * *", "the minute cannot be \"*/\""),
        ("*/999 * * * *", "the minute cannot be \"*/999\""),
        ("**/2 * * * *", "the minute cannot be \"**/2\""),
        ("* jan * * *", "the hour cannot be \"jan\""),
        ("* * * * mo", "the day of week cannot be \"mo\""),
        ("* * * * mon1", "the day of week cannot be \"mon1\""),
        ("* * * * дни", "the day of week cannot be \"дни\""),
        ("* * L * *", "the day of month cannot be \"L\""),
        ("0 0 30 feb *", "no such day ever comes"),
        ("0 0 31 4,6,9,11 *", "no such day ever comes"),
    ] {
        let error = expression.parse::<Cron>().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{expression}: {error}");
    }
}

#[test]
fn the_end_of_all_time_is_no_panic() {
    let rare = cron("0 0 29 2 mon");
    assert_eq!(rare.next(Timestamp::MAX), None);
    assert_eq!(rare.next(at("9990-01-01T00:00:00Z")), None);
    assert_eq!(cron("* * * * *").last(Timestamp::MIN, Timestamp::MIN), None);
}
