//! Redis behind TLS, with an authority of the test's own: it is trusted when it is named, and nothing is ever sent
//! without a verified certificate.

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
    let made = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("openssl must be installed");
    assert!(made.success(), "openssl {arguments}");
}

/// A server that speaks TLS alone, wants a client's certificate or not, and its authority.
struct Server {
    child: Child,
    port: u16,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str, clients_too: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let folder = std::env::temp_dir().join(format!("celeriac-tls-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            &folder,
            &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
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
        let child = Command::new(binary())
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
            .args(["--tls-auth-clients", if clients_too { "yes" } else { "no" }])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, port, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).to_str().unwrap().to_owned()
    }

    fn url(&self, parameters: &str) -> String {
        format!("rediss://127.0.0.1:{}/0?{parameters}", self.port)
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

/// Client, worker and remote control, each with connections of their own.
async fn works(broker: RedisBroker) {
    let broker = Arc::new(broker);
    let control = Control::new(broker.clone());
    let client = Client::new(broker.clone());
    let built = worker(broker, &Journal::default(), &CancellationToken::new()).build();
    let running = Running::start(built, PATIENCE);
    let id = client.send(Signature::new("add").arg(1).arg(1)).await.unwrap();
    assert_eq!(final_result(&client, &id).await.status, Status::Success);
    eventually("the worker answers", async || {
        (control.ping().await.ok()? == ["celery@test"]).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let server = Server::start("IP:127.0.0.1", false);
    let authority = server.file("ca.pem");
    // As Celery in Python wants it.
    works(broker(
        server.url(&format!("ssl_cert_reqs=required&ssl_ca_certs={authority}")),
    ))
    .await;
    let config = RedisConfig {
        ca_certificate: Some(authority.into()),
        ..RedisConfig::new(server.url(""))
    };
    RedisBroker::new(config).unwrap().ping().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_cannot_be_verified_is_an_error() {
    let (server, other) = (
        Server::start("IP:127.0.0.1", false),
        Server::start("DNS:elsewhere", false),
    );
    let unknown = broker(server.url("")).ping().await.unwrap_err().to_string();
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let stranger = broker(server.url(&format!("ssl_ca_certs={}", other.file("ca.pem"))));
    let stranger = stranger.ping().await.unwrap_err().to_string();
    assert!(stranger.contains("invalid peer certificate"), "{stranger}");
    let misnamed = broker(other.url(&format!("ssl_ca_certs={}", other.file("ca.pem"))));
    let misnamed = misnamed.ping().await.unwrap_err().to_string();
    assert!(misnamed.contains("not valid for name"), "{misnamed}");
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_it_is_asked_for() {
    let server = Server::start("IP:127.0.0.1", true);
    let authority = format!("ssl_ca_certs={}", server.file("ca.pem"));
    broker(server.url(&authority)).ping().await.unwrap_err();
    let own = format!(
        "ssl_certfile={}&ssl_keyfile={}",
        server.file("client.pem"),
        server.file("client.key")
    );
    works(broker(server.url(&format!("{authority}&{own}")))).await;
}

#[tokio::test]
async fn files_without_certificates_are_refused_at_once() {
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
        let refused = RedisBroker::new(config).err();
        assert_eq!(refused, Some(ConfigError::Certificates), "{parameters}");
    }
    fs::remove_file(empty).unwrap();
}
