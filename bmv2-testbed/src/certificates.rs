//! Certificates for tests of TLS, made on the spot.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use crate::error::{Error, Result};

/// Signs certificates; its own and theirs are files in a folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its certificate (PEM).
    pub certificate: PathBuf,
}

/// A certificate and its key (PEM).
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

fn failed(error: rcgen::Error) -> Error {
    Error::Other(format!("a certificate cannot be made: {error}"))
}

fn write(path: PathBuf, text: String) -> Result<PathBuf> {
    std::fs::write(&path, text).map_err(Error::file(&path))?;
    Ok(path)
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().map_err(failed)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        let path = folder.join(format!("{name}.pem"));
        let certificate = write(path, issuer.pem())?;
        Ok(Self {
            issuer,
            folder: folder.to_owned(),
            certificate,
        })
    }

    /// Signs a certificate for a common name, and for host names or addresses.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn sign(&self, name: &str, hosts: &[&str]) -> Result<Signed> {
        let hosts = hosts.iter().map(|host| (*host).to_owned());
        let mut params = CertificateParams::new(hosts.collect::<Vec<_>>()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().map_err(failed)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Signed {
            certificate: write(self.folder.join(format!("{name}.pem")), signed.pem())?,
            key: write(self.folder.join(format!("{name}.key")), key.serialize_pem())?,
        })
    }
}
