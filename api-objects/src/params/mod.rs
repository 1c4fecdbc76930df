//! The options of requests: query strings ⇄ structs, both ways, with upstream's checks.
//!
//! One struct per verb, used by the server to read and by clients to write, so that the two cannot drift apart.
//! Checks and texts are those of `k8s.io/apimachinery/pkg/apis/meta/{v1,internalversion}/validation`.

mod query;
mod streams;

use serde::{Deserialize, Serialize};

pub use query::{Query, QueryWriter, percent_encode};
pub use streams::{ExecParams, LogParams};

use crate::field::{FieldError, Path};
use crate::schema::FieldValidation;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::Status;

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errors)) }
}

/// How the resource version of a list is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// Exactly that revision.
    Exact,
    /// That one or a later one.
    NotOlderThan,
}

impl VersionMatch {
    fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "Exact",
            Self::NotOlderThan => "NotOlderThan",
        }
    }
}

/// The options of list, watch and deletecollection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListParams {
    /// Only objects with such labels.
    pub label_selector: LabelSelector,
    /// Only objects with such fields.
    pub field_selector: FieldSelector,
    /// At most so many objects; 0 for all.
    pub limit: u64,
    /// Where to go on; empty for the start.
    pub continue_token: String,
    /// Empty, `0` or a revision in decimal.
    pub resource_version: String,
    /// How that revision is meant.
    pub resource_version_match: Option<VersionMatch>,
    /// Whether to watch instead of listing.
    pub watch: bool,
    /// Whether the watch may carry bookmarks.
    pub allow_watch_bookmarks: bool,
    /// Whether the watch begins with the objects that exist.
    pub send_initial_events: Option<bool>,
    /// When to end the watch, in seconds.
    pub timeout_seconds: Option<u64>,
    /// Whether people read the answer.
    pub pretty: bool,
}

impl ListParams {
    /// Reads a query.
    ///
    /// # Errors
    /// A bad request for what cannot be read, Invalid for what makes no sense together.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let query = Query::parse(query);
        let bad = |error: crate::selector::SelectorError| Status::bad_request(error.to_string());
        let mut errors = Vec::new();
        let watch = query.switch("watch").unwrap_or(false);
        let matching = Path::new("resourceVersionMatch");
        let match_text = query.text("resourceVersionMatch");
        let resource_version_match = match match_text.as_str() {
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            _ => None,
        };
        let unsigned = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let params = Self {
            label_selector: LabelSelector::parse(&query.text("labelSelector")).map_err(bad)?,
            field_selector: FieldSelector::parse(&query.text("fieldSelector")).map_err(bad)?,
            limit: unsigned(query.integer("limit")?).unwrap_or(0),
            continue_token: query.text("continue"),
            resource_version: query.text("resourceVersion"),
            resource_version_match,
            watch,
            allow_watch_bookmarks: query.switch("allowWatchBookmarks").unwrap_or(false),
            send_initial_events: query.switch("sendInitialEvents"),
            timeout_seconds: unsigned(query.integer("timeoutSeconds")?),
            pretty: query.switch("pretty").unwrap_or(false),
        };
        let mut forbid = |path: &Path, detail: &str| errors.push(FieldError::forbidden(path, detail));
        if watch {
            params.check_watch(&match_text, &matching, &mut errors);
        } else {
            if !match_text.is_empty() {
                if params.resource_version.is_empty() {
                    forbid(&matching, "resourceVersionMatch is forbidden unless resourceVersion is provided");
                }
                if !params.continue_token.is_empty() {
                    forbid(&matching, "resourceVersionMatch is forbidden when continue is provided");
                }
                if resource_version_match == Some(VersionMatch::Exact) && params.resource_version == "0" {
                    let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    forbid(&matching, detail);
                }
                if resource_version_match.is_none() {
                    let supported = ["Exact", "NotOlderThan", ""];
                    errors.push(FieldError::not_supported(&matching, match_text, &supported));
                }
            }
            if params.send_initial_events.is_some() {
                let path = Path::new("sendInitialEvents");
                errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
            }
        }
        refuse("ListOptions", &errors)?;
        Ok(params)
    }

    fn check_watch(&self, match_text: &str, matching: &Path, errors: &mut Vec<FieldError>) {
        let not_older = match_text == VersionMatch::NotOlderThan.as_str();
        if self.send_initial_events.is_some() && !not_older {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(FieldError::forbidden(matching, detail));
        }
        if match_text.is_empty() {
            return;
        }
        if self.send_initial_events.is_none() {
            let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(FieldError::forbidden(matching, detail));
        }
        if !not_older {
            errors.push(FieldError::not_supported(matching, match_text, &["NotOlderThan"]));
        }
        if !self.continue_token.is_empty() {
            let detail = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(FieldError::forbidden(matching, detail));
        }
    }

    /// Writes a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = QueryWriter::default();
        query.put_text("labelSelector", &self.label_selector.to_string());
        query.put_text("fieldSelector", &self.field_selector.to_string());
        query.put_option("limit", (self.limit > 0).then_some(self.limit));
        query.put_text("continue", &self.continue_token);
        query.put_text("resourceVersion", &self.resource_version);
        query.put_option("resourceVersionMatch", self.resource_version_match.map(VersionMatch::as_str));
        query.put_switch("watch", self.watch);
        query.put_switch("allowWatchBookmarks", self.allow_watch_bookmarks);
        query.put_option("sendInitialEvents", self.send_initial_events);
        query.put_option("timeoutSeconds", self.timeout_seconds);
        query.put_switch("pretty", self.pretty);
        query.finish()
    }
}

