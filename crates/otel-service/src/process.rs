//! Metrics of the process, following the process conventions (OpenTelemetry semantic conventions 1.44,
//! release candidate), and of its log output. The former are read from `/proc/self` whenever metrics are collected; on
//! systems without it, only `process.uptime` is reported.

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::metrics::observe_count;
use crate::names::metric;
use crate::output::{STDERR, STDOUT};
use crate::platform::CLOCK_TICKS;

/// Registers the instruments. `process.uptime` counts from the first call.
pub(crate) fn observe(meter: &Meter) {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    let started = *STARTED.get_or_init(Instant::now);
    meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("The time the process has been running.")
        .with_callback(move |observer| observer.observe(started.elapsed().as_secs_f64(), &[]))
        .build();
    let of_mode = |mode: &'static str| [KeyValue::new("cpu.mode", mode)];
    let (user, system) = (of_mode("user"), of_mode("system"));
    meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("Total CPU seconds broken down by different CPU modes.")
        .with_callback(move |observer| {
            if let Some((user_time, system_time)) = read("stat").as_deref().and_then(cpu_time) {
                observer.observe(user_time, &user);
                observer.observe(system_time, &system);
            }
        })
        .build();
    observe_count(
        meter,
        "process.memory.usage",
        "By",
        "The amount of physical memory in use.",
        || status(&read("status")?, "VmRSS"),
    );
    observe_count(
        meter,
        "process.memory.virtual",
        "By",
        "The amount of committed virtual memory.",
        || status(&read("status")?, "VmSize"),
    );
    observe_count(
        meter,
        "process.thread.count",
        "{thread}",
        "Process threads count.",
        || status(&read("status")?, "Threads"),
    );
    observe_count(
        meter,
        "process.unix.file_descriptor.count",
        "{file_descriptor}",
        "Number of UNIX file descriptors in use by the process.",
        file_descriptors,
    );
    let outputs = [("stdout", &STDOUT), ("stderr", &STDERR)];
    let outputs = outputs.map(|(stream, output)| ([KeyValue::new("log.iostream", stream)], output));
    meter
        .u64_observable_counter(metric::LOG_OUTPUT_DROPPED)
        .with_unit("{line}")
        .with_description("Log lines dropped because the reader of the output stalled.")
        .with_callback(move |observer| {
            for (stream, output) in &outputs {
                observer.observe(output.dropped_in_total(), stream);
            }
        })
        .build();
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// Returns the user and system time in seconds from `/proc/self/stat` (proc_pid_stat(5)), whose 14th and 15th
/// fields are times in clock ticks.
fn cpu_time(stat: &str) -> Option<(f64, f64)> {
    // The second field is the program name in parentheses, which may itself contain spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<f64>);
    Some((
        times.next()?.ok()? / CLOCK_TICKS,
        times.next()?.ok()? / CLOCK_TICKS,
    ))
}

/// Parses one field of `/proc/self/status` (proc_pid_status(5)), converting sizes from kB to bytes.
fn status(text: &str, field: &str) -> Option<i64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let mut words = line.split_ascii_whitespace();
    let value: i64 = words.next()?.parse().ok()?;
    match words.next() {
        Some("kB") => value.checked_mul(1_024),
        Some(_) => None,
        None => Some(value),
    }
}

fn file_descriptors() -> Option<i64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?.count();
    // One entry is the descriptor that reads the directory.
    i64::try_from(entries.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_after_any_program_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 1 0 250 75 0 0 20 0 3 0 1000 2000 30";
        assert_eq!(cpu_time(stat), Some((2.5, 0.75)));
        assert_eq!(cpu_time("7 (cut) S 1 7"), None);
        assert_eq!(cpu_time(""), None);
    }

    #[test]
    fn sizes_are_converted_to_bytes_and_counts_are_not() {
        let text = "Name:\tx\nVmSize:\t    2048 kB\nVmRSS:\t      12 kB\nThreads:\t3\nOdd:\t3 MB\n";
        assert_eq!(status(text, "VmSize"), Some(2_048 * 1_024));
        assert_eq!(status(text, "VmRSS"), Some(12 * 1_024));
        assert_eq!(status(text, "Threads"), Some(3));
        for missing in ["Odd", "Vm", "VmSwap"] {
            assert_eq!(status(text, missing), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_metrics_of_this_process_can_be_read() {
        let (user, system) = read("stat").as_deref().and_then(cpu_time).unwrap();
        assert!(user >= 0.0 && system >= 0.0);
        let text = read("status").unwrap();
        let (size, resident) = (status(&text, "VmSize").unwrap(), status(&text, "VmRSS").unwrap());
        assert!(0 < resident && resident < size);
        assert!(status(&text, "Threads").unwrap() >= 1);
        let before = file_descriptors().unwrap();
        let opened: Vec<_> = (0..50)
            .map(|_| fs::File::open("/proc/self/stat").unwrap())
            .collect();
        // Other tests open and close files at the same time, but fewer than 25.
        assert!(file_descriptors().unwrap() > before + 25);
        drop(opened);
    }
}
