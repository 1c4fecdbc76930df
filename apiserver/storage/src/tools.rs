//! `store verify|repair|backup|restore|migrate`: the commands for a store that no API server has open.
//!
//! Mounted by the binaries as a subcommand; the work is done by [`crate::embedded`] and [`crate::migrate`].

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};

use crate::{
    backend::Backend,
    embedded::{self, EmbeddedStore, Io, OpenError, Options, REVISION_BUMP, RealIo, Repaired, Report},
    etcd::{EtcdOptions, EtcdStore},
    migrate::{MigrateError, migrate},
    store::{Revision, StoreError},
};

/// Look after the store of a cluster
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Read every byte of an embedded store and list all damage; the store may be in use
    Verify {
        /// Where the store is.
        #[command(flatten)]
        place: Place,
    },
    /// Rebuild a damaged embedded store from everything in it that is whole; the old files are kept beside it
    Repair {
        /// Where the store is.
        #[command(flatten)]
        place: Place,
    },
    /// Write the state of an embedded store into one file; the store may be in use
    Backup {
        /// Where the store is.
        #[command(flatten)]
        place: Place,
        /// The file to make; must not exist
        file: PathBuf,
    },
    /// Make an embedded store from a backup; its directory must be missing or empty
    Restore {
        /// Where the store is.
        #[command(flatten)]
        place: Place,
        /// The backup
        file: PathBuf,
        /// How far the revision jumps ahead of the backup's: beyond whatever clients saw since
        #[arg(long, value_name = "COUNT", default_value_t = REVISION_BUMP)]
        bump_revision: Revision,
    },
    /// Copy a cluster from one store to another, which must be empty; revisions go on, never back
    Migrate {
        /// The old store: a directory, or URLs of etcd separated by commas
        #[arg(long, value_name = "STORE")]
        from: String,
        /// The new store: a directory, or URLs of etcd separated by commas
        #[arg(long, value_name = "STORE")]
        to: String,
        /// How to reach etcd.
        #[command(flatten)]
        etcd: Box<EtcdFlags>,
    },
}

/// Where the embedded store is.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Directory of the cluster, which holds the store in `store/` [default: ~/.minik8s]
    #[arg(long, env = "MINIK8S_HOME", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// How to reach etcd.
