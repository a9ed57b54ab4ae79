//! Compiles the C shim and links DPDK: archives by default, shared libraries by feature `dynamic`.

use std::path::Path;
use std::process::{Command, ExitCode};

/// The release line the shim is written for (Debian 12).
const OLDEST: &str = "22.11";

/// What to install on Debian.
const PACKAGES: &str = "libdpdk-dev libpcap-dev pkg-config";

/// Libraries the shim calls, and what those call.
const CORE: &[&str] = &[
    "rte_ethdev",
    "rte_net",
    "rte_meter",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_eal",
    "rte_telemetry",
    "rte_kvargs",
];

/// Drivers: they register themselves by constructors, so nothing else refers to them.
const DRIVERS: &[&str] = &[
    "rte_bus_vdev",
    "rte_mempool_ring",
    "rte_net_af_packet",
    "rte_net_ring",
    "rte_net_null",
];

/// What the shim itself refers to in a dynamic link; EAL loads the other drivers.
const DYNAMIC_DRIVERS: &[&str] = &["rte_bus_vdev", "rte_net_ring"];

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=shim/shim.c");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(false)
        .probe("libdpdk")
        .map_err(|e| match e {
            pkg_config::Error::Command { cause, .. } => format!(
                "pkg-config cannot be run: {cause}. On Debian: apt-get install {PACKAGES}"
            ),
            _ => format!(
                "pkg-config finds no libdpdk of {OLDEST} or newer. On Debian: apt-get install {PACKAGES}"
            ),
        })?;
    let libdir = pkg_config::get_variable("libdpdk", "libdir")
        .map_err(|e| format!("pkg-config names no libdir for libdpdk: {e}"))?;

    let mut shim = cc::Build::new();
    shim.file("shim/shim.c")
        .std("gnu11")
        .opt_level(3)
        .debug(false)
        .warnings(true);
    // The flags carry `-include rte_config.h` and the CPU baseline, which the
    // pkg-config crate does not hand through.
    for flag in cflags()? {
        shim.flag(flag);
    }
    shim.try_compile("shunt_dpdk_shim")
        .map_err(|e| format!("the DPDK shim does not compile: {e}"))?;

    println!("cargo:rustc-link-search=native={libdir}");
    if std::env::var_os("CARGO_FEATURE_DYNAMIC").is_some() {
        for lib in CORE.iter().chain(DYNAMIC_DRIVERS) {
            println!("cargo:rustc-link-lib=dylib={lib}");
        }
        return Ok(());
    }
    let mut archives: Vec<&str> = CORE.iter().chain(DRIVERS).copied().collect();
    let mut shared = vec!["numa", "bsd", "m", "dl", "pthread"];
    if std::env::var_os("CARGO_FEATURE_PCAP").is_some() {
        archives.push("rte_net_pcap");
        shared.push("pcap");
    }
    for lib in archives {
        let archive = Path::new(&libdir).join(format!("lib{lib}.a"));
        if !archive.exists() {
            return Err(format!(
                "{} is missing. Install Debian's libdpdk-dev, or build with feature `dynamic`",
                archive.display()
            ));
        }
        // Whole, for the constructors; not bundled, so that rustc passes the
        // flag on to whatever binary links this crate.
        println!("cargo:rustc-link-lib=static:+whole-archive,-bundle={lib}");
    }
    for lib in shared {
        println!("cargo:rustc-link-lib=dylib={lib}");
    }
    Ok(())
}

fn cflags() -> Result<Vec<String>, String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let out = Command::new(&program)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|e| {
            format!("{program} cannot be run: {e}. On Debian: apt-get install pkg-config")
        })?;
    if !out.status.success() {
        return Err(format!(
            "{program} --cflags libdpdk failed: {}",
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    Ok(String::from_utf8_lossy(&out.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}
