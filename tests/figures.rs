//! Figures: a real Prometheus scrapes the kubelet through the API server, and its queries answer for a busy pod.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use crate::harness::{Cluster, IMAGE, PATIENCE, run, test_tools};

/// Works, writes to its volume and to its own layer, and is probed.
fn busy_pod() -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "busy"}},
            "spec": {{"terminationGracePeriodSeconds": 0,
                "volumes": [{{"name": "scratch", "emptyDir": {{}}}}, {{"name": "data", "persistentVolumeClaim": {{"claimName": "data"}}}}],
                "containers": [{{"name": "app", "image": "{IMAGE}", "imagePullPolicy": "Never",
                    "command": ["sh", "-c", "head -c 3000000 /dev/zero > /scratch/a; head -c 1000000 /dev/zero > /data/a; head -c 2000000 /dev/zero > /b; while true; do :; done"],
                    "resources": {{"limits": {{"cpu": "300m", "memory": "64Mi"}}}},
                    "volumeMounts": [{{"name": "scratch", "mountPath": "/scratch"}}, {{"name": "data", "mountPath": "/data"}}],
                    "readinessProbe": {{"periodSeconds": 1, "exec": {{"command": ["test", "-s", "/b"]}}}}}}]}}}}"#
    )
}

#[test]
fn a_real_prometheus_reads_the_kubelet() {
    let cluster = Cluster::start(&[]);
    cluster.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}",
    );
    cluster.apply(&busy_pod());
    cluster.wait("pod/busy", "condition=Ready");
    let node = cluster.kubectl(&["get", "pod", "busy", "-o", "jsonpath={.spec.nodeName}"]).ok();
    let through = format!("/api/v1/nodes/{node}/proxy");

    let prometheus = Prometheus::start(&cluster, &through);
    prometheus.wait_for_alert();
    let app = r#"namespace="default",pod="busy",container="app""#;
    for query in [
        // cAdvisor's, as the dashboards 893 and 11277 ask for them.
        r#"count(rate(container_last_seen{name=~".+"}[1m]))"#.to_owned(),
        format!("container_memory_usage_bytes{{{app},image!=\"\"}} > 0"),
        format!("container_memory_rss{{{app}}} > 0"),
        format!("container_memory_working_set_bytes{{{app}}} > 0"),
        format!("container_spec_memory_limit_bytes{{{app}}} == 67108864"),
        format!("container_spec_cpu_quota{{{app}}} / container_spec_cpu_period == 0.3"),
        format!("container_cpu_cfs_throttled_periods_total{{{app}}} > 0"),
        format!("container_fs_usage_bytes{{{app}}} > 2000000"),
        format!("irate(container_fs_writes_bytes_total{{{app}}}[1m]) >= 0"),
        r#"container_network_receive_bytes_total{pod="busy",name!="",interface="eth0"} >= 0"#.to_owned(),
        r#"rate(container_cpu_usage_seconds_total{id="/"}[1m]) > 0"#.to_owned(),
        r#"container_network_receive_bytes_total{id="/"} > 0"#.to_owned(),
        r#"container_memory_swap{id="/"} >= 0"#.to_owned(),
        "machine_cpu_cores > 0".to_owned(),
        // The resource metrics, with the times that the kubelet gives.
        format!("rate(container_cpu_usage_seconds_total{{{app},job=\"resource\"}}[1m]) > 0"),
        "node_memory_working_set_bytes > 0 and on() resource_scrape_error == 0".to_owned(),
        r#"pod_cpu_usage_seconds_total{pod="busy"} > 0"#.to_owned(),
        // Probes, and the kubelet's own.
        r#"prober_probe_total{pod="busy",probe_type="Readiness",result="successful"} > 0"#.to_owned(),
        "kubelet_running_pods == 1 and on() sum(kubelet_running_containers{container_state=\"running\"}) == 1"
            .to_owned(),
        "histogram_quantile(0.5, kubelet_pod_start_duration_seconds_bucket) > 0".to_owned(),
        r#"kubelet_runtime_operations_total{operation_type="run_podsandbox"} >= 1"#.to_owned(),
        "rate(process_cpu_seconds_total[1m]) >= 0".to_owned(),
        // Volumes, claims and the kubelet's server, as upstream's dashboard of the kubelet asks for them.
        r#"sum(volume_manager_total_volumes{state="actual_state_of_world",plugin_name="kubernetes.io/empty-dir"}) == 1"#
            .to_owned(),
        "sum(volume_manager_total_volumes{state=\"desired_state_of_world\"}) == 3".to_owned(),
        r#"storage_operation_duration_seconds_count{operation_name="volume_mount",status="success",volume_plugin="kubernetes.io/host-path"} >= 1"#
            .to_owned(),
        r#"kubelet_http_requests_total{method="GET",path="metrics/cadvisor",server_type="readwrite"} >= 1"#.to_owned(),
        r#"kubelet_http_inflight_requests{path="metrics"} == 1"#.to_owned(),
        r#"kubelet_http_requests_duration_seconds_count{path="metrics/cadvisor"} >= 1"#.to_owned(),
        r#"kubelet_volume_stats_used_bytes{namespace="default",persistentvolumeclaim="data"} >= 1000000"#.to_owned(),
        "kubelet_volume_stats_available_bytes / kubelet_volume_stats_capacity_bytes < 1".to_owned(),
        "kubelet_volume_stats_inodes_used == 2 and kubelet_volume_stats_inodes_free < kubelet_volume_stats_inodes"
            .to_owned(),
    ] {
        assert_ne!(prometheus.query(&query), "[]", "{query} answers nothing:\n{}", cluster.log());
    }
    assert_eq!(prometheus.query("up == 0"), "[]", "every page could be read");
    assert_eq!(prometheus.query("scrape_samples_scraped == 0"), "[]", "and holds something");

    let summary = cluster.kubectl(&["get", "--raw", &format!("{through}/stats/summary")]).ok();
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("the summary must be JSON");
    let pods = summary["pods"].as_array().expect("there must be pods");
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "busy").expect("the pod must be there");
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("no number in {pod}"));
    let volume =
        pod["volume"].as_array().and_then(|volumes| volumes.iter().find(|one| one["name"] == "scratch"));
    assert!(number(&volume.expect("the volume must be told")["usedBytes"]) >= 3_000_000, "{pod}");
    let claimed =
        pod["volume"].as_array().and_then(|volumes| volumes.iter().find(|one| one["name"] == "data"));
    let claimed = claimed.expect("the claim's volume must be told");
    assert_eq!(claimed["pvcRef"], serde_json::json!({"name": "data", "namespace": "default"}));
    assert!((1_000_000..2_000_000).contains(&number(&claimed["usedBytes"])), "{pod}");
    assert!(number(&pod["ephemeral-storage"]["usedBytes"]) >= 5_000_000, "{pod}");
    assert!(number(&pod["containers"][0]["rootfs"]["usedBytes"]) >= 2_000_000, "{pod}");
    // The scrapes before gave the samples that a rate is taken between.
    assert!(number(&pod["containers"][0]["cpu"]["usageNanoCores"]) > 100_000_000, "{pod}");
    assert_eq!(pod["network"]["name"], "eth0");
    assert!(number(&summary["node"]["memory"]["availableBytes"]) > 0, "{}", summary["node"]);
}

