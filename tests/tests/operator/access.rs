//! The API over TCP with certificates, and who may do what.

use std::path::Path;
use std::process::Output;

use shunt_testbed::certificates::{Authority, Signed};
use shunt_testbed::{Error, Result, binaries, sandbox};

use crate::lab::Lab;

const ADDRESS: &str = "127.0.0.1:9463";

struct Client<'a> {
    lab: &'a Lab,
    ca: &'a Path,
    own: &'a Signed,
}

impl Client<'_> {
    /// `shunt` in the gateway, over TCP.
    fn run(&self, line: &str) -> Result<Output> {
        let program = binaries::find("shunt")?;
        let mut command = self.lab.topology.gw.command(&program.to_string_lossy());
        command.args(["--output", "json", "--api", ADDRESS]);
        command.arg("--api-ca").arg(self.ca);
        command.arg("--api-cert").arg(&self.own.certificate);
        command.arg("--api-key").arg(&self.own.key);
        let output = command.args(line.split_whitespace()).output();
        output.map_err(Error::file("shunt"))
    }

    fn succeeds(&self, line: &str) -> Result<serde_json::Value> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::Other(format!("{line}: {error}")))
    }

    fn fails(&self, line: &str, code: i32) -> Result<String> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        Ok(said)
    }
}

fn assert_says(said: &str, wanted: &str) {
    assert!(said.contains(wanted), "{said:?} lacks {wanted:?}");
}

#[test]
fn certificates_decide_who_may_change_things() {
    let name = "access::certificates_decide_who_may_change_things";
    sandbox::test(name, || {
        let directory = tempfile::tempdir().map_err(Error::file("/tmp"))?;
        let folder = directory.path();
        let authority = Authority::new(folder, "authority")?;
        let other = Authority::new(folder, "other")?;
        let gateway = authority.sign("gateway", &["127.0.0.1"])?;
        let alice = authority.sign("alice", &[])?;
        let bob = authority.sign("bob", &["bob.example.net"])?;
        let stranger = other.sign("stranger", &[])?;
        let reading = folder.join("read.sock");
        let change = |text: String| {
            let sockets = format!("[daemon]\nread_only_socket = \"{}\"", reading.display());
            let text = text.replacen("[daemon]", &sockets, 1);
            format!(
                "{text}\n[daemon.api_tls]\naddress = \"{ADDRESS}\"\ncertificate = \"{}\"\n\
                 key = \"{}\"\nclient_ca = \"{}\"\nadmins = [\"alice\"]\n",
                gateway.certificate.display(),
                gateway.key.display(),
                authority.certificate.display(),
            )
        };
        let lab = Lab::start(folder, change, Vec::new())?;
        let client = |ca, own| Client { lab: &lab, ca, own };
        let ca: &Path = &authority.certificate;
        let (alice, bob) = (client(ca, &alice), client(ca, &bob));

        // Everybody with a certificate looks; only an admin changes things, under her own name.
        for anybody in [&alice, &bob] {
            assert_eq!(anybody.succeeds("status")?["converged"], true);
            assert!(anybody.succeeds("flows")?.is_array());
        }
        let set = "config set timeouts.icmp 31s --comment by-tls";
        let said = bob.fails(set, 1)?;
        assert_says(&said, "bob may look, and ChangeConfig is for admins");
        let said = bob.fails("flows delete --all", 1)?;
        assert_says(&said, "DeleteFlows is for admins");
        alice.succeeds(set)?;
        let log = bob.succeeds("config log")?;
        assert_eq!(log[0]["author"], "alice", "{log}");
        assert_eq!(log[0]["comment"], "by-tls", "{log}");

        // Nobody without a certificate of the right authority gets in, nor talks to a daemon that
        // has none.
        // TLS may tell it, or the closed connection.
        let said = client(ca, &stranger).fails("status", 3)?;
        assert!(
            said.contains("does not take your certificate") || said.contains("went away"),
            "{said}"
        );
        let said = client(&other.certificate, alice.own).fails("status", 3)?;
        assert_says(&said, "not signed by --api-ca");
        let said = alice.fails("--api-name elsewhere.example.net status", 3)?;
        assert_says(&said, "give it with --api-name");

        // The socket for everybody is there to look.
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(&reading).map_err(Error::file(&reading))?;
        assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
        let local = |words: &[&str]| {
            let mut command = std::process::Command::new(binaries::find("shunt")?);
            command.arg("--socket").arg(&reading).args(words);
            command.output().map_err(Error::file("shunt"))
        };
        assert!(local(&["status"])?.status.success());
        let refused = local(&["config", "rewind", "1", "--comment", "x"])?;
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_says(
            &said,
            "ChangeConfig is for admins, and the way that you came",
        );
        Ok(())
    });
}
