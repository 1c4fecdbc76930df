//! `kubectl cp`: files to and from containers, through `tar` inside them.
//!
//! Rules and texts of `k8s.io/kubectl/pkg/cmd/cp`. What is copied passes through a file without a name, so that
//! neither side's `tar` waits for the other and memory does not grow with what is copied.

mod archive;

use std::path::Path;

use api_objects::Value;
use api_objects::params::ExecParams;
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, Empty};

use crate::cli::CpArgs;
use crate::describe::text_at;
use crate::error::Error;
use crate::output;
use crate::remote::{self, Ends};
use crate::session::Session;

/// A side of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    Local(String),
    Remote { namespace: Option<String>, pod: String, path: String },
}

impl Side {
    /// Reads `[[NAMESPACE/]POD:]PATH`. A name with a slash or dot before its colon is a local path.
    fn parse(text: &str) -> Result<Self, Error> {
        let Some((before, path)) = text.split_once(':') else { return Ok(Self::Local(text.to_owned())) };
        if before.is_empty() {
            return Err(Error::message(
                "filespec must match the canonical format: [[namespace/]pod:]file/path",
            ));
        }
        if before.starts_with(['/', '.']) {
            return Ok(Self::Local(text.to_owned()));
        }
        let path = path.to_owned();
        match before.split('/').collect::<Vec<_>>().as_slice() {
            [pod] => Ok(Self::Remote { namespace: None, pod: (*pod).to_owned(), path }),
            [namespace, pod] => {
                Ok(Self::Remote { namespace: Some((*namespace).to_owned()), pod: (*pod).to_owned(), path })
            }
            _ => Err(Error::message("filespec must match the canonical format: [[namespace/]pod:]file/path")),
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::Local(path) | Self::Remote { path, .. } => path,
        }
    }
}

/// The container that is copied to or from.
struct Container<'a> {
    session: &'a Session,
    namespace: String,
    pod: String,
    name: String,
}

/// Carries out the command.
pub(crate) async fn run(args: &CpArgs, session: &Session) -> Result<(), Error> {
    let (from, to) = (Side::parse(&args.source)?, Side::parse(&args.destination)?);
    if from.path().is_empty() || to.path().is_empty() {
        return Err(Error::message("filepath can not be empty"));
    }
    match (&from, &to) {
        (Side::Remote { .. }, Side::Remote { .. }) => {
            Err(Error::message("one of src or dest must be a local file specification"))
        }
        (Side::Local(_), Side::Local(_)) => {
            Err(Error::message("one of src or dest must be a remote file specification"))
        }
        (Side::Remote { namespace, pod, path }, Side::Local(local)) => {
            let container = find(args, session, namespace.as_deref(), pod).await?;
            download(&container, path, Path::new(local), args.retries).await
        }
        (Side::Local(local), Side::Remote { namespace, pod, path }) => {
            if std::fs::symlink_metadata(local).is_err() {
                return Err(Error::message(format!("{local} doesn't exist in local filesystem")));
            }
            let container = find(args, session, namespace.as_deref(), pod).await?;
            upload(&container, Path::new(local), path, args.no_preserve).await
        }
    }
}

async fn find<'a>(
    args: &CpArgs,
    session: &'a Session,
    namespace: Option<&str>,
    pod: &str,
) -> Result<Container<'a>, Error> {
    let namespace = namespace.unwrap_or(&session.namespace).to_owned();
    let found: Value = session.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}")).await?;
    let phase = text_at(&found, "/status/phase", "");
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::message(format!(
            "cannot exec into a container in a completed pod; current phase is {phase}"
        )));
    }
    let name = remote::container(&found, args.container.as_deref(), true)?;
    Ok(Container { session, namespace, pod: pod.to_owned(), name })
}