/// A Prometheus of this test's own, and the receiver of its alerts.
struct Prometheus {
    child: Child,
    address: String,
    alerts: mpsc::Receiver<String>,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(cluster: &Cluster, through: &str) -> Self {
        let program = test_tools().join("prometheus");
        assert!(program.is_file(), "{} is missing: run scripts/setup.sh --test", program.display());
        let directory = tempfile::tempdir().expect("a directory must be had");
        let receiver = TcpListener::bind("127.0.0.1:0").expect("a port must be had");
        let alerts_at = receiver.local_addr().expect("it must have an address");
        configure(cluster, through, directory.path(), &alerts_at.to_string());
        let mut child = Command::new(program)
            .arg(format!("--config.file={}", directory.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .expect("Prometheus must start");
        let (sender, alerts) = mpsc::sync_channel(16);
        std::thread::spawn(move || receive(&receiver, &sender));
        let mut log = BufReader::new(child.stderr.take().expect("there must be a log"));
        let mut seen = String::new();
        let address = loop {
            let before = seen.len();
            let read = log.read_line(&mut seen).expect("the log must be read");
            assert!(read > 0, "Prometheus ended:\n{seen}");
            let line = &seen[before..];
            if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                break address.trim().to_owned();
            }
        };
        // Prometheus would stop at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address, alerts, _directory: directory }
    }

    /// Waits until the rule of [`configure`] has fired: two scrapes have been stored by then.
    fn wait_for_alert(&self) {
        let alert = self.alerts.recv_timeout(PATIENCE).expect("the busy pod must be seen to be busy");
        assert!(alert.contains("\"alertname\":\"Busy\"") && alert.contains("\"pod\":\"busy\""), "{alert}");
    }

    /// The result of a query, as JSON.
    fn query(&self, query: &str) -> String {
        let answer = run(Command::new("curl").args([
            "-sSfG",
            &format!("http://{}/api/v1/query", self.address),
            "--data-urlencode",
            &format!("query={query}"),
        ]))
        .ok();
        let answer: serde_json::Value = serde_json::from_str(&answer).expect("the answer must be JSON");
        answer["data"]["result"].to_string()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Scrapes the four pages through the API server as its administrator, and tells once the pod is busy.
fn configure(cluster: &Cluster, through: &str, directory: &Path, alerts_at: &str) {
    let credential = |file: &str, path: &str| {
        let path = format!("jsonpath={{{path}}}");
        let data = cluster.kubectl(&["config", "view", "--raw", "-o", &path]).ok();
        let decode = format!("printf %s {data} | base64 -d > {}", directory.join(file).display());
        run(Command::new("bash").args(["-c", &decode])).ok();
    };
    credential("ca.crt", ".clusters[0].cluster.certificate-authority-data");
    credential("client.crt", ".users[0].user.client-certificate-data");
    credential("client.key", ".users[0].user.client-key-data");
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]).ok();
    let server = server.trim_start_matches("https://");
    let job = |name: &str, page: &str| {
        format!(
            "- job_name: {name}\n  scheme: https\n  metrics_path: {through}{page}\n  \
             tls_config: {{ca_file: ca.crt, cert_file: client.crt, key_file: client.key}}\n  \
             static_configs: [{{targets: ['{server}']}}]\n"
        )
    };
    let pages = [
        job("kubelet", "/metrics"),
        job("cadvisor", "/metrics/cadvisor"),
        job("resource", "/metrics/resource"),
        job("probes", "/metrics/probes"),
    ];
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [rules.yml]\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alerts_at}']}}]}}]}}\n\
         scrape_configs:\n{}",
        pages.concat()
    );
    let rules = "groups:\n- name: figures\n  rules:\n  - alert: Busy\n    expr: \
                 rate(container_cpu_usage_seconds_total{pod=\"busy\",container=\"app\",cpu=\"total\"}[1m]) > 0.1 \
                 and on() count_over_time(up{job=\"resource\"}[1m]) > 6\n";
    fs::write(directory.join("prometheus.yml"), config).expect("the configuration must be written");
    fs::write(directory.join("rules.yml"), rules).expect("the rules must be written");
}

/// Takes what Prometheus posts to an alert manager, until nobody listens any more.
fn receive(receiver: &TcpListener, sender: &mpsc::SyncSender<String>) {
    for stream in receiver.incoming() {
        let Ok(mut stream) = stream else { return };
        let mut reader = BufReader::new(stream.try_clone().expect("a socket must be shared"));
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or_default();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        let whole = reader.read_exact(&mut body).is_ok();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        if whole && sender.send(String::from_utf8_lossy(&body).into_owned()).is_err() {
            return;
        }
    }
}
