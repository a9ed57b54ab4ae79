//! A file as memory: what is written to it stays when the process is killed.
//!
//! Words are atomic, so that whatever the file holds is a value, and nobody who maps it too can
//! make a store of ours undefined. A killed process has done its stores in their order, all of
//! them or the first ones; only when the machine goes may any of them be missing.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A file's words.
#[derive(Debug)]
pub struct MappedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory is atomic words, mapped until this is dropped, by whichever thread.
unsafe impl Send for MappedWords {}
// SAFETY: as above; there is no other access than through `&[AtomicU64]`.
unsafe impl Sync for MappedWords {}

impl MappedWords {
    /// Makes a file of so many zeros, in place of one that is there, readable by its owner only,
    /// and maps it. All its room is taken now: no store can find the file system full.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(path: &Path, words: usize) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let bytes = words
            .checked_mul(size_of::<u64>())
            .and_then(|bytes| i64::try_from(bytes).ok())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mapped = fallocate(&file, FallocateFlags::empty(), 0, bytes)
            .map_err(io::Error::from)
            .and_then(|()| Self::map(&file, words));
        if mapped.is_err() {
            let _ = std::fs::remove_file(path);
        }
        mapped
    }

    /// Maps a file that is there, as many whole words as it has.
    ///
    /// # Errors
    /// The kernel's; an empty file is invalid.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        Self::map(&file, bytes / size_of::<u64>())
    }

    fn map(file: &File, words: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(words.saturating_mul(size_of::<u64>()))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses overlaps nothing of ours.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self {
            start: start.cast(),
            words,
        })
    }

    /// All words. Whoever shortens the file meanwhile has the kernel end the process (SIGBUS).
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped, of that length, aligned to a page, and any bits are a word. Others may
        // write too, so words are atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for MappedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by us with that length; no slice of it outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.words * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn what_was_written_is_there_for_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("words");
        let first = MappedWords::create(&path, 1024).unwrap();
        assert!(first.words().iter().all(|word| word.load(Relaxed) == 0));
        first.words()[7].store(7, Relaxed);
        first.words()[1023].store(u64::MAX, Relaxed);
        // Another mapping sees it, whether the first is there or not.
        let second = MappedWords::open(&path).unwrap();
        drop(first);
        assert_eq!(second.words().len(), 1024);
        assert_eq!(second.words()[7].load(Relaxed), 7);
        assert_eq!(second.words()[1023].load(Relaxed), u64::MAX);
        // A new one is empty, and the old one's memory is still its own.
        let third = MappedWords::create(&path, 8).unwrap();
        assert_eq!(third.words()[7].load(Relaxed), 0);
        assert_eq!(second.words()[7].load(Relaxed), 7);
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("words");
        assert!(MappedWords::open(&path).is_err());
        std::fs::write(&path, "short").unwrap();
        assert!(MappedWords::open(&path).is_err());
        assert!(MappedWords::create(&directory.path().join("no/where"), 8).is_err());
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(MappedWords::open(&link).is_err());
        // No file system has that much room, and nothing is left behind.
        let large = directory.path().join("large");
        assert!(MappedWords::create(&large, 1 << 59).is_err());
        assert!(!large.exists());
    }
}
