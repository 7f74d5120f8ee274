//! The folder that the queues of all signals are in, for one process at a time.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("the forwarding queue in {} is used by another process; give this one a folder of its own", .0.display())]
    InUse(PathBuf),
    #[error("the forwarding queue in {} cannot be used: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A folder, locked. The system frees it when the process ends, however it ends.
#[derive(Debug)]
pub(in crate::forward) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Locks the folder at `path`, which is made when it is not there.
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

    pub(in crate::forward) fn path(&self) -> &Path {
        &self.path
    }
}