impl Container<'_> {
    /// Runs a command in the container.
    async fn execute<O>(&self, command: &[&str], stdin: Option<File>, stdout: O) -> Result<(), Error>
    where
        O: tokio::io::AsyncWrite + Unpin,
    {
        let path = self.path(command, stdin.is_some());
        let ends = Ends { stdin, stdout, stderr: tokio::io::stderr() };
        remote::execute(self.session, &path, ends).await
    }

    /// Whether a command succeeds, whatever it says.
    async fn succeeds(&self, command: &[&str]) -> Result<bool, Error> {
        let ends = Ends { stdin: None::<Empty>, stdout: tokio::io::sink(), stderr: tokio::io::sink() };
        match remote::execute(self.session, &self.path(command, false), ends).await {
            Ok(()) => Ok(true),
            Err(Error::Exit(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn path(&self, command: &[&str], stdin: bool) -> String {
        let params = ExecParams {
            container: self.name.clone(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            stdin,
            stdout: true,
            stderr: true,
            tty: false,
        };
        format!("/api/v1/namespaces/{}/pods/{}/exec?{}", self.namespace, self.pod, params.to_query())
    }
}

async fn upload(
    container: &Container<'_>,
    local: &Path,
    remote: &str,
    no_preserve: bool,
) -> Result<(), Error> {
    // Into a directory that is there, under its own name; otherwise to the name that is given.
    let target = if container.succeeds(&["test", "-d", remote]).await? {
        let name = archive::base_name(local)?;
        format!("{}/{name}", remote.trim_end_matches('/'))
    } else {
        archive::clean(remote)
    };
    let (directory, name) = match target.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => ("", target.as_str()),
    };
    let packed = archive::pack(local, name)?;
    let mut command = vec!["tar"];
    if no_preserve {
        command.extend(["--no-same-permissions", "--no-same-owner"]);
    }
    command.extend(["-xmf", "-"]);
    if !directory.is_empty() {
        command.extend(["-C", directory]);
    }
    container.execute(&command, Some(File::from_std(packed)), tokio::io::stdout()).await
}

async fn download(
    container: &Container<'_>,
    remote: &str,
    local: &Path,
    most_retries: i32,
) -> Result<(), Error> {
    let mut packed = File::from_std(tempfile::tempfile()?);
    // A failure of `tar` is told after what it did send is kept, as it is by a `tar | tar` of one's own.
    let mut copied = container.execute(&["tar", "cf", "-", remote], None, &mut packed).await;
    let (mut retries, mut had) = (0, 0);
    while let Err(error) = &copied {
        let have = packed.stream_position().await?;
        // An attempt that brought nothing says what is wrong; another would say the same.
        if have == had {
            break;
        }
        if most_retries >= 0 && retries >= most_retries {
            if most_retries > 0 {
                output::complain(&format!("Dropping out copy after {retries} retries"));
            }
            break;
        }
        (retries, had) = (retries + 1, have);
        output::complain(&format!("Resuming copy at {have} bytes, retry {retries}/{most_retries} - {error}"));
        let rest = format!("tar cf - {} | tail -c+{}", quoted(remote), have + 1);
        let resumed = container.execute(&["sh", "-c", &rest], None, &mut packed).await;
        // Its exit code is that of `tail`, whatever became of `tar`.
        if resumed.is_err() || packed.stream_position().await? > have {
            copied = resumed;
        }
    }
    packed.rewind().await?;
    let warnings = archive::unpack(packed.into_std().await, &archive::prefix(remote), local)?;
    for warning in warnings {
        output::complain(&format!("warning: {warning}"));
    }
    copied
}

/// A word as a shell takes it whole.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_as_people_write_them() {
        let remote = |namespace: Option<&str>, pod: &str, path: &str| Side::Remote {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: path.to_owned(),
        };
        assert_eq!(Side::parse("a/b").unwrap(), Side::Local("a/b".to_owned()));
        assert_eq!(Side::parse("./a:b").unwrap(), Side::Local("./a:b".to_owned()));
        assert_eq!(Side::parse("p:/x").unwrap(), remote(None, "p", "/x"));
        assert_eq!(Side::parse("n/p:x:y").unwrap(), remote(Some("n"), "p", "x:y"));
        assert!(Side::parse(":x").is_err() && Side::parse("a/b/c:x").is_err());
    }
}
