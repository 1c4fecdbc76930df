//! Control groups that belong to systemd: a pod's group is a transient slice there, made, changed and stopped over the
//! system bus (as upstream does through runc's `libcontainer/cgroups/systemd`).
//!
//! `busctl` and `systemctl` come with systemd itself; a library for a handful of calls would be more than they need.

use std::{io, process::Command};

use super::{GroupSettings, Version, names::Name};

const SERVICE: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
/// systemd counts a quota in hundredths of a second of CPU for each second (runc rounds up to it).
const QUOTA_STEP: u64 = 10_000;

/// Makes a slice with settings, or gives one that is there the settings.
pub(super) fn ensure(name: &Name, settings: &GroupSettings, version: Version) -> io::Result<()> {
    match call(&start(name, settings, version)) {
        Err(error) if error.to_string().contains("already") => set(name, settings, version),
        result => result,
    }
}

/// Changes the settings of a slice that is there.
pub(super) fn set(name: &Name, settings: &GroupSettings, version: Version) -> io::Result<()> {
    let properties = properties(settings, version);
    let mut words =
        vec!["SetUnitProperties".to_owned(), "sba(sv)".to_owned(), name.slice(), "true".to_owned()];
    words.push(properties.len().to_string());
    words.extend(properties.into_iter().flatten());
    call(&words)
}

/// Stops a slice, and with it what is in it. Waits for the end, for which the bus has no call but a signal: until then
/// systemd may make the group's directory again.
pub(super) fn stop(name: &Name) -> io::Result<()> {
    match run(Command::new("systemctl").args(["stop", "--", &name.slice()]), "to stop") {
        Err(error) if error.to_string().contains("not loaded") => Ok(()),
        result => result,
    }
}

/// The words of the call that starts a slice.
fn start(name: &Name, settings: &GroupSettings, version: Version) -> Vec<String> {
    let flag =
        |property: &str, value: bool| [property.to_owned(), "b".to_owned(), value.to_string()].to_vec();
    let mut all = vec![
        flag("DefaultDependencies", false),
        flag("CPUAccounting", true),
        flag("MemoryAccounting", true),
        flag("TasksAccounting", true),
    ];
    if let Some(parent) = name.parent() {
        all.push(["Wants", "as", "1", &parent.slice()].map(str::to_owned).to_vec());
    }
    all.extend(properties(settings, version));
    let signature = "ssa(sv)a(sa(sv))".to_owned();
    let mut words = vec!["StartTransientUnit".to_owned(), signature, name.slice(), "replace".to_owned()];
    words.push(all.len().to_string());
    words.extend(all.into_iter().flatten());
    words.push("0".to_owned());
    words
}

/// Name, type and value of each property.
fn properties(settings: &GroupSettings, version: Version) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut add = |property: &str, value: u64| {
        all.push([property.to_owned(), "t".to_owned(), value.to_string()].to_vec());
    };
    // What is negative has no limit, and systemd's word for that is its largest number.
    let or_infinity = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    if let Some(shares) = settings.cpu_shares {
        match version {
            Version::One => add("CPUShares", or_infinity(shares)),
            Version::Two => add("CPUWeight", super::weight(shares)),
        }
    }
    if let Some(quota) = settings.cpu_quota {
        let period = u64::try_from(settings.cpu_period.unwrap_or(super::PERIOD)).unwrap_or(1).max(1);
        let for_each_second = u64::try_from(quota).map(|quota| quota.saturating_mul(1_000_000) / period);
        let rounded = for_each_second.map(|micros| micros.div_ceil(QUOTA_STEP).saturating_mul(QUOTA_STEP));
        add("CPUQuotaPerSecUSec", rounded.unwrap_or(u64::MAX));
    }
    if let Some(bytes) = settings.memory_limit {
        add(if version == Version::One { "MemoryLimit" } else { "MemoryMax" }, or_infinity(bytes));
    }
    if let Some(most) = settings.pids_limit {
        add("TasksMax", or_infinity(most));
    }
    all
}

fn call(words: &[String]) -> io::Result<()> {
    let method = words.first().map(String::as_str).unwrap_or_default();
    run(Command::new("busctl").args(["--system", "call"]).args(SERVICE).args(words), method)
}

fn run(command: &mut Command, what: &str) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("systemd refuses {what}: {}", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{QosClass, names::Group},
        *,
    };

    #[test]
    fn a_slice_is_asked_for_in_systemd_s_words() {
        let name = Name::root("/n").of(&Group::Pod(QosClass::Burstable, "u"));
        let settings = GroupSettings {
            cpu_shares: Some(512),
            cpu_quota: Some(12_345),
            cpu_period: Some(100_000),
            memory_limit: Some(-1),
            ..GroupSettings::default()
        };
        let words = start(&name, &settings, Version::One).join(" ");
        assert_eq!(
            words,
            "StartTransientUnit ssa(sv)a(sa(sv)) n-kubepods-burstable-podu.slice replace 8 DefaultDependencies b false \
             CPUAccounting b true MemoryAccounting b true TasksAccounting b true Wants as 1 n-kubepods-burstable.slice \
             CPUShares t 512 CPUQuotaPerSecUSec t 130000 MemoryLimit t 18446744073709551615 0"
        );
        let shown: Vec<String> = properties(
            &GroupSettings { cpu_shares: Some(1024), memory_limit: Some(7), ..settings },
            Version::Two,
        )
        .into_iter()
        .map(|property| property.join(" "))
        .collect();
        assert_eq!(shown, ["CPUWeight t 100", "CPUQuotaPerSecUSec t 130000", "MemoryMax t 7"]);
    }
}
