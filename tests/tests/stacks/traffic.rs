//! Transfers whose content is compared, and queries that are asked again when they are lost.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use shunt_testbed::netns::Netns;
use shunt_testbed::service::wait_for;
use shunt_testbed::traffic::content_byte;
use shunt_testbed::{Error, Result};

use crate::lab::{DEADLINE, HTTP_PORT, Lab};

/// Bytes of a download.
const DOWNLOAD: usize = 2 << 20;
/// Bytes of an upload.
const UPLOAD: u64 = 1 << 20;
const UPLOAD_PORT: u16 = 9000;
const QUERIES: u16 = 100;
/// Bytes of a DNS header (RFC 1035 section 4.1.1).
const DNS_HEADER: usize = 12;

/// HTTP by curl, every byte compared.
pub fn download(lab: &Lab) -> Result<()> {
    let file = lab.topology.directory.join("download");
    let mut command = lab.topology.red.command("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "80"]);
    let output = command
        .arg("--output")
        .arg(&file)
        .arg(format!(
            "http://{}/rough/{DOWNLOAD}",
            lab.net.at(lab.net.server, HTTP_PORT)
        ))
        .output()
        .map_err(Error::file("curl"))?;
    assert!(output.status.success(), "{output:?}");
    let bytes = std::fs::read(&file).map_err(Error::file(&file))?;
    assert_eq!(bytes.len(), DOWNLOAD);
    let wrong = (0..)
        .zip(&bytes)
        .find(|(at, byte)| content_byte("rough", *at) != **byte);
    assert_eq!(wrong, None);
    Ok(())
}

fn digest(bytes: &[u8], hasher: &mut DefaultHasher) {
    hasher.write(bytes);
}

/// A TCP transfer that is half-closed when all is sent; the other side answers with its digest of
/// what came.
pub fn upload(lab: &Lab, to: &str) -> Result<()> {
    let host: &Netns = if to == lab.net.far {
        &lab.far
    } else {
        &lab.topology.wan
    };
    let address = lab.net.at(to, UPLOAD_PORT);
    let failed = || Error::file("a TCP socket");
    let listener = host.inside(|| TcpListener::bind(address).map_err(failed()))?;
    let receiver = std::thread::spawn(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let (mut hasher, mut count) = (DefaultHasher::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            digest(&buffer[..n], &mut hasher);
            count += n as u64;
        }
        stream.write_all(&hasher.finish().to_be_bytes())?;
        Ok(count)
    });
    let stream = lab
        .topology
        .red
        .inside(|| TcpStream::connect_timeout(&address, DEADLINE).map_err(failed()));
    let mut stream = stream?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(failed())?;
    stream.set_write_timeout(Some(DEADLINE)).map_err(failed())?;
    let mut hasher = DefaultHasher::new();
    for from in (0..UPLOAD).step_by(4096) {
        let chunk: Vec<u8> = (from..from + 4096).map(|at| content_byte(to, at)).collect();
        digest(&chunk, &mut hasher);
        stream.write_all(&chunk).map_err(failed())?;
    }
    stream.shutdown(Shutdown::Write).map_err(failed())?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).map_err(failed())?;
    assert_eq!(u64::from_be_bytes(answer), hasher.finish());
    let count = receiver.join().unwrap().map_err(failed())?;
    assert_eq!(count, UPLOAD);
    Ok(())
}

/// Queries as a resolver sends them, each from a port of its own, again when no answer comes.
pub fn queries(lab: &Lab) -> Result<()> {
    let failed = || Error::file("a UDP socket");
    let server = lab.net.at(lab.net.server, 53);
    let socket = lab
        .topology
        .wan
        .inside(|| UdpSocket::bind(server).map_err(failed()))?;
    let stop = socket.try_clone().map_err(failed())?;
    stop.set_read_timeout(Some(Duration::from_millis(200)))
        .map_err(failed())?;
    let (done, end) = std::sync::mpsc::channel::<()>();
    let answering = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while end.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let Ok((n, peer)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            // A response to the same question, with the question's bytes reversed as its data.
            let mut answer = buffer[..n].to_vec();
            answer[2] |= 0x80;
            answer.extend(buffer[DNS_HEADER..n].iter().rev());
            let _ = socket.send_to(&answer, peer);
        }
    });
    let any = if lab.net.ipv6 { "[::]:0" } else { "0.0.0.0:0" };
    for id in 0..QUERIES {
        let socket = lab
            .topology
            .red
            .inside(|| UdpSocket::bind(any).map_err(failed()))?;
        socket.connect(server).map_err(failed())?;
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .map_err(failed())?;
        let name = format!("host-{id}.example");
        let mut query = vec![0; DNS_HEADER];
        query[..2].copy_from_slice(&id.to_be_bytes());
        query[2] = 0x01; // recursion desired
        query[5] = 1; // one question
        query.push(name.len() as u8);
        query.extend(name.as_bytes());
        query.extend([0, 0, 1, 0, 1]); // the root, type A, class IN
        let mut wanted = query.clone();
        wanted[2] |= 0x80;
        wanted.extend(query[DNS_HEADER..].iter().rev());
        let mut buffer = [0; 512];
        wait_for(&format!("the answer to query {id}"), DEADLINE, || {
            if socket.send(&query).is_err() {
                return false;
            }
            match socket.recv(&mut buffer) {
                Ok(n) => {
                    assert_eq!(&buffer[..n], wanted.as_slice(), "another's answer");
                    true
                }
                Err(_) => false,
            }
        })?;
    }
    drop(done);
    answering.join().unwrap();
    Ok(())
}
