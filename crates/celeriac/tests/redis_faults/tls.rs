//! Redis with TLS and a private CA: the CA is trusted if it is configured, and nothing is sent without a
//! verified certificate.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use celeriac::{Broker, Client, ConfigError, Control, RedisBroker, RedisConfig, Signature, Status};
use tokio_util::sync::CancellationToken;

use crate::{
    server::binary,
    support::{Journal, PATIENCE, Running, eventually, final_result, worker},
};

fn openssl(folder: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl is not installed");
    assert!(status.success(), "openssl {arguments}");
}

/// A server that accepts only TLS, and its CA. With `client_auth`, it requires a client certificate and a
/// password.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
    client_auth: bool,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Starts a server and waits until it listens.
fn launch(mut command: Command, folder: &Path, port: u16) -> Child {
    let child = command
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "redis-server did not listen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

impl Server {
    fn start(name: &str, client_auth: bool) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("celeriac-tls-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            &folder,
            &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"),
        );
        for (file, subject) in [("server", name), ("client", "DNS:client")] {
            openssl(
                &folder,
                &format!("req {key} -keyout {file}.key -out {file}.csr -subj /CN={file}"),
            );
            fs::write(
                folder.join("names"),
                format!("subjectAltName={subject}\nbasicConstraints=CA:FALSE\n"),
            )
            .unwrap();
            openssl(
                &folder,
                &format!(
                    "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {file}.pem -days 2 -extfile names"
                ),
            );
        }
        let mut command = Command::new(binary());
        command
            .args([
                "--port",
                "0",
                "--tls-port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
            ])
            .args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"])
            .args(["--tls-ca-cert-file", "ca.pem", "--save", ""])
            .args(["--tls-auth-clients", if client_auth { "yes" } else { "no" }])
            .args(["--requirepass", if client_auth { "s3cret" } else { "" }]);
        Self {
            child: launch(command, &folder, port),
            port,
            folder,
            client_auth,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn url(&self, parameters: &str) -> String {
        let account = if self.client_auth { ":s3cret@" } else { "" };
        format!("rediss://{account}127.0.0.1:{}/0?{parameters}", self.port)
    }

    /// Starts a sentinel with the same certificates and its own password.
    fn sentinel(&self) -> Self {
        let port = free_port();
        let folder = self.folder.join("sentinel");
        fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ntls-replication yes\ntls-auth-clients yes\n\
             tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\nrequirepass w4tch\n\
             sentinel monitor news 127.0.0.1 {} 1\nsentinel auth-pass news s3cret\n",
            self.file("server.pem"),
            self.file("server.key"),
            self.file("ca.pem"),
            self.port
        );
        fs::write(folder.join("sentinel.conf"), settings).unwrap();
        let mut command = Command::new(binary());
        command.args(["sentinel.conf", "--sentinel"]);
        Self {
            child: launch(command, &folder, port),
            port,
            folder,
            client_auth: true,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn broker(url: String) -> RedisBroker {
    RedisBroker::new(RedisConfig::new(url)).unwrap()
}

/// Checks that no attempt succeeds, and that an attempt fails for this reason. On a loaded machine, other
/// attempts may time out.
async fn rejected(url: String, reason: &str) {
    let broker = broker(url);
    eventually(reason, async || {
        let error = broker.ping().await.expect_err("the server must not be trusted");
        error.to_string().contains(reason).then_some(())
    })
    .await;
}

/// Checks that a client, a worker and remote control work, each with its own connections.
async fn works(broker: RedisBroker) {
    let broker = Arc::new(broker);
    let control = Control::new(broker.clone());
    let client = Client::new(broker.clone());
    let built = worker(broker, &Journal::default(), &CancellationToken::new()).build();
    let running = Running::start(built, PATIENCE);
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    eventually("the worker replies", async || {
        (control.ping().await.ok()? == ["celery@test"]).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_configured_ca_is_trusted() {
    let server = Server::start("IP:127.0.0.1", false);
    let ca = server.file("ca.pem");
    // In the form that Celery requires.
    works(broker(
        server.url(&format!("ssl_cert_reqs=required&ssl_ca_certs={ca}")),
    ))
    .await;
    let config = RedisConfig::new(server.url("")).ca_certificate(ca);
    RedisBroker::new(config).unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_cannot_be_verified_is_an_error() {
    let (server, other) = (
        Server::start("IP:127.0.0.1", false),
        Server::start("DNS:elsewhere", false),
    );
    rejected(server.url(""), "UnknownIssuer").await;
    let wrong_ca = server.url(&format!("ssl_ca_certs={}", other.file("ca.pem")));
    rejected(wrong_ca, "invalid peer certificate").await;
    let wrong_name = other.url(&format!("ssl_ca_certs={}", other.file("ca.pem")));
    rejected(wrong_name, "not valid for name").await;
}

#[tokio::test]
async fn a_client_certificate_is_sent_on_request() {
    let server = Server::start("IP:127.0.0.1", true);
    let ca = format!("ssl_ca_certs={}", server.file("ca.pem"));
    broker(server.url(&ca)).ping().await.unwrap_err();
    let client_certificate = format!(
        "ssl_certfile={}&ssl_keyfile={}",
        server.file("client.pem"),
        server.file("client.key")
    );
    works(broker(server.url(&format!("{ca}&{client_certificate}")))).await;
}

#[tokio::test]
async fn sentinels_are_queried_over_tls_with_their_own_password() {
    let server = Server::start("IP:127.0.0.1", true);
    let sentinel = server.sentinel();
    let url = |parameters: &str| {
        format!(
            "sentinels://:s3cret@127.0.0.1:{}/0?master=news&ssl_ca_certs={}&ssl_certfile={}&ssl_keyfile={}{parameters}",
            sentinel.port,
            server.file("ca.pem"),
            server.file("client.pem"),
            server.file("client.key"),
        )
    };
    works(broker(url("&sentinel_password=w4tch"))).await;
    rejected(url(""), "NOAUTH").await;
    rejected(url("&sentinel_password=wr0ng"), "authentication failed").await;
    let wrong = broker(url("&sentinel_password=wr0ng"))
        .ping()
        .await
        .unwrap_err()
        .to_string();
    assert!(!wrong.contains("wr0ng") && !wrong.contains("s3cret"), "{wrong}");
}

#[tokio::test]
async fn files_without_certificates_are_rejected_on_creation() {
    let folder = std::env::temp_dir();
    let empty = folder.join(format!("celeriac-no-certificate-{}", std::process::id()));
    fs::write(&empty, "nothing").unwrap();
    let (empty, missing) = (empty.to_str().unwrap(), "/nowhere/at/all.pem");
    for parameters in [
        format!("ssl_ca_certs={empty}"),
        format!("ssl_ca_certs={missing}"),
        format!("ssl_certfile={empty}&ssl_keyfile={empty}"),
        "ssl_certfile=only.pem".to_owned(),
    ] {
        let config = RedisConfig::new(format!("rediss://localhost/0?{parameters}"));
        let error = RedisBroker::new(config).err();
        assert_eq!(error, Some(ConfigError::Certificates), "{parameters}");
    }
    fs::remove_file(empty).unwrap();
}
