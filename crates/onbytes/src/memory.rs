//! How much memory the process may have, as far as the system tells.

use std::fs;
use std::path::{Path, PathBuf};

/// The memory that the process may have, in bytes: the least of what its control groups, its limit of
/// address space and the machine allow. `None` where the system does not tell.
pub(crate) fn available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let group = limit_of_groups(Path::new("/sys/fs/cgroup"), &groups);
    [group, address_space(), total(&machine)].into_iter().flatten().min()
}

#[cfg(not(target_os = "openbsd"))]
fn address_space() -> Option<u64> {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::As).current
}

#[cfg(target_os = "openbsd")]
fn address_space() -> Option<u64> {
    None
}

/// The total in `/proc/meminfo`, which is in KiB.
fn total(machine: &str) -> Option<u64> {
    let line = machine.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The least limit of the control groups that the process is in, and of those around them.
///
/// `/proc/self/cgroup` has a line for each hierarchy: `0::/path` (version 2) and `4:memory:/path`
/// (version 1). Inside a container the path may be that of the machine, which is not there; the root
/// of the mount is the container's own group then.
fn limit_of_groups(root: &Path, groups: &str) -> Option<u64> {
    groups.lines().filter_map(|line| limit_of_hierarchy(root, line)).min()
}

fn limit_of_hierarchy(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (root, file) = if controllers.is_empty() {
        (root.to_owned(), "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        (root.join("memory"), "memory.limit_in_bytes")
    } else {
        return None;
    };
    let own: PathBuf = root.join(path.trim_start_matches('/'));
    let around = own.ancestors().take_while(|group| group.starts_with(&root));
    around.filter_map(|group| limit(&group.join(file))).min()
}

/// The limit in one file; `None` where there is none, which version 2 writes as `max`.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, file: &str, limit: &str) {
        let folder = root.join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(file), limit).unwrap();
    }

    #[test]
    fn the_narrowest_group_counts_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        group(root, "a", "memory.max", "3000\n");
        group(root, "a/b", "memory.max", "max\n");
        assert_eq!(limit_of_groups(root, "0::/a/b\n"), Some(3000));
        group(root, "memory", "memory.limit_in_bytes", "9000\n");
        group(root, "memory/c", "memory.limit_in_bytes", "2000\n");
        let both = "9:cpu,cpuacct:/\n4:memory:/c\n0::/a/b\n";
        assert_eq!(limit_of_groups(root, both), Some(2000));
        // A path from outside the container.
        assert_eq!(limit_of_groups(root, "4:memory:/docker/1234\n"), Some(9000));
    }

    #[test]
    fn where_there_is_no_group_there_is_no_limit() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(limit_of_groups(root.path(), "0::/\n4:memory:/x\nnonsense\n"), None);
        assert_eq!(limit_of_groups(root.path(), ""), None);
    }

    #[test]
    fn the_total_is_in_kib() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       24683744 kB\n"), Some(24_683_744 * 1024));
        assert_eq!(total("nothing"), None);
    }
}
