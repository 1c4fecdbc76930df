//! Control groups of version 2 (`Documentation/admin-guide/cgroup-v2.rst`).

use super::{
    CpuUsage, DeviceUsage, GroupLimits, GroupUsage, MemoryUsage, device, device_number, field, number,
};

/// The usage of a group; `read` gives one of its files, `None` where there is none. The root group has no
/// `memory.current`: there `meminfo` says what is in use, as libcontainer does it.
pub fn usage(read: impl Fn(&str) -> Option<String>, meminfo: impl Fn() -> Option<String>) -> GroupUsage {
    let text = |file: &str| read(file).unwrap_or_default();
    let cpu = text("cpu.stat");
    let stat = text("memory.stat");
    let current = read("memory.current").map(|text| number(&text));
    let usage = current.unwrap_or_else(|| in_use(&meminfo().unwrap_or_default()));
    let quota = text("cpu.max");
    let (cpu_quota, cpu_period) = quota.trim().split_once(' ').unwrap_or_default();
    GroupUsage {
        cpu: CpuUsage {
            total_nanos: micros(&cpu, "usage_usec"),
            user_nanos: micros(&cpu, "user_usec"),
            system_nanos: micros(&cpu, "system_usec"),
            periods: field(&cpu, "nr_periods"),
            throttled_periods: field(&cpu, "nr_throttled"),
            throttled_nanos: micros(&cpu, "throttled_usec"),
        },
        memory: MemoryUsage {
            usage,
            working_set: usage.saturating_sub(field(&stat, "inactive_file")),
            rss: field(&stat, "anon"),
            cache: field(&stat, "file"),
            mapped_file: field(&stat, "file_mapped"),
            swap: number(&text("memory.swap.current")),
            max_usage: number(&text("memory.peak")),
            failures: field(&text("memory.events"), "max"),
            page_faults: field(&stat, "pgfault"),
            major_page_faults: field(&stat, "pgmajfault"),
        },
        devices: devices(&text("io.stat")),
        tasks: number(&text("pids.current")),
        limits: GroupLimits {
            cpu_shares: shares(number(&text("cpu.weight"))),
            // `max` is no number.
            cpu_quota: cpu_quota.parse().ok(),
            cpu_period: number(cpu_period),
            memory: number(&text("memory.max")),
            tasks: number(&text("pids.max")),
        },
    }
}

fn micros(text: &str, name: &str) -> u64 {
    field(text, name).saturating_mul(1000)
}

/// `MemTotal` without `MemFree`.
fn in_use(meminfo: &str) -> u64 {
    let line = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()).map(number).unwrap_or_default() * 1024
    };
    line("MemTotal").saturating_sub(line("MemFree"))
}

/// A weight (1 to 10,000) as shares (2 to 262,144), the way back of what runc does to a pod's shares.
fn shares(weight: u64) -> u64 {
    if weight == 0 { 0 } else { 2 + (weight - 1) * 262_142 / 9999 }
}

/// Lines of a device and `key=value` pairs.
fn devices(text: &str) -> Vec<DeviceUsage> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(id) = words.next().and_then(device_number) else { continue };
        let entry = device(&mut found, id);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "rbytes" => entry.read_bytes = number(value),
                "wbytes" => entry.written_bytes = number(value),
                "rios" => entry.reads = number(value),
                "wios" => entry.writes = number(value),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 writes them.
    fn file(name: &str) -> Option<String> {
        let text = match name {
            "cpu.stat" => {
                "usage_usec 1119783\nuser_usec 750000\nsystem_usec 369783\nnr_periods 10\nnr_throttled 3\n\
                 throttled_usec 1500\n"
            }
            "cpu.max" => "50000 100000\n",
            "cpu.weight" => "20\n",
            "memory.current" => "50331648\n",
            "memory.peak" => "60000000\n",
            "memory.max" => "67108864\n",
            "memory.swap.current" => "8192\n",
            "memory.events" => "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n",
            "memory.stat" => {
                "anon 29360128\nfile 20971520\nfile_mapped 4096\ninactive_anon 5\ninactive_file 10485760\n\
                 pgfault 5782\npgmajfault 11\n"
            }
            "io.stat" => {
                "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 wbytes=512 wios=1\n"
            }
            "pids.current" => "6\n",
            "pids.max" => "100\n",
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn a_limited_group_is_read() {
        let read = usage(file, || panic!("memory.current is there"));
        assert_eq!(
            read.cpu,
            CpuUsage {
                total_nanos: 1_119_783_000,
                user_nanos: 750_000_000,
                system_nanos: 369_783_000,
                periods: 10,
                throttled_periods: 3,
                throttled_nanos: 1_500_000,
            }
        );
        assert_eq!(
            read.memory,
            MemoryUsage {
                usage: 50_331_648,
                working_set: 39_845_888,
                rss: 29_360_128,
                cache: 20_971_520,
                mapped_file: 4096,
                swap: 8192,
                max_usage: 60_000_000,
                failures: 7,
                page_faults: 5782,
                major_page_faults: 11,
            }
        );
        let disk =
            DeviceUsage { device: (254, 0), read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 };
        let other = DeviceUsage { device: (8, 16), written_bytes: 512, writes: 1, ..DeviceUsage::default() };
        assert_eq!(read.devices, [disk, other]);
        assert_eq!(read.tasks, 6);
        let limits = GroupLimits {
            cpu_shares: 500,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: 67_108_864,
            tasks: 100,
        };
        assert_eq!(read.limits, limits);
    }

    #[test]
    fn no_limit_is_none_and_the_root_group_is_measured_by_meminfo() {
        let read = usage(
            |name| match name {
                "cpu.max" => Some("max 100000\n".to_owned()),
                "memory.max" => Some("max\n".to_owned()),
                "memory.current" => None,
                name => file(name),
            },
            || Some("MemTotal:  102400 kB\nMemFree:    51200 kB\nMemAvailable: 1 kB\n".to_owned()),
        );
        assert_eq!((read.limits.memory, read.limits.cpu_quota), (0, None));
        assert_eq!(read.memory.usage, 51_200 * 1024);
        assert_eq!(read.memory.working_set, 51_200 * 1024 - 10_485_760);
    }

    #[test]
    fn weights_are_shares_again() {
        assert_eq!([0, 1, 39, 10_000].map(shares), [0, 2, 998, 262_144]);
    }
}
