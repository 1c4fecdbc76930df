//! Every measurement of `docs/performance.md`, one after another, and the table at the end.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use hyper::Method;
use serde_json::json;

use crate::{
    connection::{Call, Target},
    load::{self, Kind, NAMESPACE, Plan, What},
    measure::{Latencies, Outcome, Stretch, resident_mb},
    server::{Server, data_directory, free_port},
    watch::fan_out,
};

/// What to measure.
pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
    pub(crate) quick: bool,
    pub(crate) only: String,
    pub(crate) server: Vec<String>,
}

/// A line of the table.
struct Row {
    what: String,
    /// What kube-apiserver v1.36.2 with etcd gave on the machine of `docs/performance.md`.
    peer: &'static str,
    aim: &'static str,
    measured: String,
    /// Processor time and what else explains the figure.
    remarks: String,
}

/// A run of the suite.
struct Suite {
    options: Options,
    rows: Vec<Row>,
    json: Option<std::fs::File>,
}

/// Runs everything and prints the table.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let json = options.json.as_ref().map(std::fs::File::create).transpose()?;
    let mut suite = Suite { options, rows: Vec::new(), json };
    let data = data_directory()?;
    let port = free_port()?;

    let empty = Server::start(&suite.options.server, data.path(), port).await?;
    suite.row("exec to /readyz, empty store", "4.0 s", "0.3 s", millis(empty.ready_after), String::new());
    suite.idle(&empty, "idle RSS").await?;
    suite.prepare(&empty).await?;
    let bare = Server::baseline(data.path()).await?;
    suite.writes_and_reads(&empty, &bare).await?;
    suite.watches(&empty).await?;
    suite.pods(&empty, &bare).await?;
    suite.idle(&empty, "RSS after all of this").await?;
    empty.stop().await?;

    let existing = Server::start(&suite.options.server, data.path(), port).await?;
    let remarks = "with the 10,000 pods of this run".to_owned();
    suite.row("exec to /readyz, existing store", "2.8 s", "0.15 s", millis(existing.ready_after), remarks);
    existing.stop().await?;
    bare.stop().await?;

    // As the peer was measured: nothing but the pods.
    let data = data_directory()?;
    let fresh = Server::start(&suite.options.server, data.path(), port).await?;
    suite.prepare(&fresh).await?;
    suite.load(&fresh, &create_pods(suite.count(10_000), "p")).await?;
    suite.idle(&fresh, "RSS with 10,000 pods and nothing else").await?;
    fresh.stop().await?;
    let again = Server::start(&suite.options.server, data.path(), port).await?;
    suite.idle(&again, "RSS with 10,000 pods, after a restart").await?;
    again.stop().await?;
    suite.print();
    Ok(())
}

