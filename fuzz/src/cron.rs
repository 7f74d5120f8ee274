//! Fuzzes cron expressions from configuration. Parsing never panics, the times of a valid expression are in
//! order, and the search backwards finds them too.

#![no_main]

use celeriac::Schedule;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (i64, &str)| {
    let (seconds, expression) = input;
    let Ok(schedule) = Schedule::cron(expression) else {
        return;
    };
    let range = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    if !range.contains(&seconds) {
        return;
    }
    let mut time = Timestamp::from_second(seconds).expect("the range was checked");
    for _ in 0..5 {
        let Some(next) = schedule.next(time) else { return };
        assert!(next > time);
        assert_eq!(next.as_second() % 60, 0);
        assert_eq!(celeriac::fuzzing::last_tick(&schedule, time, next), Some(next));
        time = next;
    }
});
