//! Runs the scenario of a test in a child process with its own environment.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const CHILD: &str = "TELEMETRY_TEST_CHILD";

const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `scenario` in a child process.
///
/// In the test process: calls `prepare`, runs the test again in a child with the returned environment,
/// and returns the prepared value and standard output. In the child: runs `scenario` and returns `None`.
pub fn run_prepared<P>(
    test: &str,
    prepare: impl FnOnce() -> (P, Vec<(String, String)>),
    scenario: impl FnOnce(),
) -> Option<(P, String)> {
    if is_child() {
        scenario();
        return None;
    }
    let (prepared, environment) = prepare();
    let mut child = child(test)
        .envs(environment)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{test}: the scenario did not finish within {TIMEOUT:?}");
        }
        thread::sleep(Duration::from_millis(10));
    };
    let stdout = reader.join().unwrap().unwrap();
    assert!(status.success(), "{test}: the scenario failed\n{stdout}");
    assert!(stdout.contains("1 passed"), "{test} did not run\n{stdout}");
    Some((prepared, stdout))
}

/// Whether this process runs the scenario of a test.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Returns the command that runs the scenario of `test`, without the environment of this process.
pub fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            test,
            "--exact",
            "--include-ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env_clear()
        .env(CHILD, "1")
        .stdin(Stdio::null());
    command
}

/// Creates a gate in the test process and returns its address. [`wait_at`] blocks at this address until
/// `open` returns true.
pub fn gate(open: impl Fn() -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let _waiting = listener.accept().unwrap();
        while !open() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    address
}

/// Waits, within a scenario, at the [`gate`] whose address is in `variable`.
pub fn wait_at(variable: &str) {
    let address = std::env::var_os(variable).unwrap().into_string().unwrap();
    let mut gate = TcpStream::connect(address).unwrap();
    gate.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(gate.read(&mut [0]).unwrap(), 0);
}
