//! Two ends of ours with each other, and one of ours with a peer that is played byte by byte.

use std::time::Duration;

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Connection, Error, Headers, Incoming, Role,
    frame::{Control, HEAD, Head, reset},
    headers::{Packer, Unpacker},
    start,
};

const PATIENCE: Duration = Duration::from_secs(20);

type Running = JoinHandle<Result<(), Error>>;

fn begin(io: DuplexStream, role: Role) -> (Connection, Incoming, Running) {
    let (connection, incoming, run) = start(io, role);
    (connection, incoming, tokio::spawn(run))
}

/// A peer that is played: it writes frames as `spdystream` does, and reads them as they come.
struct Peer {
    io: DuplexStream,
    packer: Packer,
    unpacker: Unpacker,
}

impl Peer {
    fn new(io: DuplexStream) -> Self {
        Self { io, packer: Packer::new(), unpacker: Unpacker::new() }
    }

    async fn send(&mut self, control: Control) {
        let mut bytes = bytes::BytesMut::new();
        control.encode(&mut bytes);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: u32) {
        let block = self.packer.pack(&Headers::new(&[("a", "b")])).into();
        self.send(Control::SynStream { stream, fin: false, unidirectional: false, block }).await;
    }

    async fn data(&mut self, stream: u32, fin: bool, data: &[u8]) {
        self.io.write_all(&Head::data(stream, fin, data.len())).await.unwrap();
        self.io.write_all(data).await.unwrap();
    }

    async fn receive(&mut self) -> (Head, bytes::Bytes) {
        let mut head = [0; HEAD];
        self.io.read_exact(&mut head).await.unwrap();
        let head = Head::parse(head).unwrap();
        let (Head::Control { length, .. } | Head::Data { length, .. }) = head;
        let mut payload = vec![0; length];
        self.io.read_exact(&mut payload).await.unwrap();
        (head, payload.into())
    }

