//! The options of what streams out of and into containers: logs, exec, attach.

use jiff::Timestamp;

use super::query::{Query, QueryWriter};
use crate::field::{FieldError, Path};
use crate::status::Status;
use crate::time;

/// The options of `pods/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogParams {
    /// Which container; empty for the only one.
    pub container: String,
    /// Whether to go on as the container writes.
    pub follow: bool,
    /// Whether the container before the last restart is meant.
    pub previous: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<i64>,
    /// Only lines from then on.
    pub since_time: Option<Timestamp>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<i64>,
    /// At most so many bytes.
    pub limit_bytes: Option<i64>,
    /// `All`, `Stdout` or `Stderr`; empty means all.
    pub stream: String,
}

impl LogParams {
    /// Reads a query.
    ///
    /// # Errors
    /// A bad request for what cannot be read, Invalid for what makes no sense.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let query = Query::parse(query);
        let since_time = match query.first("sinceTime") {
            None | Some("") => None,
            Some(text) => Some(time::parse(text).ok_or_else(|| {
                Status::bad_request(format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse"
                ))
            })?),
        };
        let on = |name: &str| query.switch(name).unwrap_or(false);
        let params = Self {
            container: query.text("container"),
            follow: on("follow"),
            previous: on("previous"),
            since_seconds: query.integer("sinceSeconds")?,
            since_time,
            timestamps: on("timestamps"),
            tail_lines: query.integer("tailLines")?,
            limit_bytes: query.integer("limitBytes")?,
            stream: query.text("stream"),
        };
        let errors = params.check();
        if errors.is_empty() { Ok(params) } else { Err(Status::invalid("", "PodLogOptions", "", &errors)) }
    }

    /// The rules of `k8s.io/kubernetes/pkg/apis/core/validation`'s `ValidatePodLogOptions`.
    fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(lines) = self.tail_lines.filter(|lines| *lines < 0) {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(&Path::new("tailLines"), lines, detail));
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(FieldError::invalid(&Path::new("limitBytes"), bytes, "must be greater than 0"));
        }
        if self.since_seconds.is_some() && self.since_time.is_some() {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::default(), detail));
        } else if let Some(seconds) = self.since_seconds.filter(|seconds| *seconds < 1) {
            errors.push(FieldError::invalid(&Path::new("sinceSeconds"), seconds, "must be greater than 0"));
        }
        if !matches!(self.stream.as_str(), "" | "All" | "Stdout" | "Stderr") {
            let supported = ["All", "Stdout", "Stderr"];
            errors.push(FieldError::not_supported(&Path::new("stream"), self.stream.as_str(), &supported));
        }
        errors
    }

    /// Writes a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = QueryWriter::default();
        query.put_text("container", &self.container);
        query.put_switch("follow", self.follow);
        query.put_option("limitBytes", self.limit_bytes);
        query.put_switch("previous", self.previous);
        query.put_option("sinceSeconds", self.since_seconds);
        query.put_option("sinceTime", self.since_time.map(time::rfc3339));
        query.put_text("stream", &self.stream);
        query.put_option("tailLines", self.tail_lines);
        query.put_switch("timestamps", self.timestamps);
        query.finish()
    }
}

/// The options of `pods/exec` and, without a command, `pods/attach`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecParams {
    /// Which container; empty for the only one.
    pub container: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Whether the client sends input.
    pub stdin: bool,
    /// Whether the client takes output.
    pub stdout: bool,
    /// Whether the client takes errors apart from output.
    pub stderr: bool,
    /// Whether there is a terminal.
    pub tty: bool,
}

impl ExecParams {
    /// Reads a query. For attach, where no command is given, output and errors are on unless turned off, as
    /// upstream's defaults have it; for exec likewise.
    ///
    /// # Errors
    /// None so far; the form is that of its siblings.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let query = Query::parse(query);
        Ok(Self {
            container: query.text("container"),
            command: query.all("command").map(str::to_owned).collect(),
            stdin: query.switch("stdin").unwrap_or(false),
            stdout: query.switch("stdout").unwrap_or(true),
            stderr: query.switch("stderr").unwrap_or(true),
            tty: query.switch("tty").unwrap_or(false),
        })
    }

    /// Writes a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = QueryWriter::default();
        for part in &self.command {
            query.put("command", part);
        }
        query.put_text("container", &self.container);
        query.put_switch("stdin", self.stdin);
        query.put("stdout", if self.stdout { "true" } else { "false" });
        query.put("stderr", if self.stderr { "true" } else { "false" });
        query.put_switch("tty", self.tty);
        query.finish()
    }
}
