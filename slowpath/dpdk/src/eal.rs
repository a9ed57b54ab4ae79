//! DPDK's environment abstraction layer: started once, up until the process ends.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::ffi;

/// Memory DPDK takes at start without hugepages, in MiB, unless configured.
pub const DEFAULT_MEMORY_MIB: u32 = 256;

/// Longest device name, in bytes (`RTE_DEV_NAME_MAX_LEN`, NUL included, is 64).
pub const MAX_DEVICE_NAME: usize = 63;

/// How much DPDK writes to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Errors only.
    #[default]
    Error,
    /// Warnings too.
    Warning,
    /// What DPDK prints by default.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How to start DPDK. The default suits software ports, with or without root.
#[derive(Debug, Clone)]
pub struct EalConfig {
    /// Ordinary memory instead of hugepages. Pools are then packed for software
    /// ports ([`crate::Pool`]), and are of no use to a NIC that does DMA.
    pub no_huge: bool,
    /// Leave the PCI bus alone.
    pub no_pci: bool,
    /// Memory to take at start, in MiB: all there will be with `no_huge`.
    pub memory_mib: u32,
    /// The CPU that EAL calls its main lcore. Only the thread that initialises
    /// ever runs there; workers are [registered](crate::register_thread)
    /// instead. `None`: the first CPU the caller may run on.
    pub main_cpu: Option<usize>,
    /// What DPDK writes to stderr.
    pub log_level: LogLevel,
    /// Prefix of DPDK's files. `None`: one with this process's id.
    pub file_prefix: Option<String>,
    /// Virtual devices, as after DPDK's `--vdev`: `net_af_packet0,iface=veth1,qpairs=1`.
    /// The arguments come from whoever may configure the daemon: DPDK trusts them.
    pub vdevs: Vec<String>,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            no_huge: true,
            no_pci: true,
            memory_mib: DEFAULT_MEMORY_MIB,
            main_cpu: None,
            log_level: LogLevel::default(),
            file_prefix: None,
            vdevs: Vec::new(),
        }
    }
}

/// Why DPDK did not start, or a device was not created.
#[derive(Debug, thiserror::Error)]
pub enum EalError {
    /// EAL starts once a process, even if that once failed.
    #[error("DPDK was already started in this process, and starts only once")]
    AlreadyStarted,
    /// A text of the configuration that DPDK would not read as one word.
    #[error("{what} {value:?} is not usable: {why}")]
    BadArgument {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `rte_eal_init` failed.
    #[error("DPDK did not start with `{arguments}`: {source}; its own messages are on stderr")]
    Init {
        /// The command line given to EAL.
        arguments: String,
        /// DPDK's error number.
        source: std::io::Error,
    },
    /// The thread that initialises could not run.
    #[error("no thread to start DPDK on: {0}")]
    Thread(#[source] std::io::Error),
    /// A virtual device could not be created.
    #[error(
        "DPDK device `{name}` with `{arguments}` could not be created: {source}; check that the driver is linked in and that its interface exists"
    )]
    Device {
        /// The device's name, `net_af_packet0`.
        name: String,
        /// Its arguments, `iface=veth1`.
        arguments: String,
        /// DPDK's error number.
        source: std::io::Error,
    },
}

/// Proof that DPDK runs. Cheap to copy; DPDK stays up until the process ends,
/// because packet buffers live in its memory and may be anywhere by then. All
/// of it is anonymous memory, which the kernel takes back.
#[derive(Debug, Clone, Copy)]
pub struct Eal {
    no_huge: bool,
}

static STARTED: AtomicBool = AtomicBool::new(false);

/// Held over DPDK's configuration calls, which are rare and not all safe beside
/// each other.
pub(crate) struct Control {
    /// One bit for each port that is open.
    pub(crate) open_ports: u64,
}

static CONTROL: Mutex<Control> = Mutex::new(Control { open_ports: 0 });

