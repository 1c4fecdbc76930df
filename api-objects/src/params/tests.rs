//! Options round trip, and what makes no sense is refused in upstream's words.

use super::*;

#[test]
fn list_options_round_trip() {
    let params = ListParams {
        label_selector: LabelSelector::parse("a=b,c in (d,e)").unwrap(),
        field_selector: FieldSelector::parse("metadata.name=x").unwrap(),
        limit: 500,
        continue_token: "abc".into(),
        watch: false,
        timeout_seconds: Some(30),
        pretty: true,
        ..ListParams::default()
    };
    assert_eq!(ListParams::parse(&params.to_query()), Ok(params));
    let watch = ListParams::parse(
        "watch=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=5",
    )
    .unwrap();
    assert!(watch.watch && watch.allow_watch_bookmarks && watch.send_initial_events == Some(true));
    assert_eq!(ListParams::parse(&watch.to_query()), Ok(watch));
}

#[test]
fn list_options_are_checked() {
    for (query, code, message) in [
        ("limit=x", 400, r#"strconv.ParseInt: parsing "x": invalid syntax"#),
        (
            "resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "watch=true&sendInitialEvents=true",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
    ] {
        let status = ListParams::parse(query).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message), "{query}");
    }
    assert_eq!(ListParams::parse("labelSelector=a%20b").unwrap_err().code, 400);
}

#[test]
fn write_options_are_checked() {
    let params =
        WriteParams::parse("dryRun=All&fieldManager=me&fieldValidation=Strict", WriteVerb::Create).unwrap();
    assert!(
        params.dry_run && params.field_validation == FieldValidation::Strict && params.field_manager == "me"
    );
    assert_eq!(WriteParams::parse(&params.to_query(), WriteVerb::Create), Ok(params));
    for (query, verb, message) in [
        (
            "dryRun=Some",
            WriteVerb::Update,
            "UpdateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"Some\": supported values: \"All\"",
        ),
        (
            "force=true",
            WriteVerb::Patch,
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ),
        (
            "",
            WriteVerb::Apply,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (
            "fieldValidation=x",
            WriteVerb::Create,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"x\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
    ] {
        assert_eq!(WriteParams::parse(query, verb).unwrap_err().message, message);
    }
}

#[test]
fn delete_options_come_from_query_or_body() {
    let query =
        DeleteParams::parse("gracePeriodSeconds=0&propagationPolicy=Foreground&dryRun=All", b"").unwrap();
    assert_eq!(query.grace_period_seconds, Some(0));
    assert_eq!(query.propagation, Some(Propagation::Foreground));
    assert_eq!(DeleteParams::parse("", query.to_body().to_string().as_bytes()), Ok(query));
    let body = br#"{"kind":"DeleteOptions","preconditions":{"uid":"u"},"orphanDependents":true}"#;
    let options = DeleteParams::parse("gracePeriodSeconds=5", body).unwrap();
    assert_eq!(options.grace_period_seconds, None);
    assert_eq!(options.preconditions.uid.as_deref(), Some("u"));
    assert_eq!(options.propagation, Some(Propagation::Orphan));
    assert_eq!(DeleteParams::parse("", b"[").unwrap_err().code, 400);
    assert_eq!(
        DeleteParams::parse("propagationPolicy=x", b"").unwrap_err().message,
        "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"x\": supported values: \"Background\", \"Foreground\", \"Orphan\", \"nil\""
    );
}

#[test]
fn stream_options() {
    let logs =
        LogParams::parse("follow=true&tailLines=10&container=c&sinceTime=2026-11-21T10:00:00Z").unwrap();
    assert_eq!(LogParams::parse(&logs.to_query()), Ok(logs));
    assert_eq!(
        LogParams::parse("tailLines=-1").unwrap_err().message,
        "PodLogOptions \"\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
    );
    let exec =
        ExecParams::parse("command=sh&command=-c&command=echo%20a%26b&stdin=true&stderr=false").unwrap();
    assert_eq!(exec.command, ["sh", "-c", "echo a&b"]);
    assert!(exec.stdin && exec.stdout && !exec.stderr && !exec.tty);
    assert_eq!(ExecParams::parse(&exec.to_query()), Ok(exec));
}
