//! Control groups of version 1 (`Documentation/admin-guide/cgroup-v1`).

use super::{
    CpuUsage, DeviceUsage, GroupLimits, GroupUsage, MemoryUsage, device, device_number, field, number,
};

/// One clock tick of `cpuacct.stat`; `USER_HZ` is 100 on every platform of Linux that Docker runs on.
const TICK_NANOS: u64 = 10_000_000;
/// Above this a memory limit is the kernel's way of saying that there is none (cAdvisor's `maxMemorySize`).
const NO_LIMIT: u64 = 1 << 62;

/// The usage of a group; `read` gives a file of a controller, `None` where there is none.
pub fn usage(read: impl Fn(&str, &str) -> Option<String>) -> GroupUsage {
    let text = |controller: &str, file: &str| read(controller, file).unwrap_or_default();
    let ticks = text("cpuacct", "cpuacct.stat");
    let throttling = text("cpu", "cpu.stat");
    let stat = text("memory", "memory.stat");
    let usage = number(&text("memory", "memory.usage_in_bytes"));
    let limit = number(&text("memory", "memory.limit_in_bytes"));
    GroupUsage {
        cpu: CpuUsage {
            total_nanos: number(&text("cpuacct", "cpuacct.usage")),
            user_nanos: field(&ticks, "user").saturating_mul(TICK_NANOS),
            system_nanos: field(&ticks, "system").saturating_mul(TICK_NANOS),
            periods: field(&throttling, "nr_periods"),
            throttled_periods: field(&throttling, "nr_throttled"),
            throttled_nanos: field(&throttling, "throttled_time"),
        },
        memory: MemoryUsage {
            usage,
            working_set: usage.saturating_sub(field(&stat, "total_inactive_file")),
            rss: field(&stat, "total_rss"),
            cache: field(&stat, "total_cache"),
            mapped_file: field(&stat, "total_mapped_file"),
            swap: field(&stat, "total_swap"),
            max_usage: number(&text("memory", "memory.max_usage_in_bytes")),
            failures: number(&text("memory", "memory.failcnt")),
            page_faults: field(&stat, "total_pgfault"),
            major_page_faults: field(&stat, "total_pgmajfault"),
        },
        devices: devices(
            &text("blkio", "blkio.throttle.io_service_bytes_recursive"),
            &text("blkio", "blkio.throttle.io_serviced_recursive"),
        ),
        tasks: number(&text("pids", "pids.current")),
        limits: GroupLimits {
            cpu_shares: number(&text("cpu", "cpu.shares")),
            // -1 is no limit, and not a number here.
            cpu_quota: text("cpu", "cpu.cfs_quota_us").trim().parse().ok().filter(|quota| *quota > 0),
            cpu_period: number(&text("cpu", "cpu.cfs_period_us")),
            memory: if limit > NO_LIMIT { 0 } else { limit },
            tasks: number(&text("pids", "pids.max")),
        },
    }
}

/// Lines of device, operation and number, in bytes and in operations; a last line has the total.
fn devices(bytes: &str, operations: &str) -> Vec<DeviceUsage> {
    let mut found = Vec::new();
    for (id, operation, amount) in bytes.lines().filter_map(transfer) {
        match operation {
            "Read" => device(&mut found, id).read_bytes = amount,
            "Write" => device(&mut found, id).written_bytes = amount,
            _ => {}
        }
    }
    for (id, operation, amount) in operations.lines().filter_map(transfer) {
        match operation {
            "Read" => device(&mut found, id).reads = amount,
            "Write" => device(&mut found, id).writes = amount,
            _ => {}
        }
    }
    found
}

fn transfer(line: &str) -> Option<((u32, u32), &str, u64)> {
    let mut words = line.split_whitespace();
    Some((device_number(words.next()?)?, words.next()?, number(words.next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 writes them.
    fn file(controller: &str, file: &str) -> Option<String> {
        let text = match (controller, file) {
            ("cpuacct", "cpuacct.usage") => "1119783782\n",
            ("cpuacct", "cpuacct.stat") => "user 75\nsystem 36\n",
            ("cpu", "cpu.stat") => "nr_periods 10\nnr_throttled 3\nthrottled_time 1500000\nnr_bursts 0\n",
            ("cpu", "cpu.shares") => "512\n",
            ("cpu", "cpu.cfs_quota_us") => "50000\n",
            ("cpu", "cpu.cfs_period_us") => "100000\n",
            ("memory", "memory.usage_in_bytes") => "50331648\n",
            ("memory", "memory.max_usage_in_bytes") => "60000000\n",
            ("memory", "memory.failcnt") => "7\n",
            ("memory", "memory.limit_in_bytes") => "67108864\n",
            ("memory", "memory.stat") => {
                "cache 1\nrss 2\ninactive_file 3\ntotal_cache 20971520\ntotal_rss 29360128\n\
                 total_mapped_file 4096\ntotal_swap 8192\ntotal_pgfault 5782\ntotal_pgmajfault 11\n\
                 total_inactive_file 10485760\n"
            }
            ("blkio", "blkio.throttle.io_service_bytes_recursive") => {
                "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 0\n254:0 Total 12288\n8:16 Write 512\nTotal 12800\n"
            }
            ("blkio", "blkio.throttle.io_serviced_recursive") => {
                "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\n8:16 Write 1\nTotal 4\n"
            }
            ("pids", "pids.current") => "6\n",
            ("pids", "pids.max") => "max\n",
            _ => return None,
        };
        Some(text.to_owned())
    }

    #[test]
    fn a_limited_group_is_read() {
        let read = usage(file);
        assert_eq!(
            read.cpu,
            CpuUsage {
                total_nanos: 1_119_783_782,
                user_nanos: 750_000_000,
                system_nanos: 360_000_000,
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
            cpu_shares: 512,
            cpu_quota: Some(50_000),
            cpu_period: 100_000,
            memory: 67_108_864,
            tasks: 0,
        };
        assert_eq!(read.limits, limits);
    }

    #[test]
    fn no_limit_is_none() {
        let read = usage(|controller, name| match name {
            "memory.limit_in_bytes" => Some("9223372036854771712\n".to_owned()),
            "cpu.cfs_quota_us" => Some("-1\n".to_owned()),
            "blkio.throttle.io_service_bytes_recursive" => Some("Total 0\n".to_owned()),
            "blkio.throttle.io_serviced_recursive" => None,
            _ => file(controller, name),
        });
        assert_eq!((read.limits.memory, read.limits.cpu_quota), (0, None));
        assert_eq!(read.devices, []);
    }
}
