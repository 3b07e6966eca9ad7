//! What the runner asks of the machine: cores, limits, CPU times and names.

use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::time::Duration;
use std::{fs, io};

/// The cores this process may run on, in ascending order.
pub fn usable_cores() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect())
}

/// Runs `action` with the calling thread bound to one core.
///
/// A child started by `action` inherits the binding, so it is in force from the child's first
/// instruction on and holds for every thread the child makes.
pub fn on_core<T>(core: usize, action: impl FnOnce() -> T) -> io::Result<T> {
    let before = sched_getaffinity(None)?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only)?;
    let result = action();
    sched_setaffinity(None, &before)?;
    Ok(result)
}

/// Raises the soft limit of open files to the hard one, for this process and its children: the
/// usual 1024 is too few for a thousand connections and what else is open. Returns how many files that is.
pub fn raise_open_file_limit() -> io::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(limit.current.unwrap_or(u64::MAX))
}

/// The CPU time a process has used so far, as told by two counters of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    /// Of the process with all threads it ever had, in steps of a clock tick (10 ms).
    total: Duration,
    /// Of the threads it has now, in nanoseconds. `None` if the kernel does not count that.
    threads: Option<Duration>,
}

impl CpuTime {
    /// Reads the counters of process `pid`.
    pub fn read(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let ticks = ticks_in(&stat).ok_or_else(|| unreadable("stat"))?;
        let per_second = rustix::param::clock_ticks_per_second();
        let total = Duration::from_secs_f64(ticks as f64 / per_second as f64);
        Ok(Self { total, threads: threads_time(pid)? })
    }

    /// The CPU time used between `earlier` and this reading: the finer counter, unless it missed
    /// threads that have ended meanwhile and took their times with them.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Duration {
        /// Two readings of two rounded tick counters, and the tick that is still running.
        const COARSENESS: Duration = Duration::from_millis(50);
        let total = self.total.saturating_sub(earlier.total);
        match (self.threads, earlier.threads) {
            (Some(now), Some(then)) if now.saturating_sub(then) + COARSENESS >= total => {
                now.saturating_sub(then)
            }
            _ => total,
        }
    }
}

/// The sum of the scheduler's times of all threads of a process.
fn threads_time(pid: u32) -> io::Result<Option<Duration>> {
    let mut sum = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else {
            // The thread ended this instant, or the kernel has no such file.
            continue;
        };
        sum += time_in(&text).ok_or_else(|| unreadable("schedstat"))?;
    }
    // A process that runs has used some time, so zero means that nobody counted.
    Ok((!sum.is_zero()).then_some(sum))
}

/// User plus system time, in ticks, in the text of `/proc/PID/stat`.
fn ticks_in(stat: &str) -> Option<u64> {
    // The second field, the name in parentheses, may hold spaces and parentheses itself.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The time on a CPU in the text of a `schedstat` file.
fn time_in(schedstat: &str) -> Option<Duration> {
    let nanoseconds = schedstat.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

fn unreadable(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("cannot make out a process's {file}"))
}

/// The release of the running kernel.
#[must_use]
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// How TCP decides when to send. BBR paces, loopback too, so that with many connections single messages are held
/// back for milliseconds, whichever server it is.
#[must_use]
pub fn congestion_control() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The model name of the first CPU.
#[must_use]
pub fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    model_in(&text).unwrap_or("unknown").to_owned()
}

/// The version of the compiler at hand.
#[must_use]
pub fn compiler() -> String {
    let output = std::process::Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// The model name in the text of `/proc/cpuinfo`.
fn model_in(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 34 0 0 20 0 1 0 99 0 0";
        assert_eq!(ticks_in(stat), Some(154));
        assert_eq!(ticks_in("42 (short) S 1 2"), None);
        assert_eq!(ticks_in(""), None);
    }

    #[test]
    fn schedstat_begins_with_the_time_on_a_cpu() {
        assert_eq!(time_in("654428 12 3\n"), Some(Duration::from_nanos(654_428)));
        assert_eq!(time_in(""), None);
    }

    #[test]
    fn the_model_name_is_found() {
        let text = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU: fast\n";
        assert_eq!(model_in(text), Some("Some CPU: fast"));
        assert_eq!(model_in("processor\t: 0\n"), None);
    }

    #[test]
    fn the_finer_counter_is_used_unless_threads_have_ended() {
        let reading = |total, threads: Option<u64>| CpuTime {
            total: Duration::from_millis(total),
            threads: threads.map(Duration::from_millis),
        };
        let since = |later: CpuTime, earlier| later.since(&earlier).as_millis();
        assert_eq!(since(reading(1_010, Some(1_003)), reading(0, Some(1))), 1_002);
        assert_eq!(since(reading(1_010, Some(300)), reading(0, Some(1))), 1_010);
        assert_eq!(since(reading(1_010, None), reading(10, None)), 1_000);
    }

    #[test]
    fn this_process_uses_cpu_time() {
        let pid = std::process::id();
        let before = CpuTime::read(pid).unwrap();
        let until = std::time::Instant::now() + Duration::from_millis(60);
        while std::time::Instant::now() < until {
            std::hint::spin_loop();
        }
        let used = CpuTime::read(pid).unwrap().since(&before);
        // Other tests of this process run at the same time, and other programs on this core.
        assert!(used > Duration::from_millis(1), "{used:?}");
    }

    #[test]
    fn binding_to_a_core_is_undone() {
        let before = usable_cores().unwrap();
        let last = *before.last().unwrap();
        assert_eq!(on_core(last, || usable_cores().unwrap()).unwrap(), [last]);
        assert_eq!(usable_cores().unwrap(), before);
    }
}
