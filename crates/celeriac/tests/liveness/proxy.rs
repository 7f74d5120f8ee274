//! TCP proxy that can stop forwarding without closing its connections, as a broken network does, and can move
//! to another server, as an address does after a fail-over.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::Duration,
};

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    target: Arc<AtomicU16>,
    cut: Arc<(Mutex<bool>, Condvar)>,
    /// Time to forward a byte, for all connections together.
    per_byte: Arc<Mutex<Duration>>,
}

impl Proxy {
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            target: Arc::new(target.into()),
            cut: Arc::default(),
            per_byte: Arc::default(),
        };
        let forward = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", forward.target.load(Ordering::SeqCst)))
                else {
                    continue;
                };
                let ends = [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server, client),
                ];
                for (from, to) in ends {
                    let forward = forward.clone();
                    thread::spawn(move || forward.forward(from, to));
                }
            }
        });
        proxy
    }

    /// Connects new clients to the server on this port.
    pub fn set_target(&self, port: u16) {
        self.target.store(port, Ordering::SeqCst);
    }

    /// Stops or resumes forwarding.
    pub fn set_cut(&self, cut: bool) {
        *self.cut.0.lock().unwrap() = cut;
        self.cut.1.notify_all();
    }

    /// Limits the bandwidth, in bytes per second.
    pub fn set_bandwidth(&self, bytes: u32) {
        *self.per_byte.lock().unwrap() = Duration::from_secs(1) / bytes;
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let cut = self.cut.0.lock().unwrap();
            drop(self.cut.1.wait_while(cut, |cut| *cut).unwrap());
            let per_byte = self.per_byte.lock().unwrap();
            if !per_byte.is_zero() {
                thread::sleep(*per_byte * read as u32);
            }
            drop(per_byte);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }
}
