//! The thread that does what the writer must not wait for: preparing segments and writing checkpoints.
//!
//! Neither is needed for correctness at any moment. If it fails (the disk is full), the writer goes on with
//! what there is, and asks again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc::Receiver,
};

use super::{Shared, checkpoint, error::OpenError, ttl::Clock};
use crate::store::Revision;

/// What the writer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Job {
    /// Make the next segment ready.
    Prepare,
    /// Write a checkpoint at the floor of the history, and remove what is below it.
    Checkpoint,
}

/// Which jobs wait or run, so that each is asked for once.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    prepare: AtomicBool,
    checkpoint: AtomicBool,
}

impl Asked {
    /// Answers whether the job was not asked for before.
    pub(crate) fn begin(&self, job: Job) -> bool {
        !self.flag(job).swap(true, Ordering::AcqRel)
    }

    pub(crate) fn end(&self, job: Job) {
        self.flag(job).store(false, Ordering::Release);
    }

    fn flag(&self, job: Job) -> &AtomicBool {
        match job {
            Job::Prepare => &self.prepare,
            Job::Checkpoint => &self.checkpoint,
        }
    }
}

/// Works until the writer has ended.
pub(crate) fn run(shared: &Arc<Shared>, jobs: &Receiver<Job>, clock: Clock) {
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Prepare => {
                if let Err(error) = shared.segments.prepare() {
                    tracing::warn!(%error, "failed to prepare the next log segment; it will be made when it is needed");
                }
            }
            Job::Checkpoint => {
                if let Err(error) = write_checkpoint(shared, clock.now()) {
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, source, "failed to write a checkpoint; the log grows until one succeeds");
                }
            }
        }
        shared.asked.end(job);
    }
}

/// Writes a checkpoint at the history's floor and removes the files that it replaces.
pub(crate) fn write_checkpoint(shared: &Shared, now: u64) -> Result<Revision, OpenError> {
    let (mut snapshot, floor, events) = {
        let hub = shared.hub.lock();
        let floor = hub.history.floor();
        let events: Vec<_> = hub.history.after(floor).cloned().collect();
        ((**shared.snapshot.load()).clone(), floor, events)
    };
    for event in events.iter().rev() {
        snapshot.undo(event);
    }
    drop(events);
    snapshot.revision = floor;
    let segments = &shared.segments;
    let (io, dir) = (&*segments.io, &*segments.dir);
    checkpoint::write(io, dir, segments.store_id, &snapshot, now)?;
    drop(snapshot);
    super::remove_checkpoints_before(io, dir, floor)?;
    segments.remove_through(floor).map_err(|source| OpenError::Io {
        action: "remove old segments in",
        path: dir.to_owned(),
        source,
    })?;
    Ok(floor)
}