pub(crate) fn control() -> MutexGuard<'static, Control> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eal {
    /// Starts DPDK and creates the configured devices. Once a process.
    ///
    /// Runs on a thread of its own, because EAL pins the thread that calls it
    /// and every thread that one starts. The caller's CPUs are left as they were.
    pub fn init(config: EalConfig) -> Result<Self, EalError> {
        let arguments = command_line(&config)?;
        // Checked before EAL starts, so that a bad text does not use up the one start.
        let vdevs: Vec<Vdev> = config
            .vdevs
            .iter()
            .map(|v| Vdev::parse(v))
            .collect::<Result<_, _>>()?;
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyStarted);
        }
        std::thread::Builder::new()
            .name("dpdk-init".into())
            .spawn(move || start(&arguments))
            .map_err(EalError::Thread)?
            .join()
            .map_err(|_| EalError::Thread(std::io::Error::other("it panicked")))??;
        let eal = Self {
            no_huge: config.no_huge,
        };
        for vdev in vdevs {
            vdev.create()?;
        }
        Ok(eal)
    }

    /// Creates a virtual device, given as after DPDK's `--vdev`. It is removed
    /// when the [`crate::Port`] opened on it closes.
    pub fn create_vdev(&self, vdev: &str) -> Result<(), EalError> {
        Vdev::parse(vdev)?.create()
    }

    pub(crate) fn no_huge(&self) -> bool {
        self.no_huge
    }
}

/// A device name and its arguments, fit for DPDK.
struct Vdev {
    name: CString,
    arguments: CString,
}

impl Vdev {
    fn parse(text: &str) -> Result<Self, EalError> {
        let bad = |why| EalError::BadArgument {
            what: "virtual device",
            value: text.to_owned(),
            why,
        };
        let (name, arguments) = text.split_once(',').unwrap_or((text, ""));
        if name.is_empty() || name.len() > MAX_DEVICE_NAME {
            return Err(bad("the device name must have 1 to 63 bytes"));
        }
        if name.contains(char::is_whitespace) {
            return Err(bad("the device name has a space in it"));
        }
        let keys = || {
            arguments
                .split(',')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        };
        // Driver arguments that would hand DPDK a pointer, or let it copy past an mbuf.
        if name.contains("_ring") && keys().any(|(key, _)| key.trim() == "internal") {
            return Err(bad("`internal` is a pointer; use RingPort"));
        }
        if name.contains("_null")
            && keys().any(|(key, value)| key.trim() == "copy" && value.trim() != "0")
        {
            return Err(bad("`copy` reads and writes past short packet buffers"));
        }
        Ok(Self {
            name: CString::new(name).map_err(|_| bad("it has a NUL byte"))?,
            arguments: CString::new(arguments).map_err(|_| bad("it has a NUL byte"))?,
        })
    }

    fn create(&self) -> Result<(), EalError> {
        let _control = control();
        // SAFETY: both are NUL-terminated and DPDK copies them.
        let ret = unsafe { ffi::shunt_vdev_init(self.name.as_ptr(), self.arguments.as_ptr()) };
        if ret < 0 {
            return Err(EalError::Device {
                name: self.name.to_string_lossy().into_owned(),
                arguments: self.arguments.to_string_lossy().into_owned(),
                source: ffi::os_error(ret),
            });
        }
        Ok(())
    }
}

