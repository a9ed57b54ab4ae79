//! `[daemon]`: where the daemon listens.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::document::{ApiTlsSection, DaemonSection};
use super::super::fault::Faults;
use super::super::model::{ApiConfig, ApiTls};
use super::NAME_MAX;

/// Linux: `sizeof(sockaddr_un.sun_path)` less the terminating zero.
const SOCKET_PATH_MAX: usize = 107;
/// Names in `daemon.api_tls.admins`.
const ADMINS_MAX: usize = 1024;
/// Longest of them, bytes: a host name's and more than a common name's (RFC 5280: 64).
const ADMIN_MAX: usize = 4 * NAME_MAX;

fn absolute(path: &str, text: &str, faults: &mut Faults) -> Option<PathBuf> {
    if text.starts_with('/') {
        return Some(text.into());
    }
    faults.add(path, format!("{text:?} is not an absolute path"));
    None
}

fn socket(path: &str, text: &str, faults: &mut Faults) -> Option<PathBuf> {
    let socket = absolute(path, text, faults)?;
    if text.len() > SOCKET_PATH_MAX {
        faults.add(
            path,
            format!("a socket's path has at most {SOCKET_PATH_MAX} bytes"),
        );
        return None;
    }
    Some(socket)
}

fn address(path: &str, text: &str, example: &str, faults: &mut Faults) -> Option<SocketAddr> {
    let fault = |_| format!("{text:?} is not address:port, such as {example}");
    faults.check(path, text.parse::<SocketAddr>().map_err(fault))
}

/// Where Prometheus finds the metrics.
pub(super) fn metrics(section: &DaemonSection, faults: &mut Faults) -> Option<SocketAddr> {
    let text = section.metrics.as_ref()?;
    address("daemon.metrics", text, "127.0.0.1:9464", faults)
}

/// Where the API listens; `None`: with faults.
pub(super) fn api(section: &DaemonSection, faults: &mut Faults) -> Option<ApiConfig> {
    let all = socket("daemon.api_socket", &section.api_socket, faults);
    let reading = section.read_only_socket.as_ref().map(|text| {
        let path = "daemon.read_only_socket";
        if *text == section.api_socket {
            faults.add(path, "is daemon.api_socket too: name another");
            return None;
        }
        socket(path, text, faults)
    });
    let over_tls = section.api_tls.as_ref().map(|found| tls(found, faults));
    if let (Some(found), Some(metrics)) = (&section.api_tls, &section.metrics)
        && found.address == *metrics
    {
        faults.add(
            "daemon.api_tls.address",
            "is daemon.metrics too: name another port",
        );
    }
    Some(ApiConfig {
        socket: all?,
        read_only_socket: match reading {
            None => None,
            Some(found) => Some(found?),
        },
        tls: match over_tls {
            None => None,
            Some(found) => Some(found?),
        },
    })
}

fn tls(section: &ApiTlsSection, faults: &mut Faults) -> Option<ApiTls> {
    let at = address(
        "daemon.api_tls.address",
        &section.address,
        "0.0.0.0:9463",
        faults,
    );
    let mut file = |name, text| absolute(&format!("daemon.api_tls.{name}"), text, faults);
    let certificate = file("certificate", &section.certificate);
    let key = file("key", &section.key);
    let client_ca = file("client_ca", &section.client_ca);
    if section.admins.len() > ADMINS_MAX {
        faults.add(
            "daemon.api_tls.admins",
            format!(
                "{} names are more than the {ADMINS_MAX} that there may be",
                section.admins.len()
            ),
        );
    }
    let mut admins = BTreeSet::new();
    for (index, name) in section.admins.iter().enumerate() {
        let path = format!("daemon.api_tls.admins[{index}]");
        if name.is_empty() || name.len() > ADMIN_MAX {
            faults.add(
                path,
                format!("{name:?} is no name in a certificate: 1 to {ADMIN_MAX} bytes"),
            );
        } else if !admins.insert(name.clone()) {
            faults.add(path, format!("{name:?} is there twice"));
        }
    }
    Some(ApiTls {
        address: at?,
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        admins,
    })
}
