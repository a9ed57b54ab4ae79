//! Worker threads that DPDK knows.

use std::marker::PhantomData;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::eal::{Eal, control};
use crate::ffi;

/// Most threads registered at once (`RTE_MAX_LCORE` less EAL's own).
pub const MAX_THREADS: usize = 127;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// This thread holds a [`Registered`] already.
    #[error("this thread is already registered with DPDK")]
    AlreadyRegistered,
    /// DPDK refused, mostly because [`MAX_THREADS`] are registered.
    #[error("DPDK does not register this thread (it takes {MAX_THREADS}): {0}")]
    Register(#[source] std::io::Error),
    /// The kernel refused the CPU.
    #[error("thread `{name}` cannot run on CPU {cpu}: {source}")]
    Pin {
        /// The thread.
        name: String,
        /// The CPU.
        cpu: usize,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel gave no thread.
    #[error("thread `{name}` could not be started: {source}")]
    Spawn {
        /// The thread.
        name: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// While this lives, the thread that holds it is known to DPDK and has caches
/// of its own in every [`crate::Pool`].
#[derive(Debug)]
pub struct Registered {
    // The registration is the thread's: not Send, not Sync.
    _thread: PhantomData<*const ()>,
}

/// Registers the calling thread. Pin it first: DPDK notes where it may run.
pub fn register_thread(_eal: &Eal) -> Result<Registered, ThreadError> {
    let _control = control();
    // SAFETY: EAL runs, by `_eal`; both look at the calling thread only.
    unsafe {
        if ffi::shunt_thread_is_registered() != 0 {
            return Err(ThreadError::AlreadyRegistered);
        }
        let ret = ffi::shunt_thread_register();
        if ret < 0 {
            return Err(ThreadError::Register(ffi::os_error(ret)));
        }
    }
    Ok(Registered {
        _thread: PhantomData,
    })
}

impl Drop for Registered {
    fn drop(&mut self) {
        let _control = control();
        // SAFETY: not Send, so this is the thread that registered.
        unsafe { ffi::shunt_thread_unregister() }
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Worker<T> {
    handle: JoinHandle<Option<T>>,
}

impl<T> Worker<T> {
    /// Waits for the worker to end. `Err`: it panicked, with what.
    pub fn join(self) -> std::thread::Result<T> {
        // `None` was reported by `spawn_worker` already, and gives no Worker.
        self.handle
            .join()?
            .ok_or_else(|| Box::new("the worker did not start") as _)
    }

    /// Whether the worker has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The thread, to unpark it.
    pub fn thread(&self) -> &std::thread::Thread {
        self.handle.thread()
    }
}

/// Starts a thread called `name`, pinned to `cpu` if given and registered with
/// DPDK, to run `work`. Returns once it runs, or could not be pinned or registered.
pub fn spawn_worker<T, F>(
    eal: &Eal,
    name: &str,
    cpu: Option<usize>,
    work: F,
) -> Result<Worker<T>, ThreadError>
where
    T: Send + 'static,
    F: FnOnce(&Registered) -> T + Send + 'static,
{
    let eal = *eal;
    let (started, result) = mpsc::sync_channel(1);
    let thread_name = name.to_owned();
    let spawn_failed = |source| ThreadError::Spawn {
        name: name.to_owned(),
        source,
    };
    let handle = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ready = pin(&thread_name, cpu).and_then(|()| register_thread(&eal));
            match ready {
                Ok(registered) => {
                    let _ = started.send(Ok(()));
                    Some(work(&registered))
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    None
                }
            }
        })
        .map_err(spawn_failed)?;
    result
        .recv()
        .map_err(|_| spawn_failed(std::io::Error::other("it panicked")))??;
    Ok(Worker { handle })
}

fn pin(name: &str, cpu: Option<usize>) -> Result<(), ThreadError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let mut only = CpuSet::new();
    only.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only))
        .map_err(|errno| ThreadError::Pin {
            name: name.to_owned(),
            cpu,
            source: errno.into(),
        })
}
