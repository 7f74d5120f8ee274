//! A PgBouncer in transaction mode in front of PostgreSQL, with fewer server connections than clients use.

use std::{
    fs,
    net::TcpStream,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::postgres_server::{free_port, server_user};

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of connections to a database; small, because clients must meet the state that other clients leave behind.
pub const CONNECTIONS: i64 = 3;

/// A PgBouncer process, stopped on drop.
pub struct PgBouncer {
    child: Child,
    port: u16,
    folder: PathBuf,
    prepared_statements: bool,
}

impl PgBouncer {
    /// Starts a PgBouncer without support for prepared statements, like versions before 1.21.
    ///
    /// # Panics
    /// Panics if PgBouncer is not installed.
    pub fn without_prepared_statements(url: &str) -> Self {
        Self::start(url, 0, CONNECTIONS)
    }

    /// Starts a PgBouncer without support for prepared statements, with up to `connections` to the server.
    pub fn with_connections(url: &str, connections: i64) -> Self {
        Self::start(url, 0, connections)
    }

    /// Starts a PgBouncer with support for prepared statements.
    pub fn with_prepared_statements(url: &str) -> Self {
        Self::start(url, 100, CONNECTIONS)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the environment tells tests where the binary is"
    )]
    fn start(url: &str, prepared_statements: u32, connections: i64) -> Self {
        let url = url::Url::parse(url).unwrap();
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("pressroom-pgbouncer-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "[databases]\n* = host={} port={} user={}{}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = {connections}\n\
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
        // PgBouncer refuses to run as root.
        let (uid, gid) = server_user();
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
            prepared_statements: prepared_statements > 0,
        };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                start.elapsed() < START_TIMEOUT,
                "PgBouncer did not start: {}",
                fs::read_to_string(bouncer.folder.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        bouncer
    }

    /// Returns `url` with the address of this pooler and the pooler settings.
    pub fn url(&self, url: &str) -> String {
        let prepared = if self.prepared_statements {
            "&prepared_statements=on"
        } else {
            ""
        };
        format!(
            "{}?pool_mode=transaction{prepared}",
            self.url_without_settings(url)
        )
    }

    /// Returns `url` with the address of this pooler, without the settings that announce a pooler.
    pub fn url_without_settings(&self, url: &str) -> String {
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
