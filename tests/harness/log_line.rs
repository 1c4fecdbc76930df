//! Programs that say in their log when they serve.

use std::{
    io::{BufRead, BufReader},
    process::ChildStderr,
    sync::mpsc::sync_channel,
    time::Instant,
};

use super::PATIENCE;

/// Reads a log until a line contains a phrase; the rest is read, too, so that the program is never held up by it.
pub(super) fn wait_for_line(log: ChildStderr, phrase: &str) {
    let (sender, lines) = sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            // Once the phrase was read nobody listens any more.
            let _ = sender.send(line);
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut read = Vec::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if line.contains(phrase) {
            return;
        }
        read.push(line);
    }
    panic!("the log does not say \"{phrase}\":\n{}", read.join("\n"));
}
