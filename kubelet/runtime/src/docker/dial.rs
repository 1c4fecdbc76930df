//! Connections into a pod's network namespace.
//!
//! A socket belongs for good to the namespace of the thread that made it. So a thread of its own enters the
//! pod's, makes the socket and ends: no thread of the runtime ever leaves the node's network, and connecting is
//! asynchronous like everything else.

use std::{fs::File, io, net::SocketAddr, time::Duration};

use nix::sched::{CloneFlags, setns};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::RuntimeError;

/// How long a pod may take to accept; on its own loopback it answers at once or its queue is full.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to a port of the loopback interface of the namespace that a process lives in: IPv4 first, then IPv6, in
/// whose words clients know it (containerd's `PortForward`).
pub(super) async fn dial(pid: u32, port: u16) -> Result<TcpStream, RuntimeError> {
    let four = match connect(pid, SocketAddr::from(([127, 0, 0, 1], port))).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let six = match connect(pid, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    Err(RuntimeError::Dial(format!(
        "failed to connect to localhost:{port} inside namespace \"/proc/{pid}/ns/net\", \
         IPv4: dial tcp4 127.0.0.1:{port}: {} IPv6 dial tcp6 [::1]:{port}: {}",
        reason(&four),
        reason(&six)
    )))
}

async fn connect(pid: u32, address: SocketAddr) -> io::Result<TcpStream> {
    let socket =
        tokio::task::spawn_blocking(move || socket_in(pid, address)).await.map_err(io::Error::other)??;
    let stream = timeout(CONNECT_TIMEOUT, socket.connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket_in(pid: u32, address: SocketAddr) -> io::Result<TcpSocket> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let make = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    };
    let thread = std::thread::Builder::new().name("port-forward".to_owned()).spawn(make)?;
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the thread that enters the pod's network panicked")))
}

/// Why connecting failed, in the words of Go's `net`, which people search for.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::NotFound => "the sandbox has ended".to_owned(),
        _ => format!("connect: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_people_know_them() {
        assert_eq!(reason(&io::ErrorKind::ConnectionRefused.into()), "connect: connection refused");
        assert_eq!(reason(&io::ErrorKind::TimedOut.into()), "i/o timeout");
        assert_eq!(reason(&io::ErrorKind::NotFound.into()), "the sandbox has ended");
    }
}
