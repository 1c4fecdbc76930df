//! The page `/metrics/resource` (`pkg/kubelet/metrics/collectors/resource_metrics.go`).

use kubelet_runtime::usage::{ContainerUsage, GroupUsage, PodUsage};

use super::Figures;
use crate::measures::text::{Kind, Nanos, Text};

/// Writes the page.
pub(super) fn write(text: &mut Text, figures: &Figures) {
    let pods = &figures.pods.pods;
    let time = figures.now.as_millisecond();
    let containers = || pods.iter().flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)));

    let help = "[STABLE] Cumulative cpu time consumed by the container in core-seconds";
    let mut family = text.family("container_cpu_usage_seconds_total", Kind::Counter, help).at(time);
    for (pod, container) in containers() {
        family.sample(&of_container(pod, container), Nanos(container.usage.cpu.total_nanos));
    }
    let help = "[STABLE] Current working set of the container in bytes";
    let mut family = text.family("container_memory_working_set_bytes", Kind::Gauge, help).at(time);
    for (pod, container) in containers() {
        family.sample(&of_container(pod, container), container.usage.memory.working_set);
    }
    let help = "[STABLE] Start time of the container since unix epoch in seconds";
    let mut family = text.family("container_start_time_seconds", Kind::Gauge, help);
    for (pod, container) in containers() {
        if let Ok(started) = container.started_at.parse::<jiff::Timestamp>() {
            family.sample(&of_container(pod, container), started.as_second());
        }
    }
    let help =
        "[ALPHA] Current amount of the container swap usage in bytes. Reported only on non-windows systems";
    let mut family = text.family("container_swap_usage_bytes", Kind::Gauge, help).at(time);
    for (pod, container) in containers() {
        family.sample(&of_container(pod, container), container.usage.memory.swap);
    }

    let help = "[STABLE] Cumulative cpu time consumed by the node in core-seconds";
    let mut family = text.family("node_cpu_usage_seconds_total", Kind::Counter, help).at(time);
    family.sample(&[], Nanos(figures.node.cpu.total_nanos));
    let help = "[STABLE] Current working set of the node in bytes";
    let mut family = text.family("node_memory_working_set_bytes", Kind::Gauge, help).at(time);
    family.sample(&[], figures.node.memory.working_set);
    let help = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems";
    let mut family = text.family("node_swap_usage_bytes", Kind::Gauge, help).at(time);
    family.sample(&[], figures.node.memory.swap);

    let help = "[STABLE] Cumulative cpu time consumed by the pod in core-seconds";
    let mut family = text.family("pod_cpu_usage_seconds_total", Kind::Counter, help).at(time);
    for pod in pods {
        family.sample(&of_pod(pod), Nanos(total(pod, |usage| usage.cpu.total_nanos)));
    }
    let help = "[STABLE] Current working set of the pod in bytes";
    let mut family = text.family("pod_memory_working_set_bytes", Kind::Gauge, help).at(time);
    for pod in pods {
        family.sample(&of_pod(pod), total(pod, |usage| usage.memory.working_set));
    }
    let help = "[ALPHA] Current amount of the pod swap usage in bytes. Reported only on non-windows systems";
    let mut family = text.family("pod_swap_usage_bytes", Kind::Gauge, help).at(time);
    for pod in pods {
        family.sample(&of_pod(pod), total(pod, |usage| usage.memory.swap));
    }
    write_result(text, 0);
}

/// Writes whether the rest could be had.
pub(super) fn write_result(text: &mut Text, errors: u64) {
    let help = "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise";
    text.single("resource_scrape_error", Kind::Gauge, help, errors);
    let help = "[ALPHA] (Deprecated since 1.29.0) 1 if there was an error while getting container metrics, 0 otherwise";
    text.single("scrape_error", Kind::Gauge, help, errors);
}

/// What a pod uses: its own control group, or without one its sandbox and containers together.
pub(super) fn total(pod: &PodUsage, of: impl Fn(&GroupUsage) -> u64) -> u64 {
    match &pod.group {
        Some(group) => of(&group.usage),
        None => pod.sandbox.iter().chain(&pod.containers).map(|one| of(&one.usage)).sum(),
    }
}

fn of_container<'a>(pod: &'a PodUsage, container: &'a ContainerUsage) -> [(&'a str, &'a str); 3] {
    [("container", &container.name), ("namespace", &pod.pod.namespace), ("pod", &pod.pod.name)]
}

fn of_pod(pod: &PodUsage) -> [(&str, &str); 2] {
    [("namespace", &pod.pod.namespace), ("pod", &pod.pod.name)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_pods_and_the_node_are_told() {
        let mut text = Text::default();
        write(&mut text, &super::super::testing::figures());
        let page = text.finish();
        let app = "{container=\"app\",namespace=\"shop\",pod=\"web\"}";
        let pod = "{namespace=\"shop\",pod=\"web\"}";
        for line in [
            format!(
                "# TYPE container_cpu_usage_seconds_total counter\ncontainer_cpu_usage_seconds_total{app} 3.000000000 1795600860000\n"
            ),
            format!("container_memory_working_set_bytes{app} 1600 1795600860000\n"),
            format!("container_start_time_seconds{app} 1795600800\n"),
            format!("container_swap_usage_bytes{app} 0 1795600860000\n"),
            "node_cpu_usage_seconds_total 15.000000000 1795600860000\n".to_owned(),
            "node_memory_working_set_bytes 8000 1795600860000\n".to_owned(),
            format!("pod_cpu_usage_seconds_total{pod} 4.500000000 1795600860000\n"),
            format!("pod_memory_working_set_bytes{pod} 2400 1795600860000\n"),
            "resource_scrape_error 0\n".to_owned(),
            "\nscrape_error 0\n".to_owned(),
        ] {
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("POD"), "sandboxes are no containers here");
    }
}
