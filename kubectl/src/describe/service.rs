//! Services.

use super::{Report, Subject, head, items_at, labels, text_at, text_of};

/// Describes a Service.
pub(super) fn describe(report: &mut Report, subject: &Subject<'_>) {
    let service = subject.object;
    head(report, subject);
    labels(report, service);
    report.map(0, "Selector", service.pointer("/spec/selector"));
    report.field(0, "Type", text_at(service, "/spec/type", ""));
    report.field(0, "IP Family Policy", text_at(service, "/spec/ipFamilyPolicy", ""));
    let words = |pointer: &str| items_at(service, pointer).iter().map(text_of).collect::<Vec<_>>().join(",");
    report.field(0, "IP Families", &words("/spec/ipFamilies"));
    report.field(0, "IP", text_at(service, "/spec/clusterIP", ""));
    report.field(0, "IPs", &words("/spec/clusterIPs"));
    for port in items_at(service, "/spec/ports") {
        let name = text_at(port, "/name", "<unset>");
        let protocol = text_at(port, "/protocol", "TCP");
        report.field(0, "Port", &format!("{name}\t{}/{protocol}", text_of(&port["port"])));
        report.field(0, "TargetPort", &format!("{}/{protocol}", text_of(&port["targetPort"])));
        if let Some(number) = port["nodePort"].as_i64().filter(|number| *number > 0) {
            report.field(0, "NodePort", &format!("{name}\t{number}/{protocol}"));
        }
    }
    report.field(0, "Session Affinity", text_at(service, "/spec/sessionAffinity", "None"));
}