#[derive(Debug, Clone, Args)]
pub struct EtcdFlags {
    /// Prefix of all keys in etcd
    #[arg(long, value_name = "PREFIX", default_value = "")]
    etcd_prefix: String,
    /// PEM file with the CA of etcd's certificates
    #[arg(long, value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// PEM file with the client certificate for etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    etcd_certfile: Option<PathBuf>,
    /// PEM file with the key of that certificate
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    etcd_keyfile: Option<PathBuf>,
    /// User name in etcd
    #[arg(long, value_name = "NAME", requires = "etcd_password_file")]
    etcd_user: Option<String>,
    /// File with that user's password
    #[arg(long, value_name = "FILE", requires = "etcd_user")]
    etcd_password_file: Option<PathBuf>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The store is damaged; the report has been printed.
    #[error(
        "the store is damaged; `minik8s store repair` salvages what is whole, `restore` goes back to a backup"
    )]
    Damaged,
    /// Neither a directory was named nor is there a home to find the default in.
    #[error("no directory: give --data-dir, or set HOME")]
    NoHome,
    /// The embedded store refused.
    #[error("failed to work on the embedded store")]
    Embedded(#[from] OpenError),
    /// A store could not be reached.
    #[error("failed to reach the store")]
    Store(#[from] StoreError),
    /// Not everything was moved.
    #[error("failed to migrate")]
    Migrate(#[from] MigrateError),
    /// A file named on the command line could not be read.
    #[error("failed to read `{}`", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The outcome could not be printed.
    #[error("failed to print the outcome")]
    Print(#[from] std::io::Error),
}

impl StoreCommand {
    /// Carries out the command and prints its outcome.
    ///
    /// # Errors
    /// If the command fails; also if `verify` finds damage.
    pub async fn run(self, output: &mut (impl Write + Send)) -> Result<(), ToolError> {
        let io: Arc<dyn Io> = Arc::new(RealIo::default());
        match self {
            Self::Verify { place } => {
                let report = embedded::verify(&place.store()?, &*io)?;
                print(output, &report)?;
                if !report.damage.is_empty() {
                    return Err(ToolError::Damaged);
                }
            }
            Self::Repair { place } => match embedded::repair(&place.store()?, &io)? {
                Repaired::Nothing(report) => {
                    print(output, &report)?;
                    writeln!(output, "nothing to repair")?;
                }
                Repaired::Rebuilt { report, revision, kept } => {
                    print(output, &report)?;
                    writeln!(output, "rebuilt; goes on at revision {revision}")?;
                    writeln!(output, "the damaged files are kept in {}", kept.display())?;
                }
            },
            Self::Backup { place, file } => {
                let report = embedded::backup(&place.store()?, &file, &*io)?;
                let (entries, revision) = (report.entries, report.revision);
                writeln!(output, "{entries} entries at revision {revision} written to {}", file.display())?;
            }
            Self::Restore { place, file, bump_revision } => {
                let dir = place.store()?;
                let revision = embedded::restore(&file, &dir, bump_revision, &io)?;
                writeln!(output, "restored to {}; goes on at revision {revision}", dir.display())?;
            }
            Self::Migrate { from, to, etcd } => {
                let (from, to) = (etcd.open(&from, &io).await?, etcd.open(&to, &io).await?);
                let moved = migrate(&from, &to).await;
                from.close().await;
                to.close().await;
                let moved = moved?;
                writeln!(
                    output,
                    "{} entries moved; the old store ended at revision {}, the new one goes on at {}",
                    moved.entries, moved.from, moved.to
                )?;
            }
        }
        Ok(())
    }
}

impl Place {
    fn store(&self) -> Result<PathBuf, ToolError> {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".minik8s"));
        let data_dir = self.data_dir.clone().or_else(home).ok_or(ToolError::NoHome)?;
        Ok(data_dir.join("store"))
    }
}

impl EtcdFlags {
    /// Opens what a `--from` or `--to` names.
    async fn open(&self, store: &str, io: &Arc<dyn Io>) -> Result<Backend, ToolError> {
        if !store.starts_with("http://") && !store.starts_with("https://") {
            let opened = EmbeddedStore::open(Path::new(store), &Options::default(), Arc::clone(io))?;
            return Ok(Backend::Embedded(opened));
        }
        let mut options = EtcdOptions::new(store.split(',').map(str::to_owned).collect());
        options.prefix = self.etcd_prefix.clone();
        // One pass over everything needs one revision from its begin to its end.
        options.compaction_interval = None;
        options.ca = self.etcd_cafile.as_deref().map(read).transpose()?;
        if let (Some(certificate), Some(key)) = (&self.etcd_certfile, &self.etcd_keyfile) {
            options.identity = Some((read(certificate)?, read(key)?));
        }
        if let (Some(name), Some(password)) = (&self.etcd_user, &self.etcd_password_file) {
            let password = String::from_utf8_lossy(&read(password)?).trim_end().to_owned();
            options.user = Some((name.clone(), password));
        }
        Ok(Backend::Etcd(Box::new(EtcdStore::connect(options).await?)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ToolError> {
    std::fs::read(path).map_err(|source| ToolError::Read { path: path.to_owned(), source })
}

fn print(output: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(
        output,
        "revision {}, {} entries of {} bytes",
        report.revision, report.entries, report.live_bytes
    )?;
    writeln!(output, "{} checkpoint(s), {} log segment(s)", report.checkpoints.len(), report.segments)?;
    if report.torn_tail {
        writeln!(
            output,
            "the last batch was never finished; the next start cuts it off (this is no damage)"
        )?;
    }
    for damage in &report.damage {
        writeln!(output, "damaged: {damage}")?;
    }
    for (first, last) in &report.lost {
        writeln!(output, "lost: revisions {first} to {last}")?;
    }
    for key in &report.doubtful {
        writeln!(output, "doubtful: {key} (a write of it was lost)")?;
    }
    if report.damage.is_empty() {
        writeln!(output, "sound")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::store::Store;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: StoreCommand,
    }

    async fn run(args: &[&str]) -> (Result<(), ToolError>, String) {
        let mut output = Vec::new();
        let command = Cli::try_parse_from([&["store"], args].concat()).unwrap().command;
        let outcome = command.run(&mut output).await;
        (outcome, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_commands_describe_themselves() {
        Cli::command().debug_assert();
        let mut cli = Cli::command();
        let verify = cli.find_subcommand_mut("verify").unwrap().render_long_help().to_string();
        assert!(verify.starts_with("Read every byte"), "{verify}");
        assert!(verify.contains("--data-dir"), "{verify}");
    }

    #[tokio::test]
    async fn a_store_is_verified_backed_up_restored_and_moved() {
        let home = tempfile::tempdir().unwrap();
        let home = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
        let store_dir = format!("{}/store", home("a"));
        let io: Arc<dyn Io> = Arc::new(RealIo::default());
        let store = EmbeddedStore::open(Path::new(&store_dir), &Options::default(), Arc::clone(&io)).unwrap();
        store.create("/registry/core/configmaps/default/a", Bytes::from("1"), None).await.unwrap();
        store.close().await;
        drop(store);

        let (outcome, text) = run(&["verify", "--data-dir", &home("a")]).await;
        outcome.unwrap();
        assert_eq!(text, "revision 1, 1 entries of 36 bytes\n0 checkpoint(s), 1 log segment(s)\nsound\n");
        let (outcome, text) = run(&["repair", "--data-dir", &home("a")]).await;
        outcome.unwrap();
        assert!(text.ends_with("nothing to repair\n"), "{text}");
        run(&["backup", "--data-dir", &home("a"), &home("file")]).await.0.unwrap();
        run(&["restore", "--data-dir", &home("b"), "--bump-revision", "99", &home("file")]).await.0.unwrap();
        let (outcome, text) =
            run(&["migrate", "--from", &format!("{}/store", home("b")), "--to", &home("c")]).await;
        outcome.unwrap();
        assert_eq!(
            text,
            "1 entries moved; the old store ended at revision 100, the new one goes on at 101\n"
        );
        let (outcome, _) = run(&["verify", "--data-dir", &home("nowhere")]).await;
        assert!(matches!(outcome, Err(ToolError::Embedded(OpenError::Missing(_)))));
    }
}