/// The options of get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetParams {
    /// Empty, `0` or a revision in decimal: not older than this.
    pub resource_version: String,
    /// Whether people read the answer.
    pub pretty: bool,
}

impl GetParams {
    /// Reads a query.
    ///
    /// # Errors
    /// None so far; the form is that of its siblings.
    pub fn parse(query: &str) -> Result<Self, Status> {
        let query = Query::parse(query);
        Ok(Self {
            resource_version: query.text("resourceVersion"),
            pretty: query.switch("pretty").unwrap_or(false),
        })
    }

    /// Writes a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = QueryWriter::default();
        query.put_text("resourceVersion", &self.resource_version);
        query.put_switch("pretty", self.pretty);
        query.finish()
    }
}

/// The options of create, update and patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteParams {
    /// Whether everything is done but the write.
    pub dry_run: bool,
    /// Who owns the written fields; empty for the default, the user agent.
    pub field_manager: String,
    /// What becomes of unknown fields.
    pub field_validation: FieldValidation,
    /// Whether a server-side apply takes fields from others.
    pub force: bool,
    /// Whether people read the answer.
    pub pretty: bool,
}

/// The verb whose options [`WriteParams`] are: names them in errors and decides what may stand in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteVerb {
    /// POST
    Create,
    /// PUT
    Update,
    /// PATCH with a JSON, merge or strategic merge patch.
    Patch,
    /// PATCH with an apply configuration.
    Apply,
}

impl WriteVerb {
    fn options(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
}

fn check_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut dry_run = false;
    for value in values {
        if value == "All" {
            dry_run = true;
        } else {
            errors.push(FieldError::not_supported(&Path::new("dryRun"), value, &["All"]));
        }
    }
    dry_run
}

