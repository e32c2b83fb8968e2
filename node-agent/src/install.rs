//! Puts the driver into kubelet's plug-in directory: `<plug-ins>/vendor~driver/driver`.
//!
//! Kubelet may run the driver at any moment and watches the directory, so at each moment there
//! is the old driver, the new one or none, never half of one: it is written under a name with a
//! leading dot, which kubelet looks past, and renamed. The first time its directory comes by
//! rename too, since a driver's directory without a driver fails kubelet's probe.
//!
//! A driver that is the same already is not touched: any touch makes kubelet call `init` again.
//! Symbolic links are refused, not followed. Running pods and volumes are no business of this.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use rustix::{
    fs::unlinkat,
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, fsync, mkdirat, openat, renameat},
    io::Errno,
};

use crate::place::is_driver_directory;

/// Whom the driver may be read and run by: everybody; written by root alone.
const MODE: u32 = 0o755;

/// What came of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The driver is there now.
    Installed,
    /// The same one was there; nothing was touched.
    Unchanged,
}

/// Why the driver is not installed. What was there before is there still.
#[derive(Debug, thiserror::Error)]
#[error("installing the driver: {doing} {name}")]
pub struct InstallError {
    doing: &'static str,
    name: String,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(
    doing: &'static str,
    name: impl AsRef<Path>,
) -> impl FnOnce(E) -> InstallError {
    let name = name.as_ref().display().to_string();
    move |source| InstallError { doing, name, source: source.into() }
}

/// Installs the program `program` as `driver` (`vendor~driver`) in `plugins`, which must exist.
///
/// # Errors
/// A file can't be read or written, something in the way is a link or no plain file, or the
/// driver has no such name.
pub fn install(program: &Path, plugins: &Path, driver: &str) -> Result<Outcome, InstallError> {
    let name = match driver.split_once('~') {
        Some((_, name)) if is_driver_directory(driver) => name,
        _ => {
            let source = io::Error::other("is not vendor~driver");
            return Err(failed::<io::Error>("naming it", driver)(source));
        }
    };
    let bytes = fs::read(program).map_err(failed("reading", program))?;
    let all = directory(CWD, plugins).map_err(failed("opening the directory", plugins))?;
    // Two agents of one node, as in an upgrade by hand: one after the other.
    flock(&all, FlockOperation::LockExclusive).map_err(failed("locking", plugins))?;
    match directory(&all, driver) {
        Ok(own) => replace(&own, name, &bytes),
        Err(Errno::NOENT) => put_first(&all, driver, name, &bytes),
        Err(error) => Err(failed("opening the directory", driver)(error)),
    }
}

/// Installs where no driver of that name has been.
fn put_first(
    all: &OwnedFd,
    driver: &str,
    name: &str,
    bytes: &[u8],
) -> Result<Outcome, InstallError> {
    let aside = format!(".{driver}.tmp");
    match mkdirat(all, aside.as_str(), Mode::from_raw_mode(MODE)) {
        Ok(()) | Err(Errno::EXIST) => {} // one that a killed run left is gone on with
        Err(error) => return Err(failed("making the directory", &aside)(error)),
    }
    let own = directory(all, &aside).map_err(failed("opening the directory", &aside))?;
    File::from(own.try_clone().map_err(failed("opening the directory", &aside))?)
        .set_permissions(fs::Permissions::from_mode(MODE)) // whatever the umask is
        .map_err(failed("opening to all", &aside))?;
    replace(&own, name, bytes)?;
    renameat(all, aside.as_str(), all, driver).map_err(failed("renaming to", driver))?;
    fsync(all).map_err(failed("syncing the directory of", driver))?;
    Ok(Outcome::Installed)
}

/// Installs in the driver's own directory, unless the same is there.
fn replace(own: &OwnedFd, name: &str, bytes: &[u8]) -> Result<Outcome, InstallError> {
    if is_there(own, name, bytes).map_err(failed("reading", name))? {
        return Ok(Outcome::Unchanged);
    }
    let aside = format!(".{name}.tmp");
    match unlinkat(own, aside.as_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed("removing", &aside)(error)),
    }
    let renamed = write_new(own, &aside, bytes).map_err(failed("writing", &aside)).and_then(|()| {
        renameat(own, aside.as_str(), own, name).map_err(failed("renaming to", name))
    });
    if let Err(error) = renamed {
        let _ = unlinkat(own, aside.as_str(), AtFlags::empty()); // the next run would, too
        return Err(error);
    }
    fsync(own).map_err(failed("syncing the directory of", name))?;
    Ok(Outcome::Installed)
}

/// Whether the driver is there as it should be.
fn is_there(own: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(own, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("is no plain file"));
    }
    let as_ours = found.mode() & 0o7777 == MODE
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.len() == bytes.len() as u64;
    if !as_ours {
        return Ok(false);
    }
    let mut held = Vec::with_capacity(bytes.len() + 1);
    file.take(bytes.len() as u64 + 1).read_to_end(&mut held)?;
    Ok(held == bytes)
}

/// Writes a new file, on the disk when this returns, and closes it: an open one could not be run.
fn write_new(own: &OwnedFd, name: &str, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(own, name, flags, Mode::from_raw_mode(0o700))?);
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