    async fn receive_control(&mut self) -> Control {
        match self.receive().await {
            (Head::Control { kind, flags, .. }, payload) => Control::parse(kind, flags, payload).unwrap(),
            (Head::Data { .. }, payload) => panic!("data instead of a control frame: {payload:?}"),
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it must end in time")
}

#[tokio::test]
async fn many_streams_carry_more_than_any_window_both_ways() {
    const STREAMS: u8 = 20;
    const BYTES: usize = 1 << 20;
    let (left, right) = duplex(4096);
    let (client, _none, client_run) = begin(left, Role::Client);
    let (_server, mut incoming, server_run) = begin(right, Role::Server);
    let serving = tokio::spawn(async move {
        let mut tasks = Vec::new();
        while tasks.len() < usize::from(STREAMS) {
            let stream = incoming.next().await.unwrap();
            stream.reply().unwrap();
            tasks.push(tokio::spawn(async move {
                let (mut reader, mut writer) = (stream.reader, stream.writer);
                // Echoed only once all has come: the client's half is closed by then, ours is not.
                let mut all = Vec::new();
                reader.read_to_end(&mut all).await.unwrap();
                writer.write_all(&all).await.unwrap();
                writer.shutdown().await.unwrap();
                stream.headers.get("Name").unwrap().to_owned()
            }));
        }
        let mut names = Vec::new();
        for task in tasks {
            names.push(task.await.unwrap());
        }
        names
    });
    let mut calls = Vec::new();
    for number in 0..STREAMS {
        let client = client.clone();
        calls.push(tokio::spawn(async move {
            let stream = client.open(Headers::new(&[("name", &number.to_string())])).await.unwrap();
            let (mut reader, mut writer) = (stream.reader, stream.writer);
            let sent = vec![number; BYTES];
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
            let mut back = Vec::new();
            reader.read_to_end(&mut back).await.unwrap();
            assert!(back == sent, "stream {number} came back changed");
        }));
    }
    for call in calls {
        within(call).await.unwrap();
    }
    let mut names = within(serving).await.unwrap();
    names.sort_by_key(|name| name.parse::<u8>().unwrap());
    assert_eq!(names, (0..STREAMS).map(|number| number.to_string()).collect::<Vec<_>>());
    client.close().await;
    within(client_run).await.unwrap().unwrap();
    within(server_run).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_nobody_reads_leaves_others_be() {
    let (left, right) = duplex(4096);
    let (client, _none, _client_run) = begin(left, Role::Client);
    let (_server, mut incoming, _server_run) = begin(right, Role::Server);
    let opening = tokio::spawn(async move {
        let stuck = client.open(Headers::default()).await.unwrap();
        let free = client.open(Headers::default()).await.unwrap();
        (stuck, free)
    });
    let unread = incoming.next().await.unwrap();
    unread.reply().unwrap();
    let mut read = incoming.next().await.unwrap();
    read.reply().unwrap();
    let (mut stuck, mut free) = within(opening).await.unwrap();
    let filling =
        tokio::spawn(async move { stuck.writer.write_all(&[1; 1 << 20]).await.map_err(|e| e.kind()) });
    within(free.writer.write_all(b"through")).await.unwrap();
    let mut seven = [0; 7];
    within(read.reader.read_exact(&mut seven)).await.unwrap();
    assert_eq!(&seven, b"through");
    assert!(!filling.is_finished(), "the window of the other holds it back");
    drop(unread);
    assert_eq!(within(filling).await.unwrap(), Err(std::io::ErrorKind::BrokenPipe), "it was reset");
}

#[tokio::test]
async fn a_peer_without_flow_control_is_sent_no_window_and_waits_for_none() {
    let (ours, theirs) = duplex(1 << 20);
    let (_server, mut incoming, run) = begin(ours, Role::Server);
    let mut peer = Peer::new(theirs);
    peer.open(1).await;
    let mut stream = incoming.next().await.unwrap();
    assert_eq!((stream.id, stream.headers.get("a")), (1, Some("b")));
    stream.reply().unwrap();
    let Control::SynReply { stream: 1, fin: false, block } = peer.receive_control().await else {
        panic!("a reply must come first");
    };
    assert_eq!(peer.unpacker.unpack(&block), Ok(Headers::default()));
    // A frame longer than any piece, and its end.
    peer.data(1, false, &[7; 100_000]).await;
    peer.data(1, true, b"end").await;
    let mut got = Vec::new();
    within(stream.reader.read_to_end(&mut got)).await.unwrap();
    assert_eq!((got.len(), &got[100_000..]), (100_003, &b"end"[..]));
    // Three times the window that nobody has granted.
    within(stream.writer.write_all(&[8; 192 << 10])).await.unwrap();
    within(stream.writer.shutdown()).await.unwrap();
    let mut came = 0;
    loop {
        let (head, payload) = within(peer.receive()).await;
        let Head::Data { stream: 1, fin, .. } = head else { panic!("data must come, not {head:?}") };
        came += payload.len();
        if fin {
            break;
        }
    }
    assert_eq!(came, 192 << 10);
    peer.send(Control::Ping(1)).await;
    assert_eq!(within(peer.receive_control()).await, Control::Ping(1));
    drop(peer);
    within(run).await.unwrap().unwrap();
}

#[tokio::test]
async fn resets_reach_both_halves() {
    let (ours, theirs) = duplex(1 << 16);
    let (_server, mut incoming, _run) = begin(ours, Role::Server);
    let mut peer = Peer::new(theirs);
    peer.open(1).await;
    let mut stream = incoming.next().await.unwrap();
    peer.data(1, false, b"x").await;
    peer.send(Control::Reset { stream: 1, status: reset::CANCEL }).await;
    let mut got = Vec::new();
    let error = within(stream.reader.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!((error.kind(), &got[..]), (std::io::ErrorKind::ConnectionReset, &b"x"[..]));
    assert!(within(stream.writer.write_all(b"y")).await.is_err());
    // One that is dropped unanswered is reset to its opener.
    peer.open(3).await;
    drop(incoming.next().await.unwrap());
    assert_eq!(within(peer.receive_control()).await, Control::Reset { stream: 3, status: reset::CANCEL });
    // Data of a stream that never was.
    peer.data(9, false, b"x").await;
    assert_eq!(
        within(peer.receive_control()).await,
        Control::Reset { stream: 9, status: reset::INVALID_STREAM }
    );
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_goodbye() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x80\x03\x00\x01\x00\x00\x00\x0e\0\0\0\x01\0\0\0\0\0\0what"]
    {
        let (ours, theirs) = duplex(1 << 16);
        let (_server, _incoming, run) = begin(ours, Role::Server);
        let mut peer = Peer::new(theirs);
        peer.io.write_all(bytes).await.unwrap();
        // "GET " is a data frame of a stream that never was, as long as the three bytes after say; it never comes.
        peer.io.shutdown().await.unwrap();
        assert!(within(run).await.unwrap().is_err());
    }
    let (ours, theirs) = duplex(1 << 16);
    let (_server, _incoming, run) = begin(ours, Role::Server);
    let mut peer = Peer::new(theirs);
    peer.open(2).await;
    assert_eq!(within(peer.receive_control()).await, Control::GoAway { last: 0, status: 1 });
    drop(peer);
    assert!(matches!(within(run).await.unwrap(), Err(Error::Protocol(_))));
}

proptest! {
    /// Frames of any type with any content, and bytes that are no frames: the connection ends, and nothing panics.
    #[test]
    fn hostile_peers_end_their_own_connection_only(
        frames in proptest::collection::vec((0_u16..12, any::<u8>(), 1_u32..12, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        rest in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (ours, mut theirs) = duplex(1 << 16);
            let (_server, mut incoming, run) = begin(ours, Role::Server);
            let taking = tokio::spawn(async move {
                while let Some(mut stream) = incoming.next().await {
                    let _ = stream.reply();
                    let mut all = Vec::new();
                    let _ = stream.reader.read_to_end(&mut all).await;
                }
            });
            let mut packer = Packer::new();
            let mut bytes = Vec::new();
            for (kind, flags, stream, payload) in frames {
                let payload = match kind {
                    // Streams that open well, whose data may be anything.
                    1 => [&stream.to_be_bytes()[..], &[0; 6], &packer.pack(&Headers::new(&[("a", "b")]))].concat(),
                    3 | 7 | 9 => [stream.to_be_bytes(), [0, payload.len() as u8, 0, 0]].concat(),
                    6 => stream.to_be_bytes().to_vec(),
                    _ => payload,
                };
                let first = if kind == 0 { stream } else { 0x8003_0000 | u32::from(kind) };
                bytes.extend_from_slice(&first.to_be_bytes());
                bytes.extend_from_slice(&(u32::from(flags & 3) << 24 | payload.len() as u32).to_be_bytes());
                bytes.extend_from_slice(&payload);
            }
            bytes.extend_from_slice(&rest);
            // The other end may have hung up by now.
            let _ = theirs.write_all(&bytes).await;
            let _ = theirs.shutdown().await;
            let mut answers = Vec::new();
            let _ = within(theirs.read_to_end(&mut answers)).await;
            let _ended = within(run).await.expect("it must not panic");
            within(taking).await.expect("it must not panic");
        });
    }
}
