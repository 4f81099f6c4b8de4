//! The data directory: who holds it, and the room kept free in it for the day when the disk is full.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::Error;

/// Only the owner reads what models answered and people wrote.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Makes the directory if it is not there; one that is there keeps its mode.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| Error::of_file("making directory", dir, e))
}

/// Locks the directory for one process. The kernel releases it with the process, however that ends, so there is no stale lock; the
/// pid in the file is there only to be read aloud.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Lock, Error> {
        let path = dir.join("lock");
        let failed = |doing| move |e| Error::of_file(doing, &dir.join("lock"), e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(&path).map_err(failed("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.to_owned(), pid: holder(&mut file) }),
            Err(TryLockError::Error(e)) => return Err(failed("locking")(e)),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed("writing"))?;
        Ok(Lock { _file: file })
    }
}

/// The pid in the lock file. The holder may have locked and not yet written: wait a little for him.
fn holder(file: &mut File) -> String {
    for _ in 0..10 {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
        if read.is_ok() && text.ends_with('\n') {
            return text.trim().to_owned();
        }
        thread::sleep(Duration::from_millis(50));
    }
    "unknown".to_owned()
}

/// Creates an empty database file, so that it and the files that SQLite puts beside it belong to the owner alone; and refuses to
/// begin anew where there was a database: the reserve is made after the first schema, so it is the sign that one was here.
pub(super) fn refuse_lost_database(path: &Path, reserve: &Reserve) -> Result<(), Error> {
    let bytes = match fs::metadata(path) {
        Ok(m) => m.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(Error::of_file("looking at", path, e)),
    };
    if bytes > 0 {
        return Ok(());
    }
    let wal = super::wal::path_of(path);
    if reserve.exists() || fs::metadata(&wal).is_ok_and(|m| m.len() > 0) {
        let found = format!("it is missing or empty in a directory that was in use; to begin anew, move {} away too", reserve.path.display());
        return Err(Error::Corrupt { path: path.to_owned(), found });
    }
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::of_file("making", path, e)),
    }
}

/// SQLite's log needs memory shared between processes and locks that are kept, which file systems over a network do not give.
pub(super) fn warn_of_network(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Ok(dir) = dir.canonicalize()
        && let Some(kind) = network_kind(&mounts, &dir)
    {
        tracing::warn!(dir = %dir.display(), file_system = kind, "the data directory lies on a network file system: use a local disk");
    }
}

/// The kind of the file system that holds `dir`, if it is one of the network's. Only Linux tells.
fn network_kind<'m>(mounts: &'m str, dir: &Path) -> Option<&'m str> {
    const NETWORK: &[&str] = &["nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "ceph", "fuse.glusterfs", "afs", "lustre"];
    let of_line = |line: &'m str| {
        let (mount, kind) = line.split_once(" - ")?;
        let at = Path::new(mount.split(' ').nth(4)?);
        dir.starts_with(at).then_some((at.components().count(), kind.split(' ').next()?))
    };
    let (_, kind) = mounts.lines().filter_map(of_line).max_by_key(|(depth, _)| *depth)?;
    NETWORK.contains(&kind).then_some(kind)
}

/// Room on the disk that is ours to give up.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    pub(super) fn new(dir: &Path, bytes: u64) -> Reserve {
        Reserve { path: dir.join("reserve"), bytes }
    }

    fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Takes the room again if it was given up. On a disk without that much room it takes nothing, and says so.
    pub(super) fn fill(&self) -> bool {
        if fs::metadata(&self.path).is_ok_and(|m| m.len() >= self.bytes) {
            return true;
        }
        match self.write() {
            Ok(()) => true,
            Err(error) => {
                let _ = fs::remove_file(&self.path);
                tracing::warn!(path = %self.path.display(), bytes = self.bytes, %error, "no room for the reserve: a full disk will stop the store");
                false
            }
        }
    }

    /// Bytes that no file system can leave out as a hole or squeeze to nothing.
    fn write(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&self.path)?;
        let mut noise = 0x9e37_79b9_7f4a_7c15u64;
        let mut block = Vec::with_capacity(1 << 20);
        for _ in 0..(1 << 17) {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            block.extend_from_slice(&noise.to_le_bytes());
        }
        let mut left = self.bytes;
        while left > 0 {
            let now = left.min(block.len() as u64);
            file.write_all(&block[..now as usize])?;
            left -= now;
        }
        file.sync_all()
    }

    /// Gives the room up. False when there was none.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_file_system_is_recognised_by_the_deepest_mount() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n40 22 0:35 / /srv rw,relatime shared:1 - nfs4 host:/x rw\n41 40 0:36 / /srv/fast rw - xfs /dev/vdb rw\n";
        assert_eq!(network_kind(mounts, Path::new("/srv/bellwether")), Some("nfs4"));
        assert_eq!(network_kind(mounts, Path::new("/srv/fast/bellwether")), None);
        assert_eq!(network_kind(mounts, Path::new("/var/lib/bellwether")), None);
    }

    #[test]
    fn a_reserve_is_taken_given_up_and_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::new(dir.path(), 3_000_000);
        assert!(!reserve.release());
        assert!(reserve.fill());
        assert_eq!(fs::metadata(dir.path().join("reserve")).unwrap().len(), 3_000_000);
        assert!(reserve.release());
        assert!(reserve.fill());
    }
}
