//! TLS and mutual TLS, with certificates made for the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod scripted;

use p4runtime::client::{Client, ClientConfig, ClientError, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use scripted::Switch;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key, in PEM.
fn signed(authority: &Authority, name: &str) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem().into(), key.serialize_pem().into())
}

/// A server with a certificate for `switch.test` that asks for the client's.
async fn switch(authority: &Authority) -> Switch {
    let (certificate, key) = signed(authority, "switch.test");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(authority.pem()));
    Switch::start_with(Server::builder().tls_config(tls).unwrap()).await
}

async fn connect(switch: &Switch, tls: Option<Tls>) -> Result<Client, ClientError> {
    let mut config = ClientConfig::new(&switch.address, 1, 1);
    config.tls = tls;
    let client = Client::connect(config).await?;
    client.become_primary().await?;
    Ok(client)
}

fn tls(authority: &Authority, identity_pem: Option<(Vec<u8>, Vec<u8>)>) -> Tls {
    Tls {
        ca_pem: authority.pem().into(),
        identity_pem,
        domain: Some("switch.test".to_owned()),
    }
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let ours = authority();
    let switch = switch(&ours).await;
    let identity = signed(&ours, "controller.test");
    let good = tls(&ours, Some(identity.clone()));
    let client = connect(&switch, Some(good.clone())).await.unwrap();
    client.write([scripted::update(1)]).await.unwrap();
    assert!(
        !format!("{client:?}").contains("PRIVATE"),
        "keys stay out of logs"
    );

    let other = authority();
    let wrong_domain = Tls {
        domain: Some("elsewhere.test".to_owned()),
        ..good.clone()
    };
    let refused = [
        ("no TLS", None),
        ("no certificate of the client", Some(tls(&ours, None))),
        (
            "unknown client",
            Some(tls(&ours, Some(signed(&other, "controller.test")))),
        ),
        ("unknown server", Some(tls(&other, Some(identity)))),
        ("another name", Some(wrong_domain)),
    ];
    for (case, tls) in refused {
        let error = connect(&switch, tls).await.expect_err(case);
        assert!(
            matches!(error, ClientError::Unreachable { .. }),
            "{case}: {error:?}"
        );
    }
}

#[test]
fn certificates_that_are_none_are_a_fault_of_the_configuration() {
    let mut config = ClientConfig::new("127.0.0.1:1", 1, 1);
    let ours = authority();
    config.tls = Some(tls(
        &ours,
        Some((b"nonsense".to_vec(), b"nonsense".to_vec())),
    ));
    let error = config.endpoint().unwrap_err();
    assert!(error.to_string().contains("TLS"), "{error}");
}
