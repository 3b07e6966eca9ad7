//! Writing files that belong together, so that nobody ever reads half of one.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::issue::random_bytes;
use crate::failure::{Failure, shown};

/// A file to be written.
pub(super) struct NewFile {
    pub(super) name: &'static str,
    pub(super) content: Vec<u8>,
    pub(super) access: Access,
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody whom the umask lets.
    Public,
    /// Its owner alone, from the moment that it is there.
    Secret,
}

/// A folder that files are written to, by one run at a time.
pub(super) struct Folder {
    path: PathBuf,
    /// Held open for its lock, which keeps the files of two runs from being mixed.
    handle: File,
}

impl Folder {
    /// Opens a folder, and makes it where it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = fs::create_dir_all(path).and_then(|()| File::open(path));
        let handle = opened.map_err(|error| {
            let problem = match error.kind() {
                io::ErrorKind::AlreadyExists => "it is no folder".to_owned(),
                _ => error.to_string(),
            };
            let line = format!("--out: cannot write to {}: {problem}", quoted(path));
            Failure::outside(line).hint("give another folder")
        })?;
        // Any other failure means a file system without locks, and there it has to do without.
        if flock(&handle, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            let line = format!("--out: another program is writing to {}", quoted(path));
            return Err(
                Failure::outside(line).hint("wait until it has ended, or give another folder")
            );
        }
        Ok(Self { path: path.to_owned(), handle })
    }

    /// Fails where one of `files` is there already, or, if that is as it should be, cannot be
    /// replaced.
    pub(super) fn check(&self, files: &[NewFile], may_replace: bool) -> Result<(), Failure> {
        for file in files {
            let path = self.path.join(file.name);
            // A link counts for itself, whatever it leads to.
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot_write(&path, &error)),
                Ok(_) if !may_replace => {
                    let line = format!("{} exists already", quoted(&path));
                    return Err(Failure::outside(line).hint("give --force to replace it"));
                }
                Ok(found) if found.is_dir() => {
                    let line = format!("{} is a folder and cannot be replaced", quoted(&path));
                    return Err(Failure::outside(line).hint("give another --out"));
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Writes all files, or, where there is no room for one or no right to write it, none.
    ///
    /// Each is written in full under another name first. Putting them in their places then takes
    /// but a moment for all of them, and is hardly a thing that can fail.
    pub(super) fn write(&self, files: &[NewFile]) -> Result<(), Failure> {
        let mut drafts = Vec::new();
        for file in files {
            let path = self.path.join(file.name);
            let draft = Draft::write(&path, file)?;
            drafts.push((draft, path));
        }
        for (draft, path) in drafts {
            draft.rename(&path)?;
        }
        // The names are on the disk, too, before they are told. Some file systems cannot do that.
        let _ = self.handle.sync_all();
        Ok(())
    }
}

/// A file that is complete, but not in its place. It is removed when it is dropped.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, file: &NewFile) -> Result<Self, Failure> {
        let mut number = String::new();
        for byte in random_bytes::<8>()? {
            let _ = write!(number, "{byte:02x}");
        }
        let path = target.with_file_name(format!(".{}.{number}.new", file.name));
        let mode = match file.access {
            Access::Public => 0o644,
            Access::Secret => 0o600,
        };
        let failed = |error: io::Error| cannot_write(target, &error);
        // New, so that it has the mode from the start, and follows no link that somebody has laid.
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut handle = opened.map_err(failed)?;
        let draft = Self { path };
        handle.write_all(&file.content).and_then(|()| handle.sync_all()).map_err(failed)?;
        Ok(draft)
    }

    fn rename(self, target: &Path) -> Result<(), Failure> {
        // Dropped afterwards, when nothing has its name any more, unless this has failed.
        fs::rename(&self.path, target).map_err(|error| cannot_write(target, &error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::outside(format!("cannot write {}: {error}", quoted(path))).hint("give another --out")
}

/// A path as it is put into a message: its folder is cut where it is absurdly long, its name never.
fn quoted(path: &Path) -> String {
    let (folder, name) = match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => (folder, Path::new(name)),
        _ => (Path::new(""), path),
    };
    let folder = shown(&folder.to_string_lossy());
    let name = shown(&name.to_string_lossy());
    let slash = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
    format!("'{folder}{slash}{name}'")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(name: &'static str, content: &str, access: Access) -> NewFile {
        NewFile { name, content: content.into(), access }
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_replace_others_with_a_mode_of_their_own_and_leave_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        fs::write(path.join("key"), "old").unwrap();
        fs::set_permissions(path.join("key"), fs::Permissions::from_mode(0o666)).unwrap();
        let files = [file("cert", "new", Access::Public), file("key", "new", Access::Secret)];
        assert!(folder.check(&files, false).is_err());
        folder.check(&files, true).unwrap();
        folder.write(&files).unwrap();
        assert_eq!(names(&path), ["cert", "key"]);
        assert_eq!(fs::read_to_string(path.join("key")).unwrap(), "new");
        let mode = fs::metadata(path.join("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_draft_that_is_given_up_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let target = temp.path().join("key");
        let draft = Draft::write(&target, &file("key", "secret", Access::Secret)).unwrap();
        assert_eq!(names(temp.path()).len(), 1);
        let mode = fs::metadata(&draft.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(draft);
        assert!(names(temp.path()).is_empty());
    }

    #[test]
    fn what_a_link_leads_to_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let (elsewhere, link) = (temp.path().join("elsewhere"), temp.path().join("key"));
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        let files = [file("key", "secret", Access::Secret)];
        let folder = Folder::open(temp.path()).unwrap();
        assert!(folder.check(&files, false).is_err());
        folder.write(&files).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
        assert!(!fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_message_cuts_an_absurd_folder_and_keeps_the_name_of_the_file() {
        assert_eq!(quoted(Path::new("a/b.pem")), "'a/b.pem'");
        assert_eq!(quoted(Path::new("/b.pem")), "'/b.pem'");
        assert_eq!(quoted(Path::new("b.pem")), "'b.pem'");
        let long = quoted(&Path::new(&"a".repeat(4_000)).join("b.pem"));
        assert!(long.len() < 150 && long.ends_with("/b.pem'"), "{long}");
    }

    #[test]
    fn one_run_at_a_time_writes_to_a_folder() {
        let temp = tempfile::tempdir().unwrap();
        let first = Folder::open(temp.path()).unwrap();
        let refused = Folder::open(temp.path()).err().unwrap();
        assert!(format!("{refused:?}").contains("another program is writing"), "{refused:?}");
        drop(first);
        Folder::open(temp.path()).unwrap();
    }
}
