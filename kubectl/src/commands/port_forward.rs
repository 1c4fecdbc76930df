//! `kubectl port-forward`: local ports that are a pod's.
//!
//! One SPDY connection carries all: two streams for each local connection, one for its data and one for what goes
//! wrong (`k8s.io/client-go/tools/portforward`). One connection that fails leaves the others be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use api_objects::Value;
use spdy::{Connection, Headers, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cli::PortForwardArgs;
use crate::describe::text_at;
use crate::error::Error;
use crate::output;
use crate::remote::{self, ports};
use crate::session::Session;

/// The protocol of the streams.
const PROTOCOL: &str = "portforward.k8s.io";
/// The most that is read of what goes wrong.
const COMPLAINT: u64 = 64 << 10;
/// Pause after a connection could not be accepted: as a rule, descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Carries out the command.
pub(crate) async fn run(args: &PortForwardArgs, session: &Session) -> Result<(), Error> {
    let pod = remote::pod_of(session, &args.target, false).await?;
    let service = service_of(args, session).await?;
    let forwards = ports::resolve(&args.ports, &pod, service.as_ref())?;
    let phase = text_at(&pod, "/status/phase", "Unknown");
    if phase != "Running" {
        return Err(Error::message(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let (namespace, name) = (text_at(&pod, "/metadata/namespace", ""), text_at(&pod, "/metadata/name", ""));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/portforward");
    let io = session.spdy(&path, PROTOCOL).await?;
    let (connection, _nothing, running) = spdy::start(io, Role::Client);
    let mut listeners = Vec::new();
    for forward in forwards {
        listeners.extend(listen(&args.address, forward).await?);
    }
    // Dropped, and so ended, with this function.
    let mut accepting = JoinSet::new();
    for (listener, forward) in listeners {
        accepting.spawn(accept(listener, forward, connection.clone()));
    }
    tokio::select! {
        _ = running => Err(Error::message("lost connection to pod")),
        Some(ended) = accepting.join_next() => match ended {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::message(error.to_string())),
        },
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// The Service that was named, if one was.
async fn service_of(args: &PortForwardArgs, session: &Session) -> Result<Option<Value>, Error> {
    let Some((kind, name)) = args.target.split_once('/') else { return Ok(None) };
    let resource = session.resource(kind).await?;
    if resource.kind != "Service" {
        return Ok(None);
    }
    session.get_object(&resource, &session.namespace, name).await.map(Some)
}

/// Listens on every address that was asked for. `localhost` is both loopbacks, of which one is enough.
async fn listen(
    addresses: &[String],
    mut forward: ports::Forward,
) -> Result<Vec<(TcpListener, ports::Forward)>, Error> {
    let mut listeners = Vec::new();
    for address in addresses {
        let parsed: Vec<IpAddr> = match address.as_str() {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            other => vec![other.parse().map_err(|_| Error::message(format!("{other} is not a valid IP")))?],
        };
        let mut failures = Vec::new();
        let before = listeners.len();
        for ip in parsed {
            let address = SocketAddr::new(ip, forward.local);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    // A port that was left to the system is the same on every address.
                    forward.local = listener.local_addr()?.port();
                    let bound = SocketAddr::new(ip, forward.local);
                    output::line(&format!("Forwarding from {bound} -> {}", forward.remote))?;
                    listeners.push((listener, forward));
                }
                Err(error) => failures.push(format!(
                    "unable to create listener: Error listen tcp{} {address}: bind: {}",
                    if ip.is_ipv4() { '4' } else { '6' },
                    reason(&error)
                )),
            }
        }
        if listeners.len() == before {
            return Err(Error::message(format!(
                "unable to listen on port {}: Listeners failed to create with the following errors: [{}]",
                forward.local,
                failures.join(" ")
            )));
        }
    }
    Ok(listeners)
}

/// An error of the system in its own words, without Rust's number.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn accept(listener: TcpListener, forward: ports::Forward, connection: Connection) -> Result<(), Error> {
    // Bounded by the connection's streams; dropped with this future.
    let mut carrying = JoinSet::new();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    output::line(&format!("Handling connection for {}", forward.local))?;
                    // Two listeners of one port count alike: the port's address family keeps them apart.
                    let family = if listener.local_addr()?.is_ipv4() { 4 } else { 6 };
                    let request = format!("{}-{family}-{number}", forward.local);
                    number += 1;
                    carrying.spawn(carry(stream, forward, connection.clone(), request));
                }
                Err(error) => {
                    output::complain(&format!("error accepting connection on port {}: {error}", forward.local));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = carrying.join_next() => {}
        }
    }
}

async fn carry(stream: TcpStream, forward: ports::Forward, connection: Connection, request: String) {
    let ports::Forward { local, remote } = forward;
    if let Err(why) = streams(stream, remote, &connection, &request).await {
        output::complain(&format!("an error occurred forwarding {local} -> {remote}: {why}"));
    }
}

/// Carries one local connection. An error is what the other side says, or why it could not be asked.
async fn streams(stream: TcpStream, port: u16, connection: &Connection, request: &str) -> Result<(), String> {
    let port = port.to_string();
    let open = async |kind: &str| {
        let headers = Headers::new(&[("streamType", kind), ("port", &port), ("requestID", request)]);
        connection.open(headers).await.map_err(|error| format!("error creating {kind} stream: {error}"))
    };
    let mut complaints = open("error").await?;
    // We have nothing to complain of.
    complaints.writer.shutdown().await.map_err(|error| error.to_string())?;
    let data = open("data").await?;
    let (mut reader, mut writer) = (data.reader, data.writer);
    let (mut from, mut to) = stream.into_split();
    let up = async {
        tokio::io::copy(&mut from, &mut writer).await?;
        writer.shutdown().await
    };
    let down = async {
        tokio::io::copy(&mut reader, &mut to).await?;
        to.shutdown().await
    };
    let carried = async {
        // Either end may break off, and need not say why.
        let _ = tokio::try_join!(up, down);
    };
    let mut why = String::new();
    let complained = async {
        let mut limited = complaints.reader.take(COMPLAINT);
        // A stream that breaks says nothing more.
        let _ = limited.read_to_string(&mut why).await;
        if why.is_empty() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = complained => {}
        () = carried => {}
    }
    if why.is_empty() { Ok(()) } else { Err(why) }
}