impl WriteParams {
    /// Reads the query of a verb.
    ///
    /// # Errors
    /// Invalid, naming the verb's options.
    pub fn parse(query: &str, verb: WriteVerb) -> Result<Self, Status> {
        let query = Query::parse(query);
        let mut errors = Vec::new();
        let dry_run = check_dry_run(query.all("dryRun"), &mut errors);
        let field_manager = query.text("fieldManager");
        let force = query.switch("force");
        let manager_path = Path::new("fieldManager");
        match verb {
            WriteVerb::Apply if field_manager.is_empty() => {
                errors.push(FieldError::required(&manager_path, "is required for apply patch"));
            }
            WriteVerb::Patch if force.is_some() => {
                let detail = "may not be specified for non-apply patch";
                errors.push(FieldError::forbidden(&Path::new("force"), detail));
            }
            _ => {}
        }
        // The bound keeps managed fields small.
        if field_manager.len() > 128 {
            errors.push(FieldError::too_long(&manager_path, 128));
        }
        if field_manager.chars().any(char::is_control) {
            let detail = "should only contain printable characters";
            errors.push(FieldError::invalid(&manager_path, field_manager.as_str(), detail));
        }
        let validation = query.first("fieldValidation").unwrap_or_default();
        let field_validation = FieldValidation::parse(validation).unwrap_or_else(|| {
            let path = Path::new("fieldValidation");
            errors.push(FieldError::not_supported(&path, validation, &["", "Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        });
        refuse(verb.options(), &errors)?;
        let pretty = query.switch("pretty").unwrap_or(false);
        Ok(Self { dry_run, field_manager, field_validation, force: force.unwrap_or(false), pretty })
    }

    /// Writes a query.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = QueryWriter::default();
        query.put_option("dryRun", self.dry_run.then_some("All"));
        query.put_text("fieldManager", &self.field_manager);
        let validation = match self.field_validation {
            FieldValidation::Ignore => Some("Ignore"),
            FieldValidation::Warn => None,
            FieldValidation::Strict => Some("Strict"),
        };
        query.put_option("fieldValidation", validation);
        query.put_switch("force", self.force);
        query.put_switch("pretty", self.pretty);
        query.finish()
    }
}

/// What happens to an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// They keep living, without their owner.
    Orphan,
    /// The garbage collector deletes them afterwards.
    Background,
    /// The object waits for them.
    Foreground,
}

/// What must hold for a deletion to take place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The object is still this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The object has not changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// The options of delete, from query or body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteParams {
    /// Seconds granted for a graceful end; nothing for the kind's default.
    pub grace_period_seconds: Option<i64>,
    /// What must hold.
    pub preconditions: Preconditions,
    /// What happens to dependents; nothing for the kind's default. `orphanDependents` is folded in.
    pub propagation: Option<Propagation>,
    /// Whether everything is done but the deletion.
    pub dry_run: bool,
    /// Whether people read the answer.
    pub pretty: bool,
}

/// `DeleteOptions` as it stands in a body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireDeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    dry_run: Option<Vec<String>>,
}

impl DeleteParams {
    /// Reads the options of a deletion. A body that is not empty takes the place of the query, as upstream
    /// has it; it is JSON, the handler having turned YAML into it.
    ///
    /// # Errors
    /// A bad request for what cannot be read, Invalid for what makes no sense.
    pub fn parse(query: &str, body: &[u8]) -> Result<Self, Status> {
        let query = Query::parse(query);
        let pretty = query.switch("pretty").unwrap_or(false);
        let wire = if body.is_empty() {
            WireDeleteOptions {
                grace_period_seconds: query.integer("gracePeriodSeconds")?,
                preconditions: None,
                propagation_policy: query.first("propagationPolicy").map(str::to_owned),
                orphan_dependents: query.switch("orphanDependents"),
                dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
            }
        } else {
            serde_json::from_slice(body).map_err(|error| {
                Status::bad_request(format!("failed to decode the body as DeleteOptions: {error}"))
            })?
        };
        let mut errors = Vec::new();
        let dry_run = check_dry_run(wire.dry_run.iter().flatten().map(String::as_str), &mut errors);
        let path = Path::new("propagationPolicy");
        let propagation = match (wire.propagation_policy.as_deref(), wire.orphan_dependents) {
            (Some(policy), Some(_)) => {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid(&path, policy, detail));
                None
            }
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some(other), None) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, other, &supported));
                None
            }
            (None, None) => None,
        };
        refuse("DeleteOptions", &errors)?;
        Ok(Self {
            grace_period_seconds: wire.grace_period_seconds,
            preconditions: wire.preconditions.unwrap_or_default(),
            propagation,
            dry_run,
            pretty,
        })
    }

    /// Writes the body.
    #[must_use]
    pub fn to_body(&self) -> serde_json::Value {
        let mut body = serde_json::json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if self.preconditions != Preconditions::default() {
            body["preconditions"] = serde_json::json!(self.preconditions);
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = serde_json::json!(propagation);
        }
        if self.dry_run {
            body["dryRun"] = serde_json::json!(["All"]);
        }
        body
    }
}

#[cfg(test)]
mod tests;