/// EAL's command line.
fn command_line(config: &EalConfig) -> Result<Vec<CString>, EalError> {
    let prefix = match &config.file_prefix {
        Some(prefix) => prefix.clone(),
        None => format!("shunt-{}", std::process::id()),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if prefix.is_empty()
        || prefix.len() > 63
        || prefix.starts_with('.')
        || !prefix.chars().all(plain)
    {
        return Err(EalError::BadArgument {
            what: "file prefix",
            value: prefix,
            why: "1 to 63 letters, digits, - _ or ., not starting with a dot",
        });
    }
    let cpu = config.main_cpu.unwrap_or_else(first_cpu);
    let mut arguments = vec![
        "shunt".to_owned(),
        format!("--lcores=0@{cpu}"),
        format!("--file-prefix={prefix}"),
        format!("--log-level=*:{}", config.log_level.name()),
        // No files that outlive the process: --in-memory would say the same,
        // but 22.11 refuses it beside --no-huge.
        "--no-shconf".to_owned(),
        "--no-telemetry".to_owned(),
        "-m".to_owned(),
        config.memory_mib.to_string(),
    ];
    if config.no_huge {
        arguments.push("--no-huge".to_owned());
        arguments.push("--iova-mode=va".to_owned());
    } else {
        arguments.push("--huge-unlink=always".to_owned());
    }
    if config.no_pci {
        arguments.push("--no-pci".to_owned());
    }
    arguments
        .into_iter()
        .map(|value| {
            CString::new(value.clone()).map_err(|_| EalError::BadArgument {
                what: "argument",
                value,
                why: "it has a NUL byte",
            })
        })
        .collect()
}

/// The first CPU this thread may run on.
fn first_cpu() -> usize {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else {
        return 0;
    };
    (0..CpuSet::count())
        .find(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .unwrap_or(0)
}

fn start(arguments: &[CString]) -> Result<(), EalError> {
    // EAL keeps pointers into its argv, and getopt reorders the array.
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|a| a.clone().into_raw()).collect();
    let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
    argv.push(std::ptr::null_mut());
    let argv = Vec::leak(argv);
    let shared = runtime_parent();
    let shared_existed = shared.as_deref().is_none_or(Path::exists);

    let _control = control();
    // SAFETY: argv holds argc NUL-terminated strings and a NULL, all leaked and
    // referred to by nothing else. STARTED lets one caller in.
    let ret = unsafe { ffi::shunt_eal_init(argc, argv.as_mut_ptr()) };
    if let Some(own) = runtime_dir() {
        // Empty under --no-shconf; a directory in use stays, which is not an error.
        let _ = std::fs::remove_dir(own);
        if !shared_existed && let Some(shared) = shared {
            let _ = std::fs::remove_dir(shared);
        }
    }
    if ret < 0 {
        let words: Vec<_> = arguments
            .iter()
            .skip(1)
            .map(|a| a.to_string_lossy())
            .collect();
        return Err(EalError::Init {
            arguments: words.join(" "),
            source: ffi::os_error(ret),
        });
    }
    Ok(())
}

/// The directory EAL made for itself, if it came that far.
fn runtime_dir() -> Option<PathBuf> {
    // SAFETY: returns EAL's static buffer, NUL-terminated; written only by rte_eal_init.
    let text = unsafe {
        let text = ffi::shunt_runtime_dir();
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text)
    };
    let path = text.to_str().ok().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(path))
}

/// The directory EAL will make its own directory in, by EAL's rule.
fn runtime_parent() -> Option<PathBuf> {
    let base = if nix::unistd::getuid().is_root() {
        PathBuf::from("/var/run")
    } else {
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    };
    Some(base.join("dpdk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(config: &EalConfig) -> Vec<String> {
        command_line(config)
            .unwrap()
            .iter()
            .map(|a| a.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn default_command_line_needs_no_privileges() {
        let words = words(&EalConfig {
            main_cpu: Some(1),
            ..EalConfig::default()
        });
        for wanted in [
            "--no-huge",
            "--no-pci",
            "--no-shconf",
            "--no-telemetry",
            "--lcores=0@1",
            "--iova-mode=va",
        ] {
            assert!(words.iter().any(|w| w == wanted), "{wanted} in {words:?}");
        }
        assert!(words.iter().any(|w| w.starts_with("--file-prefix=shunt-")));
    }

    #[test]
    fn file_prefix_stays_inside_its_directory() {
        for bad in ["", "..", "a/b", "a b", "x\0y"] {
            let config = EalConfig {
                file_prefix: Some(bad.into()),
                ..EalConfig::default()
            };
            assert!(
                matches!(command_line(&config), Err(EalError::BadArgument { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn vdev_text_is_split_at_the_first_comma() {
        let vdev = Vdev::parse("net_af_packet0,iface=veth1,qpairs=2").unwrap();
        assert_eq!(vdev.name.to_str().unwrap(), "net_af_packet0");
        assert_eq!(vdev.arguments.to_str().unwrap(), "iface=veth1,qpairs=2");
        assert!(Vdev::parse("net_null0").unwrap().arguments.is_empty());
    }

    #[test]
    fn vdev_arguments_that_carry_pointers_or_overrun_are_refused() {
        for bad in [
            "",
            ",iface=x",
            "net_ring0,internal=0x1",
            "eth_ring0, internal =1",
            "net_null0,size=64,copy=1",
            "a b",
        ] {
            assert!(
                matches!(Vdev::parse(bad), Err(EalError::BadArgument { .. })),
                "{bad:?}"
            );
        }
        assert!(Vdev::parse("net_null0,size=64,copy=0").is_ok());
    }
}
