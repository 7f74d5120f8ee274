//! A cron expression comes from a configuration. Reading it never panics, and the times of one that is accepted are
//! in order and found again from the other side.

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
    let mut time = Timestamp::from_second(seconds).expect("it is in range");
    for _ in 0..5 {
        let Some(next) = schedule.next(time) else { return };
        assert!(next > time);
        assert_eq!(next.as_second() % 60, 0);
        assert_eq!(celeriac::fuzzing::last_tick(&schedule, time, next), Some(next));
        time = next;
    }
});
