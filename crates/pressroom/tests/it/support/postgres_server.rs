//! A PostgreSQL server for one test, in a temporary folder, which can be stopped and started.
//!
//! A shell process watches a pipe to the test process and cleans up when the pipe closes, even if the test
//! process is killed.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

const START_TIMEOUT: Duration = Duration::from_secs(60);

const CLEAN_UP: &str = r#"
read _
if pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null); then
    kill -QUIT "$pid"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
fi
rm -rf "$0"
"#;

pub struct Server {
    folder: PathBuf,
    port: u16,
    postgres: Mutex<Option<Child>>,
    cleaner: Child,
    settings: Vec<String>,
}

impl Server {
    /// Creates a cluster and starts a server on it.
    ///
    /// # Panics
    /// Panics if PostgreSQL is not installed.
    pub fn start() -> Self {
        Self::start_with(|_folder| Vec::new())
    }

    /// Like [`Server::start`], with the settings (`name=value`) that `prepare` returns; `prepare` may
    /// write files into the folder.
    pub fn start_with(prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        Self::start_on(
            as_server_user("initdb").args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]),
            prepare,
        )
    }

    /// Like [`Server::start`], with a self-signed certificate for 127.0.0.1, created by `openssl`, whose path is also
    /// returned. `prepare` may write files into the folder.
    pub fn with_tls(prepare: impl FnOnce(&Path)) -> (Self, String) {
        let mut certificate = String::new();
        let server = Self::start_with(|folder| {
            prepare(folder);
            let (cert, key) = (folder.join("server.crt"), folder.join("server.key"));
            let output = Command::new("openssl")
                .args([
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                ])
                .args([
                    "-days",
                    "2",
                    "-subj",
                    "/CN=test",
                    "-addext",
                    "subjectAltName=IP:127.0.0.1",
                ])
                .args(["-addext", "basicConstraints=critical,CA:FALSE"])
                .arg("-keyout")
                .arg(&key)
                .arg("-out")
                .arg(&cert)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            certificate = cert.display().to_string();
            vec![
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", cert.display()),
                format!("ssl_key_file={}", key.display()),
            ]
        });
        (server, certificate)
    }

    /// Starts a streaming replica of this server.
    pub fn replica(&self) -> Self {
        let port = self.port.to_string();
        Self::start_on(
            as_server_user("pg_basebackup").args([
                "--host=127.0.0.1",
                "--port",
                &port,
                "--username=postgres",
                "--checkpoint=fast",
                "--wal-method=stream",
                "--write-recovery-conf",
                "--no-sync",
            ]),
            |_folder| Vec::new(),
        )
    }

    /// Runs `create`, which writes a cluster into the folder of its option `-D`, and starts a server on it.
    fn start_on(create: &mut Command, prepare: impl FnOnce(&Path) -> Vec<String>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pressroom-postgres-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (uid, gid) = server_user();
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        let cleaner = Command::new("sh")
            .args(["-c", CLEAN_UP])
            .arg(&folder)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let created = create
            .arg("-D")
            .arg(folder.join("data"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(created.success(), "{create:?} failed");
        let settings = prepare(&folder);
        for file in fs::read_dir(&folder).unwrap() {
            std::os::unix::fs::chown(file.unwrap().path(), Some(uid), Some(gid)).unwrap();
        }
        let server = Self {
            settings,
            folder,
            port: free_port(),
            postgres: Mutex::new(None),
            cleaner,
        };
        server.resume();
        server
    }

    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Starts the server, after [`Server::stop`] on the same port, and waits until it accepts connections.
    pub fn resume(&self) {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let child = as_server_user("postgres")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", "fsync=off"])
            .args(["-c", "max_connections=200"])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        *self.postgres.lock().unwrap() = Some(child);
        let ready = || {
            let status = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
            status.contains("ready") && TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        };
        wait_for(ready, || {
            fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        });
    }

    /// Starts the server, after [`Server::stop`], as a standby of `primary`.
    pub fn resume_as_standby_of(&self, primary: &Self) {
        let data = self.folder.join("data");
        let (uid, gid) = server_user();
        let signal = data.join("standby.signal");
        fs::write(&signal, "").unwrap();
        std::os::unix::fs::chown(&signal, Some(uid), Some(gid)).unwrap();
        let settings = format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n",
            primary.port
        );
        fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.auto.conf"))
            .and_then(|mut file| std::io::Write::write_all(&mut file, settings.as_bytes()))
            .unwrap();
        self.resume();
    }

    /// Stops the server immediately and closes all connections.
    pub fn stop(&self) {
        let mut child = self
            .postgres
            .lock()
            .unwrap()
            .take()
            .expect("the server is running");
        let stopped = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status()
            .unwrap();
        assert!(stopped.success());
        child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.cleaner.stdin.take());
        let _ = self.cleaner.wait();
        if let Ok(Some(mut child)) = self.postgres.get_mut().map(Option::take) {
            let _ = child.wait();
        }
    }
}

/// Returns a free port that no other call in this process returns. The port is below the ephemeral range, so no
/// outgoing connection uses it either.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: u32 = 17_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time start at different ports.
    let start = std::process::id().wrapping_mul(101);
    loop {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = FIRST + u16::try_from(offset).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn wait_for(done: impl Fn() -> bool, log: impl Fn() -> String) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < START_TIMEOUT,
            "the server did not start: {}",
            log()
        );
        sleep(Duration::from_millis(20));
    }
}

/// Returns a command that runs as [`server_user`], because PostgreSQL's programs refuse to run as root.
fn as_server_user(program: &str) -> Command {
    let mut command = Command::new(binaries().join(program));
    if is_root() {
        let (uid, gid) = server_user();
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Returns the user and group ids that servers run with: the current user or, if that is root, `postgres`
/// or `nobody`.
pub(super) fn server_user() -> (u32, u32) {
    if !is_root() {
        let own = fs::metadata("/proc/self").unwrap();
        return (own.uid(), own.gid());
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse().ok());
        Some((ids.next()??, ids.next()??))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .expect("a user `postgres` or `nobody` to run the server, which refuses to run as root")
}

/// Returns the folder of PostgreSQL's programs: `TEST_POSTGRES_BIN`, the folder that `pg_config` prints, or
/// Debian's folder of the newest version.
#[expect(clippy::disallowed_methods, reason = "tests read the environment")]
pub(super) fn binaries() -> PathBuf {
    let named = std::env::var("TEST_POSTGRES_BIN").ok().map(PathBuf::from);
    let configured = || {
        let output = Command::new("pg_config").arg("--bindir").output().ok()?;
        Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
    };
    let versioned = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        versions
            .filter_map(|version| Some(version.ok()?.path()))
            .max_by_key(|path| {
                path.file_name()
                    .and_then(|name| name.to_str()?.parse::<u32>().ok())
            })
            .map(|path| path.join("bin"))
    };
    let usable = |folder: &PathBuf| Path::new(folder).join("initdb").exists();
    named
        .or_else(|| configured().filter(usable))
        .or_else(versioned)
        .filter(usable)
        .expect("PostgreSQL is installed; otherwise set TEST_POSTGRES_BIN to the folder of its programs")
}
