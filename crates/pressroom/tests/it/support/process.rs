//! Processes of the program under test, which do not inherit the environment of the test process.

use std::{
    io::{Read, Seek, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use super::{eventually, postgres_server::free_port, raw};

/// A running process, killed on drop.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Length of the log at the start, which earlier processes of the same name wrote.
    start: u64,
}

/// Variables that make the observatory listen on free ports, because tests run in parallel.
pub const ANY_PORT: [(&str, &str); 4] = [
    ("OBSERVATORY_PORT", "0"),
    ("OBSERVATORY_OTLP_HTTP_PORT", "0"),
    ("OBSERVATORY_OTLP_GRPC_PORT", "0"),
    ("OBSERVATORY_HEALTH_PORT", "0"),
];

/// Returns a command that runs the program with these variables and no others.
pub fn pressroom(arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pressroom"));
    command
        .args(arguments)
        .env_clear()
        .envs(ANY_PORT)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

/// Runs the program until it exits.
pub fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let folder = Folder::new();
    pressroom(arguments, variables, folder.path()).output().unwrap()
}

/// Runs a command, asserts that it succeeds, and returns its output.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {printed}");
    printed.into_owned()
}

/// Returns the path in an environment variable that names a tool of the tests.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment tells tests where the tools are"
)]
pub fn required(variable: &str) -> PathBuf {
    let path = std::env::var(variable);
    path.unwrap_or_else(|_| panic!("{variable} must be set for this test; scripts/test sets it"))
        .into()
}

/// Starts the program; its output goes to a file, which a failing test prints.
pub fn start(name: &str, arguments: &[&str], variables: &[(&str, &str)], folder: &Path) -> Process {
    start_command(name, pressroom(arguments, variables, folder), folder)
}

/// Starts any program; its output goes to a file in `folder`, which a failing test prints.
pub fn start_command(name: &str, mut command: Command, folder: &Path) -> Process {
    let log = folder.join(format!("{name}.log"));
    let output = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .unwrap();
    let start = output.metadata().unwrap().len();
    let child = command
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    Process { child, log, start }
}

/// Starts the program with both output streams on one pipe, and returns the reading end.
pub fn start_piped(
    arguments: &[&str],
    variables: &[(&str, &str)],
    folder: &Path,
) -> (Process, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = pressroom(arguments, variables, folder);
    let child = command
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    (Process::of(child), reader)
}

/// Starts the API and waits until it is ready.
pub async fn start_api(
    arguments: &[&str],
    variables: &[(&str, &str)],
    folder: &Path,
) -> (Process, SocketAddr) {
    start_api_until_ok("/api/health/ready", arguments, variables, folder).await
}

/// Starts the API and waits until a GET of `target` returns 200.
pub async fn start_api_until_ok(
    target: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
    folder: &Path,
) -> (Process, SocketAddr) {
    let port = free_port();
    let text = port.to_string();
    let mut variables = variables.to_vec();
    variables.extend([("PORT", text.as_str()), ("HOST", "127.0.0.1")]);
    let mut process = start("api", arguments, &variables, folder);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    process.wait_for_ok(address, target).await;
    (process, address)
}

impl Process {
    /// Wraps a child whose output the test itself reads.
    pub fn of(child: Child) -> Self {
        Self {
            child,
            log: PathBuf::new(),
            start: 0,
        }
    }

    /// Waits until a GET of `target` returns 200.
    pub async fn wait_for_ok(&mut self, address: SocketAddr, target: &str) {
        eventually("the service to respond", async || {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "the process has exited: {}",
                self.output()
            );
            tokio::net::TcpStream::connect(address).await.ok()?;
            let response = raw::request(address, "GET", target, None, None).await;
            (response.status == 200).then_some(())
        })
        .await;
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        let mut output = String::new();
        if let Ok(mut log) = std::fs::File::open(&self.log) {
            log.seek(SeekFrom::Start(self.start)).unwrap();
            log.read_to_string(&mut output).unwrap();
        }
        output
    }

    /// Waits until the output contains `text`, because the program may log after its response.
    pub async fn wait_for_output(&self, text: &str) {
        eventually(&format!("{text:?} in the output"), async || {
            self.output().contains(text).then_some(())
        })
        .await;
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.send_sigterm();
        self.wait_for_exit().await
    }

    /// Sends SIGTERM.
    pub fn send_sigterm(&self) {
        self.send("TERM");
    }

    /// Sends a signal, named without `SIG`.
    pub fn send(&self, signal: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the process to exit.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the process to exit", async || self.child.try_wait().unwrap()).await
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns a field of `/proc/<id>/status` that is an amount of memory, such as `VmRSS`, in MiB.
    pub fn memory_mib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kib.parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- {}\n{}", self.log.display(), self.output());
        }
    }
}

/// A temporary folder, removed on drop.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("pressroom-e2e-{}-{}", std::process::id(), free_port());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
