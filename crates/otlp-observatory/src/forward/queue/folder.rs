//! Folder with the queues of all signals, which one process locks.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Reason the folder of the forwarding queue cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Another process has locked the folder.
    #[error(
        "the forwarding queue in {} is used by another process; use a separate folder for each process",
        .0.display()
    )]
    InUse(PathBuf),
    /// The folder cannot be created, locked, read or written.
    #[error("cannot use the forwarding queue in {}: {source}", .path.display())]
    Io {
        /// Path of the folder.
        path: PathBuf,
        /// Error of the file system.
        source: io::Error,
    },
}

/// Locked folder. The operating system releases the lock when the process ends, even after a crash.
#[derive(Debug)]
pub(in crate::forward) struct Folder {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder at `path`; creates it if it is missing.
    pub(in crate::forward) fn lock(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Io {
            path: path.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(unusable(source)),
        }
    }
}
