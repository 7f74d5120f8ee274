//! A mail server that stores the messages it receives. It implements the part of RFC 5321 that clients need.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// A message and its recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    pub recipient: String,
    pub text: String,
}

/// A running server, stopped with the test's runtime.
pub struct MailServer {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Mail>>>,
    /// One permit for each message that may be acknowledged.
    acknowledgements: Arc<Semaphore>,
}

impl MailServer {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            acknowledgements: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let received = server.received.clone();
        let acknowledgements = server.acknowledgements.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, received.clone(), acknowledgements.clone()));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Stops acknowledging messages until [`MailServer::acknowledge`] is called; messages are still stored.
    pub fn hold(&self) {
        self.acknowledgements.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Acknowledges one message.
    pub fn acknowledge(&self) {
        self.acknowledgements.add_permits(1);
    }

    /// Returns the messages received so far.
    pub fn received(&self) -> Vec<Mail> {
        self.received.lock().unwrap().clone()
    }
}

async fn serve(
    stream: TcpStream,
    received: Arc<Mutex<Vec<Mail>>>,
    acknowledgements: Arc<Semaphore>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 test\r\n").await?;
    let mut mail = Mail::default();
    while let Some(line) = lines.next_line().await? {
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        let reply = match verb.as_str() {
            "RCPT" => {
                mail.recipient = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok"
            }
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    mail.text.push_str(&line);
                    mail.text.push('\n');
                }
                received.lock().unwrap().push(std::mem::take(&mut mail));
                acknowledgements.acquire().await.unwrap().forget();
                "250 kept"
            }
            "QUIT" => return writer.write_all(b"221 bye\r\n").await,
            _ => "250 ok",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}