fn create_pods(requests: usize, prefix: &str) -> Plan {
    let prefix = prefix.to_owned();
    Plan { what: What::Create, kind: Kind::Pod, requests, connections: 64, prefix, objects: requests }
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

impl Suite {
    fn wanted(&self, what: &str) -> bool {
        what.contains(&self.options.only)
    }

    /// A number of requests or objects, smaller in a quick run.
    fn count(&self, whole: usize) -> usize {
        if self.options.quick { (whole / 10).max(1) } else { whole }
    }

    fn row(&mut self, what: &str, peer: &'static str, aim: &'static str, measured: String, remarks: String) {
        eprintln!("{what}: {measured} {remarks}");
        self.rows.push(Row { what: what.to_owned(), peer, aim, measured, remarks });
    }

    fn write_json(&mut self, what: &str, outcome: &Outcome) -> anyhow::Result<()> {
        if let Some(file) = &mut self.json {
            writeln!(file, "{}", json!({ "what": what, "outcome": outcome.to_json() }))?;
        }
        Ok(())
    }

    /// A row about a rate of requests.
    fn rate(
        &mut self,
        what: &str,
        peer: &'static str,
        aim: &'static str,
        outcome: &Outcome,
        bare: Option<&Outcome>,
    ) -> anyhow::Result<()> {
        self.write_json(what, outcome)?;
        let cost = outcome.cost;
        let mut remarks = format!(
            "p50 {:.2} ms, p99 {:.2} ms; {:.0}/s per server CPU; CPUs: server {:.2}, client {:.2}",
            outcome.latencies.percentile(0.5),
            outcome.latencies.percentile(0.99),
            outcome.rate_per_processor(),
            cost.server / cost.wall,
            cost.client / cost.wall,
        );
        if let Some(bare) = bare {
            let share = outcome.rate() / bare.rate() * 100.0;
            remarks += &format!("; bare server {:.0}/s, so {share:.0} % of it", bare.rate());
        }
        if cost.others > 0.15 {
            remarks += &format!("; DISTURBED by {:.2} CPUs of others", cost.others);
        }
        if outcome.errors > 0 {
            remarks +=
                &format!("; {} ERRORS: {}", outcome.errors, outcome.first_error.as_deref().unwrap_or(""));
        }
        self.row(what, peer, aim, format!("{:.0}/s", outcome.rate()), remarks);
        Ok(())
    }

    async fn idle(&mut self, server: &Server, what: &str) -> anyhow::Result<()> {
        if !self.wanted(what) {
            return Ok(());
        }
        let seconds = if self.options.quick { 2 } else { 10 };
        let stretch = Stretch::begin(Some(server.pid()));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let cost = stretch.end();
        let measured = format!("{:.0} MB", resident_mb(server.pid()));
        let remarks = format!("{:.2} % of one CPU", cost.server / cost.wall * 100.0);
        let (peer, aim) = if what == "idle RSS" {
            ("314 MB (510 MB with controllers)", "40 MB")
        } else {
            ("582 MB", "80 MB")
        };
        self.row(what, peer, aim, measured, remarks);
        Ok(())
    }

    /// The namespace, and the ServiceAccount that admission asks for.
    async fn prepare(&self, server: &Server) -> anyhow::Result<()> {
        let mut connection = server.target.connect().await?;
        let namespace =
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{NAMESPACE}"}}}}"#);
        connection.call(Call::post("/api/v1/namespaces", namespace)).await?;
        let account = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        // A controller may have been faster.
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
        let _made = connection.call(Call::post(path, account)).await;
        Ok(())
    }

    async fn load(&self, server: &Server, plan: &Plan) -> anyhow::Result<Outcome> {
        load::run(&server.target, Some(server.pid()), plan).await
    }

    /// What the bare server gives for answers of the same size, and bodies of the same size.
    async fn bare(
        &self,
        bare: &Server,
        requests: usize,
        connections: usize,
        method: Method,
        answer: usize,
        body: usize,
    ) -> anyhow::Result<Outcome> {
        let path = format!("/bytes/{answer}");
        let body = bytes::Bytes::from(vec![b'x'; body]);
        let call = move |_| Call { body: body.clone(), ..Call::new(method.clone(), path.clone()) };
        load::calls(&bare.target, Some(bare.pid()), requests, connections, call).await
    }

    async fn writes_and_reads(&mut self, server: &Server, bare: &Server) -> anyhow::Result<()> {
        let plan = |what, requests, connections, prefix: &str| Plan {
            what,
            kind: Kind::ConfigMap,
            requests,
            connections,
            prefix: prefix.to_owned(),
            objects: requests,
        };
        let manifest = Kind::ConfigMap.manifest("c64-1000").len();
        // Warm: connections, caches and the log's first segments.
        self.load(server, &plan(What::Create, self.count(500), 16, "warm")).await?;

        for (connections, whole, peer) in
            [(1, 3_000, "550/s"), (16, 20_000, "1,220/s"), (64, 40_000, "1,600/s")]
        {
            let what = format!("create a 1 KB ConfigMap at {connections}");
            let requests = self.count(whole);
            let outcome = self
                .load(server, &plan(What::Create, requests, connections, &format!("c{connections}")))
                .await?;
            if self.wanted(&what) {
                let bare = self.bare(bare, requests, connections, Method::POST, 1000, manifest).await?;
                self.rate(&what, peer, "over 10x", &outcome, Some(&bare))?;
            }
        }
        let objects = self.count(20_000);
        let mut connection = server.target.connect().await?;
        let one = format!("{}/c16-0", Kind::ConfigMap.collection());
        let size = connection.call(Call::new(Method::GET, one)).await?.len();
        for (connections, whole, peer) in [(1, 20_000, "990/s"), (64, 60_000, "2,720/s")] {
            let what = format!("GET at {connections}");
            if self.wanted(&what) {
                let requests = self.count(whole);
                let bare = self.bare(bare, requests, connections, Method::GET, size, 0).await?;
                let get = Plan { objects, ..plan(What::Get, requests, connections, "c16") };
                let outcome = self.load(server, &get).await?;
                self.rate(&what, peer, "10x", &outcome, Some(&bare))?;
            }
        }
        if self.wanted("merge patch at 64") {
            let requests = self.count(30_000);
            let bare = self.bare(bare, requests, 64, Method::PATCH, size, 40).await?;
            let patch = Plan { objects, ..plan(What::Patch, requests, 64, "c16") };
            let outcome = self.load(server, &patch).await?;
            self.rate("merge patch at 64", "1,025/s", "10x", &outcome, Some(&bare))?;
        }
        if self.wanted("delete at 16") {
            let requests = self.count(20_000);
            let bare = self.bare(bare, requests, 16, Method::DELETE, 200, 0).await?;
            let outcome = self.load(server, &plan(What::Delete, requests, 16, "c16")).await?;
            self.rate("delete at 16", "1,200/s", "10x", &outcome, Some(&bare))?;
        }
        self.purge(&server.target, Kind::ConfigMap).await
    }

    /// Finds the rate at which the slowest hundredth of deliveries still stays under 10 ms.
    async fn watches(&mut self, server: &Server) -> anyhow::Result<()> {
        let what = "watch, 100 watchers: events/s with p99 under 10 ms";
        if !self.wanted(what) {
            return Ok(());
        }
        let mut best: Option<Outcome> = None;
        let mut missed = None;
        for rate in [50, 100, 200, 400, 600, 800, 1_000, 1_300, 1_600, 2_000, 2_500, 3_000] {
            let changes = self.count(rate * 4);
            let outcome = fan_out(&server.target, Some(server.pid()), 100, changes, rate).await?;
            let p99 = outcome.latencies.percentile(0.99);
            eprintln!("  at {rate} changes/s: {:.0} delivered/s, p99 {p99:.2} ms", outcome.rate());
            if p99 > 10.0 {
                missed = Some(format!("missed at {rate} changes/s already: p99 {p99:.1} ms"));
                break;
            }
            best = Some(outcome);
        }
        let flat_out = fan_out(&server.target, Some(server.pid()), 100, self.count(10_000), 0).await?;
        let (peer, aim) = ("19,000/s", "200,000/s");
        match (best, missed) {
            (Some(best), _) => self.rate(what, peer, aim, &best, None)?,
            (None, missed) => self.row(what, peer, aim, "none".to_owned(), missed.unwrap_or_default()),
        }
        self.rate("watch, 100 watchers, as fast as possible", "", "", &flat_out, None)?;
        self.purge(&server.target, Kind::ConfigMap).await
    }

    async fn pods(&mut self, server: &Server, bare: &Server) -> anyhow::Result<()> {
        let (few, rest) = (self.count(1_000), self.count(9_000));
        self.load(server, &create_pods(few, "few")).await?;
        self.list(server, bare, few, None, "LIST of 1,000 pods", "36 ms").await?;
        let outcome = self.load(server, &create_pods(rest, "rest")).await?;
        self.rate("create a Pod at 64", "1,000/s", "10x", &outcome, None)?;
        self.list(server, bare, few + rest, None, "LIST of 10,000 pods", "324 ms").await?;
        self.list(server, bare, few + rest, Some(500), "LIST of 10,000 pods in pages of 500", "432 ms").await
    }

    /// Reads a whole collection several times, in pages or at once.
    async fn list(
        &mut self,
        server: &Server,
        bare: &Server,
        expected: usize,
        page: Option<usize>,
        what: &str,
        peer: &'static str,
    ) -> anyhow::Result<()> {
        if !self.wanted(what) {
            return Ok(());
        }
        let rounds = 10;
        let mut connection = server.target.connect().await?;
        let stretch = Stretch::begin(Some(server.pid()));
        let mut latencies = Latencies::default();
        let mut sizes = Vec::new();
        for _ in 0..rounds {
            let mut waited = Duration::ZERO;
            let mut path = Kind::Pod.collection();
            if let Some(page) = page {
                path += &format!("?limit={page}");
            }
            let mut items = 0;
            let mut next = path.clone();
            sizes.clear();
            loop {
                let begun = Instant::now();
                let body = connection.call(Call::new(Method::GET, next)).await?;
                waited += begun.elapsed();
                sizes.push(body.len());
                items += count(&body, b"\"uid\":\"");
                match continue_token(&body) {
                    Some(token) => next = format!("{path}&continue={token}"),
                    None => break,
                }
            }
            latencies.add(waited);
            anyhow::ensure!(items == expected, "{what}: {items} items instead of {expected}");
        }
        let outcome = Outcome { latencies, cost: stretch.end(), ..Outcome::default() };
        self.write_json(what, &outcome)?;

        // The same bytes from the bare server.
        let mut connection = bare.target.connect().await?;
        let mut fixed = Latencies::default();
        for _ in 0..rounds {
            let begun = Instant::now();
            for size in &sizes {
                connection.call(Call::new(Method::GET, format!("/bytes/{size}"))).await?;
            }
            fixed.add(begun.elapsed());
        }
        let bytes: usize = sizes.iter().sum();
        let remarks = format!(
            "{:.1} MB, {} bytes an item; {:.1} ms of server CPU; bare server {:.1} ms",
            bytes as f64 / 1e6,
            bytes / expected,
            outcome.cost.server / f64::from(rounds) * 1e3,
            fixed.percentile(0.5),
        );
        self.row(what, peer, "20x", format!("{:.1} ms", outcome.latencies.percentile(0.5)), remarks);
        Ok(())
    }

    async fn purge(&self, target: &Target, kind: Kind) -> anyhow::Result<()> {
        let mut connection = target.connect().await?;
        let path = format!("{}?gracePeriodSeconds=0", kind.collection());
        connection.call(Call::new(Method::DELETE, path)).await.context("deleting the collection")?;
        Ok(())
    }

    fn print(&self) {
        println!("| | kube-apiserver + etcd | aim | measured | |\n|---|---|---|---|---|");
        for Row { what, peer, aim, measured, remarks } in &self.rows {
            println!("| {what} | {peer} | {aim} | **{measured}** | {remarks} |");
        }
    }
}

fn count(text: &[u8], mark: &[u8]) -> usize {
    text.windows(mark.len()).filter(|window| *window == mark).count()
}

/// The token of a list that goes on; it stands in the list's metadata, before the items.
fn continue_token(list: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"\"continue\":\"";
    let head = &list[..list.len().min(2_000)];
    let at = head.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let token = head[at..].split(|byte| *byte == b'"').next()?;
    let token = std::str::from_utf8(token).ok()?;
    let escaped = token.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    (!escaped.is_empty()).then_some(escaped)
}
