//! A PgBouncer in transaction mode before PostgreSQL, with fewer connections to it than clients have.

use std::{
    fs,
    net::TcpStream,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::postgres_server::{free_port, owner};

const PATIENCE: Duration = Duration::from_secs(20);

/// How many connections to a database it has: few, so that clients meet each other's leavings.
pub const CONNECTIONS: i64 = 3;

/// A process that is stopped when dropped.
pub struct PgBouncer {
    child: Child,
    port: u16,
    folder: PathBuf,
    prepares: bool,
}

impl PgBouncer {
    /// One that knows nothing of prepared statements, as those before 1.21. Panics where no PgBouncer is
    /// installed: a test that cannot run has failed.
    pub fn before(url: &str) -> Self {
        Self::start(url, 0)
    }

    /// One that has prepared statements wherever they are used.
    pub fn with_prepared_statements(url: &str) -> Self {
        Self::start(url, 100)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the environment tells tests where the binary is"
    )]
    fn start(url: &str, prepared_statements: u32) -> Self {
        let url = url::Url::parse(url).unwrap();
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("pressroom-pgbouncer-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={} user={}{}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\n\
             max_client_conn = 500\nserver_login_retry = 1\n\
             max_prepared_statements = {prepared_statements}\n",
            url.host_str().unwrap(),
            url.port().unwrap_or(5432),
            url.username(),
            url.password()
                .map_or(String::new(), |password| format!(" password='{password}'")),
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        // It refuses to run as root.
        let (uid, gid) = owner();
        std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let binary = std::env::var("TEST_PGBOUNCER_BIN").unwrap_or_else(|_| "pgbouncer".to_owned());
        let mut command = Command::new(binary);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(uid).gid(gid);
        }
        let child = command
            .arg(&file)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let bouncer = Self {
            child,
            port,
            folder,
            prepares: prepared_statements > 0,
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < PATIENCE,
                "PgBouncer did not start: {}",
                fs::read_to_string(bouncer.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        bouncer
    }

    /// `url` through this pooler, which the program is told of.
    pub fn url(&self, url: &str) -> String {
        let prepared = if self.prepares {
            "&prepared_statements=on"
        } else {
            ""
        };
        format!("{}?pool_mode=transaction{prepared}", self.url_as_if_direct(url))
    }

    /// `url` through this pooler, which the program is not told of.
    pub fn url_as_if_direct(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(self.port)).unwrap();
        url.into()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
