//! Detection of what the platform says about the process: the operating system, the host, the container and the
//! Kubernetes pod. The names are those of the OpenTelemetry semantic conventions 1.44.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;

/// Clock ticks per second in `/proc` (`USER_HZ`), the same on every Linux target of Rust.
pub(crate) const CLOCK_TICKS: f64 = 100.0;

/// Attributes of Kubernetes and the variables that have their values, which the downward API sets.
const KUBERNETES: [(&str, &str); 6] = [
    ("k8s.cluster.name", "K8S_CLUSTER_NAME"),
    ("k8s.namespace.name", "K8S_NAMESPACE_NAME"),
    ("k8s.node.name", "K8S_NODE_NAME"),
    ("k8s.pod.name", "K8S_POD_NAME"),
    ("k8s.pod.uid", "K8S_POD_UID"),
    ("k8s.container.name", "K8S_CONTAINER_NAME"),
];

/// File in a pod with the name of its namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Returns the attributes of the process.
pub(crate) fn process() -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("process.pid", i64::from(std::process::id())),
        KeyValue::new("process.creation.time", timestamp(process_start())),
        KeyValue::new("process.runtime.name", "rust"),
    ];
    attributes.extend(known("process.executable.name", executable_name()));
    attributes
}

/// Returns the attributes of the host and its operating system.
pub(crate) fn host() -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("os.type", os_type(std::env::consts::OS)),
        KeyValue::new("host.arch", host_arch()),
    ];
    attributes.extend(known("host.name", host_name()));
    attributes
}

/// Returns the id of the container, if the process runs in one that shows it.
pub(crate) fn container() -> Option<KeyValue> {
    let read = |path| read(path).unwrap_or_default();
    let id = container_id(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
    known("container.id", id)
}

/// Returns the attributes of the pod; `lookup` reads a variable.
pub(crate) fn kubernetes(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<KeyValue> {
    let namespace = read(NAMESPACE_FILE);
    let attributes = KUBERNETES.into_iter().filter_map(|(name, variable)| {
        let value = lookup(variable).or_else(|| match name {
            "k8s.namespace.name" => namespace.clone(),
            // The default of `spec.hostname`.
            "k8s.pod.name" if namespace.is_some() => host_name(),
            _ => None,
        });
        known(name, value)
    });
    attributes.collect()
}

fn known(name: &'static str, value: Option<String>) -> Option<KeyValue> {
    let value = value.filter(|value| !value.is_empty())?;
    Some(KeyValue::new(name, value))
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn host_name() -> Option<String> {
    read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"))
}

fn executable_name() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Returns the operating system as the `os.type` convention names it.
fn os_type(os: &'static str) -> &'static str {
    match os {
        "macos" | "ios" | "tvos" | "visionos" | "watchos" => "darwin",
        "dragonfly" => "dragonflybsd",
        "illumos" => "solaris",
        "android" => "linux",
        other => other,
    }
}

/// Returns the architecture as the `host.arch` convention names it.
fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        "powerpc" => "ppc32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Returns the id of the container from the control groups of the process (version 1) or from its mounts.
fn container_id(control_groups: &str, mounts: &str) -> Option<String> {
    let mounts = mounts.lines().filter(|line| line.contains("/containers/"));
    control_groups.lines().chain(mounts).find_map(|line| {
        let mut words = line.split(|character: char| !character.is_ascii_alphanumeric());
        let is_id = |word: &&str| word.len() == 64 && word.bytes().all(|digit| digit.is_ascii_hexdigit());
        words.find(is_id).map(str::to_owned)
    })
}

/// Returns the start of the process, or the current time on systems without `/proc`.
fn process_start() -> SystemTime {
    let since_boot = || start_ticks(&read("/proc/self/stat")?);
    let boot = || boot_time(&read("/proc/stat")?);
    match (boot(), since_boot()) {
        (Some(boot), Some(ticks)) => boot + Duration::from_secs_f64(ticks / CLOCK_TICKS),
        _ => SystemTime::now(),
    }
}

/// Returns the 22nd field of `/proc/self/stat`, the start of the process in clock ticks since the boot.
fn start_ticks(stat: &str) -> Option<f64> {
    // The second field is the program name in parentheses, which may itself contain spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn boot_time(stat: &str) -> Option<SystemTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(UNIX_EPOCH + Duration::from_secs(line.trim().parse().ok()?))
}

/// Formats a time in UTC as in ISO 8601, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since_epoch.as_secs() / 86_400, since_epoch.as_secs() % 86_400);
    // Days from civil, by Howard Hinnant: years begin on 1 March, and an era has 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        since_epoch.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_container_is_found() {
        let id = "0123456789abcdef".repeat(4);
        for (control_groups, mounts) in [
            (format!("0::/\n12:memory:/docker/{id}"), String::new()),
            (
                format!("1:cpu:/kubepods.slice/cri-containerd-{id}.scope"),
                String::new(),
            ),
            (
                "0::/".to_owned(),
                format!("1 2 8:1 /lib/containers/{id}/hostname /etc/hostname rw"),
            ),
        ] {
            assert_eq!(container_id(&control_groups, &mounts).as_ref(), Some(&id));
        }
        let layer = format!("1 2 0:1 / / rw overlay lowerdir=/var/lib/overlay2/{id}/diff");
        assert_eq!(container_id("0::/", &layer), None);
    }

    #[test]
    fn a_pod_is_described_by_its_variables() {
        let variables = [
            ("K8S_POD_NAME", "app-1"),
            ("K8S_NAMESPACE_NAME", "press"),
            ("K8S_NODE_NAME", "n1"),
            ("K8S_POD_UID", "u"),
            ("K8S_CONTAINER_NAME", ""),
        ];
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(
            kubernetes(&lookup),
            [
                KeyValue::new("k8s.namespace.name", "press"),
                KeyValue::new("k8s.node.name", "n1"),
                KeyValue::new("k8s.pod.name", "app-1"),
                KeyValue::new("k8s.pod.uid", "u"),
            ]
        );
    }

    #[test]
    fn operating_systems_have_their_conventional_names() {
        for (name, expected) in [("macos", "darwin"), ("linux", "linux"), ("windows", "windows")] {
            assert_eq!(os_type(name), expected);
        }
    }

    #[test]
    fn times_are_formatted_as_in_iso_8601() {
        let at = |milliseconds| timestamp(UNIX_EPOCH + Duration::from_millis(milliseconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(at(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(at(4_102_444_800_000), "2100-01-01T00:00:00.000Z");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_started_a_short_while_ago() {
        let age = SystemTime::now()
            .duration_since(process_start())
            .unwrap_or_default();
        assert!(age < Duration::from_secs(3_600), "{age:?}");
        assert_eq!(
            start_ticks("7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 1 0 250 75 0 0 20 0 3 0 1000 20 3"),
            Some(1_000.0)
        );
        assert_eq!(
            boot_time("cpu 1\nbtime 100\n"),
            Some(UNIX_EPOCH + Duration::from_secs(100))
        );
    }
}
