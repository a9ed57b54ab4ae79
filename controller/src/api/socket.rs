//! The API's unix socket: made at start, removed at the end, never taken from a living daemon.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketMode {
    /// Owner and group.
    Group,
    /// Every user.
    Everybody,
}

impl SocketMode {
    const fn bits(self) -> u32 {
        match self {
            SocketMode::Group => 0o660,
            SocketMode::Everybody => 0o666,
        }
    }
}

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon listens there.
    #[error(
        "a shuntd is running already: it listens on {}; stop it, or name another socket in \
         daemon.api_socket (or daemon.read_only_socket)", .0.display()
    )]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} is in the way of the API's socket: it is not a socket; remove it", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("the API's socket {} cannot be made: {source}; check daemon.api_socket", path.display())]
    Refused {
        /// Where it should be.
        path: PathBuf,
        /// In its words.
        source: io::Error,
    },
}

/// A listening socket; its file goes with it.
#[derive(Debug)]
pub struct ApiSocket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl ApiSocket {
    /// Listens; replaces what a dead predecessor left, and makes the directory.
    ///
    /// # Errors
    /// [`SocketError`].
    pub async fn bind(path: &Path, mode: SocketMode) -> Result<Self, SocketError> {
        let refused = |source| SocketError::Refused {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(refused)?;
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(refused)?;
        let socket = Self {
            path: path.to_owned(),
            listener: Some(listener),
        };
        let mode = std::fs::Permissions::from_mode(mode.bits());
        std::fs::set_permissions(path, mode).map_err(refused)?;
        Ok(socket)
    }

    /// The listener, for the first who asks.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    use std::os::unix::fs::FileTypeExt as _;
    let refused = |source| SocketError::Refused {
        path: path.to_owned(),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(refused)
        }
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_living_daemon_keeps_its_socket_and_a_dead_ones_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/shuntd.sock");
        let first = ApiSocket::bind(&path, SocketMode::Group).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let error = ApiSocket::bind(&path, SocketMode::Group).await.unwrap_err();
        assert!(error.to_string().contains("is running already"), "{error}");
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // killed
        assert!(path.exists());
        let again = ApiSocket::bind(&path, SocketMode::Group).await.unwrap();
        drop(again);

        std::fs::write(&path, "").unwrap();
        let error = ApiSocket::bind(&path, SocketMode::Group).await.unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
    }
}
