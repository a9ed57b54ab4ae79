//! Who may do what: everybody who gets in may look, admins may change things.
//!
//! Who somebody is says the way in: the unix socket's file mode lets only admins in, the read-only
//! socket lets everybody look, and over TCP it is the names in the client's certificate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use tonic::Status;
use tonic::codegen::http;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The API's calls that change nothing. Others, also those that are yet to come, are the admins'.
const LOOKING: [&str; 16] = [
    "GetStatus",
    "ListVpcs",
    "ListInterfaces",
    "ListRoutes",
    "ListNeighbors",
    "ListFlows",
    "ListNat",
    "ListNatRules",
    "TracePacket",
    "GetOffload",
    "ListSwitches",
    "WatchTop",
    "DiffSwitch",
    "GetConfig",
    "DiffConfig",
    "ListConfigLog",
];
/// These ask the daemon to check or to wait, and leave everything as it is.
const ASKING: [&str; 2] = ["ValidateConfig", "WaitConfig"];
/// Before the name of each.
const SERVICE: &str = "/shunt.v1.Shunt/";

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    ReadOnly,
    Admin,
}

/// A way in.
#[derive(Clone, Debug)]
pub(super) enum Entrance {
    /// Whoever gets in here has this role.
    For(Role),
    /// By certificate; these are the admins.
    Certificate(Arc<BTreeSet<String>>),
}

/// Who sent a request. Goes with it as an extension.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) role: Role,
    /// The first name in the certificate, where there is one.
    pub(super) name: Option<String>,
}

impl Entrance {
    fn caller(&self, extensions: &http::Extensions) -> Caller {
        let admins = match self {
            Entrance::For(role) => {
                return Caller {
                    role: *role,
                    name: None,
                };
            }
            Entrance::Certificate(admins) => admins,
        };
        let info = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificates = info.and_then(TlsConnectInfo::peer_certs);
        let own = certificates.as_ref().and_then(|chain| chain.first());
        let names = own.map(|der| names(der)).unwrap_or_default();
        let is_admin = names.iter().any(|name| admins.contains(name));
        Caller {
            role: if is_admin {
                Role::Admin
            } else {
                Role::ReadOnly
            },
            name: names.into_iter().next(),
        }
    }
}

/// Common names, then alternative names (RFC 5280 sections 4.1.2.6 and 4.2.1.6).
fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative
        .iter()
        .flat_map(|found| &found.value.general_names);
    let alternative = alternative.filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some(*name)
        }
        _ => None,
    });
    common.chain(alternative).map(str::to_owned).collect()
}

impl Caller {
    /// Whether a call, named by its path, is allowed.
    fn may(&self, path: &str) -> Result<(), Status> {
        let Some(call) = path.strip_prefix(SERVICE) else {
            return Ok(()); // health and reflection
        };
        if self.role == Role::Admin || LOOKING.contains(&call) || ASKING.contains(&call) {
            return Ok(());
        }
        Err(Status::permission_denied(match &self.name {
            Some(name) => format!(
                "{name} may look, and {call} is for admins: somebody who is one can add the name \
                 to daemon.api_tls.admins"
            ),
            None => format!(
                "{call} is for admins, and the way that you came lets you look: run as root, or \
                 as a member of the group of daemon.api_socket, and use that socket"
            ),
        }))
    }
}

/// Lets in by one entrance.
#[derive(Clone, Debug)]
pub(super) struct Access(pub(super) Entrance);

impl<S> Layer<S> for Access {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            entrance: self.0.clone(),
            inner,
        }
    }
}

/// A service behind an [`Entrance`].
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    entrance: Entrance,
    inner: S,
}

impl<S, Sent, Answer> Service<http::Request<Sent>> for Guarded<S>
where
    S: Service<http::Request<Sent>, Response = http::Response<Answer>>,
    Answer: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Sent>) -> Self::Future {
        let caller = self.entrance.caller(request.extensions());
        if let Err(status) = caller.may(request.uri().path()) {
            tracing::info!(call = request.uri().path(), name = ?caller.name, "not allowed");
            return Either::Right(ready(Ok(status.into_http())));
        }
        request.extensions_mut().insert(caller);
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// Calls that change something.
    const CHANGING: [&str; 4] = [
        "DeleteFlows",
        "ReconcileSwitch",
        "ChangeConfig",
        "SetLogLevel",
    ];

    #[test]
    fn every_call_has_its_role() {
        let files = FileDescriptorSet::decode(shunt_api::FILE_DESCRIPTOR_SET).unwrap();
        let service = files
            .file
            .iter()
            .flat_map(|file| &file.service)
            .find(|service| service.name() == "Shunt")
            .unwrap();
        let calls: BTreeSet<&str> = service.method.iter().map(|method| method.name()).collect();
        let listed = LOOKING.iter().chain(&ASKING).chain(&CHANGING).copied();
        assert_eq!(calls, listed.clone().collect());
        assert_eq!(calls.len(), listed.count(), "one is listed twice");

        let [reader, admin] = [Role::ReadOnly, Role::Admin].map(|role| Caller { role, name: None });
        for call in calls {
            let path = format!("{SERVICE}{call}");
            assert!(admin.may(&path).is_ok(), "{call}");
            assert_eq!(
                reader.may(&path).is_ok(),
                !CHANGING.contains(&call),
                "{call}"
            );
        }
        assert!(reader.may("/shunt.v1.Shunt/YetToCome").is_err());
        assert!(reader.may("/grpc.health.v1.Health/Check").is_ok());
    }

    #[test]
    fn a_certificates_names_are_its_common_and_alternative_ones() {
        let mut parameters =
            rcgen::CertificateParams::new(vec!["ops.example.net".to_owned()]).unwrap();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "alice");
        let email = "alice@example.net".try_into().unwrap();
        let uri = "spiffe://example.net/alice".try_into().unwrap();
        parameters
            .subject_alt_names
            .extend([rcgen::SanType::Rfc822Name(email), rcgen::SanType::URI(uri)]);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        assert_eq!(
            names(certificate.der()),
            [
                "alice",
                "ops.example.net",
                "alice@example.net",
                "spiffe://example.net/alice"
            ]
        );
        assert!(names(b"not a certificate").is_empty());
    }
}