fn directory(at: impl std::os::fd::AsFd, path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path.as_ref(), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const DRIVER: &str = "krb-broker~credentials";

    /// A node's plug-in directory, and a program to install.
    struct Node {
        dir: tempfile::TempDir,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("exec")).unwrap();
            Self { dir }
        }

        fn plugins(&self) -> std::path::PathBuf {
            self.dir.path().join("exec")
        }

        fn own(&self) -> std::path::PathBuf {
            self.plugins().join(DRIVER)
        }

        fn install(&self, program: &str) -> Result<Outcome, InstallError> {
            let file = self.dir.path().join("program");
            fs::write(&file, program).unwrap();
            install(&file, &self.plugins(), DRIVER)
        }

        fn driver(&self) -> String {
            fs::read_to_string(self.own().join("credentials")).unwrap()
        }

        /// All names below the plug-in directory.
        fn names(&self) -> Vec<String> {
            let list = |path: &Path| -> Vec<String> {
                let entries = fs::read_dir(path).unwrap();
                entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
            };
            [list(&self.plugins()), list(&self.own())].concat()
        }
    }

    #[test]
    fn the_first_driver_comes_with_its_directory_and_all_may_run_it() {
        let node = Node::new();
        assert_eq!(node.install("one").unwrap(), Outcome::Installed);
        assert_eq!(node.driver(), "one");
        assert_eq!(node.names(), [DRIVER, "credentials"], "nothing is left beside it");
        for path in [node.own(), node.own().join("credentials")] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o755);
        }
    }

    #[test]
    fn a_new_driver_is_a_new_file_and_the_same_one_is_not_touched() {
        let node = Node::new();
        let inode = || fs::metadata(node.own().join("credentials")).unwrap();
        node.install("one").unwrap();
        let first = inode();
        assert_eq!(node.install("one").unwrap(), Outcome::Unchanged);
        let again = inode();
        assert_eq!((first.ino(), first.ctime_nsec()), (again.ino(), again.ctime_nsec()));
        let running = File::open(node.own().join("credentials")).unwrap();
        assert_eq!(node.install("two").unwrap(), Outcome::Installed);
        assert_eq!(node.driver(), "two");
        assert_eq!(io::read_to_string(running).unwrap(), "one", "a call that runs keeps its file");
    }

    #[test]
    fn a_driver_that_others_may_write_is_replaced_although_it_is_the_same() {
        let node = Node::new();
        node.install("one").unwrap();
        let driver = node.own().join("credentials");
        fs::set_permissions(&driver, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(node.install("one").unwrap(), Outcome::Installed);
        assert_eq!(fs::metadata(&driver).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn what_a_killed_run_left_is_in_nobodys_way() {
        let node = Node::new();
        let aside = node.plugins().join(format!(".{DRIVER}.tmp"));
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join(".credentials.tmp"), "ha").unwrap();
        node.install("one").unwrap();
        assert_eq!(node.names(), [DRIVER, "credentials"]);
        fs::write(node.own().join(".credentials.tmp"), "ha").unwrap();
        node.install("two").unwrap();
        assert_eq!(
            (node.driver(), node.names()),
            ("two".to_owned(), vec![DRIVER.to_owned(), "credentials".to_owned()])
        );
    }

    #[test]
    fn links_are_refused_wherever_they_are_and_what_they_name_is_left_alone() {
        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "precious").unwrap();

        let node = Node::new();
        symlink(elsewhere.path(), node.own()).unwrap();
        node.install("one").unwrap_err();
        fs::remove_file(node.own()).unwrap();

        node.install("one").unwrap();
        fs::remove_file(node.own().join("credentials")).unwrap();
        symlink(&victim, node.own().join("credentials")).unwrap();
        node.install("two").unwrap_err();

        let node = Node::new();
        symlink(elsewhere.path(), node.plugins().join(format!(".{DRIVER}.tmp"))).unwrap();
        node.install("one").unwrap_err();
        fs::remove_dir_all(node.plugins()).unwrap();
        symlink(elsewhere.path(), node.plugins()).unwrap();
        node.install("one").unwrap_err();

        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_at_the_name_aside_is_removed_and_not_written_through() {
        let node = Node::new();
        node.install("one").unwrap();
        let victim = node.dir.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, node.own().join(".credentials.tmp")).unwrap();
        node.install("two").unwrap();
        assert_eq!(
            (node.driver().as_str(), fs::read_to_string(&victim).unwrap().as_str()),
            ("two", "precious")
        );
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let node = Node::new();
        let program = node.dir.path().join("program");
        fs::write(&program, "one").unwrap();
        for driver in ["credentials", "../up~x", "a~../../x", "a~", "~b", "a~b/c"] {
            install(&program, &node.plugins(), driver).unwrap_err();
        }
        assert_eq!(fs::read_dir(node.plugins()).unwrap().count(), 0);
    }

    #[test]
    fn whoever_looks_at_any_moment_finds_a_whole_driver() {
        let node = Node::new();
        let whole = ["a".repeat(200_000), "b".repeat(300_000)];
        node.install(&whole[0]).unwrap();
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| (0..300).all(|_| whole.contains(&node.driver())));
            for turn in 0..40 {
                node.install(&whole[turn % 2]).unwrap();
            }
            assert!(looking.join().unwrap(), "half a driver was seen");
        });
    }
}
