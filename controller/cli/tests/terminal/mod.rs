//! `shunt top` on a terminal: what is on the screen, and that the terminal is given back.

mod session;

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use shunt_api::v1::shunt_server::ShuntServer;
use tokio_stream::wrappers::UnixListenerStream;

use super::Stable;
use session::Session;

/// The stable daemon, for as long as this lives.
struct Daemon {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Daemon {
    fn start(socket: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(ShuntServer::new(Stable))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self {
            runtime: Some(runtime),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Lab {
    directory: tempfile::TempDir,
    daemon: Option<Daemon>,
}

impl Lab {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(&directory.path().join("shuntd.sock"));
        Self {
            directory,
            daemon: Some(daemon),
        }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("shuntd.sock")
    }

    /// Its samples come at once; then none is due for an hour.
    fn top(&self, size: (u16, u16)) -> Session {
        Session::start(&self.socket(), &["top", "--interval", "1h"], size)
    }
}

const PANES: [(&str, &str); 5] = [
    ("1", "overview"),
    ("2", "vpcs"),
    ("3", "flows"),
    ("4", "drops"),
    ("5", "latency"),
];

fn screen_file(pane: &str, (columns, rows): (u16, u16)) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/top")
        .join(format!("{pane}-{columns}x{rows}.screen"))
}

/// The screen is what the file says, or comes to be.
fn expect_screen(session: &Session, pane: &str) {
    let path = screen_file(pane, session.size());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, session.settled()).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    session.wait(&format!("the screen of {}", path.display()), |screen| {
        session::text(screen) == expected
    });
}

#[test]
fn every_pane_shows_what_its_file_says() {
    let lab = Lab::start();
    for size in [(80, 24), (120, 40)] {
        let session = lab.top(size);
        session.wait_text("live");
        for (key, pane) in PANES {
            session.type_keys(key);
            expect_screen(&session, pane);
        }
        session.type_keys("q");
        session.expect_given_back(Some(0));
    }
}

#[test]
fn panes_are_sorted_and_paused_by_keys() {
    let lab = Lab::start();
    let session = lab.top((80, 24));
    session.wait_text("live");
    session.type_keys("\t");
    session.wait_text("by bits in");
    let order = |first: &'static str, then: &'static str| {
        session.wait(&format!("{first} before {then}"), move |screen| {
            let text = session::text(screen);
            matches!((text.find(first), text.find(then)), (Some(a), Some(b)) if a < b)
        });
    };
    order("red ", "green ");
    session.type_keys("sssss");
    session.wait_text("by name");
    order("green ", "red ");
    session.type_keys("r");
    session.wait_text("by name, reversed");
    order("red ", "green ");
    session.type_keys(" ");
    session.wait_text("PAUSED");
    session.type_keys(" ");
    session.wait("no pause", |screen| {
        !session::text(screen).contains("PAUSED")
    });
    // Totals from now on: nothing has been dropped since.
    session.type_keys("4z");
    session.wait_text("SINCE Z");
    session.wait("no drops", |screen| {
        let text = session::text(screen);
        let line = text.lines().find(|line| line.contains("not_for_us"));
        line.is_some_and(|line| line.trim_end().ends_with(" 0"))
    });
    // The other way round through the panes.
    session.type_keys("\x1b[Z\x1b[Z");
    session.wait_text("BIT/S OUT");
    session.type_keys("\x03");
    session.expect_given_back(Some(0));
}

#[test]
fn another_size_is_another_screen() {
    let lab = Lab::start();
    let session = lab.top((80, 24));
    session.wait_text("live");
    session.resize((120, 40));
    expect_screen(&session, "overview");
    session.resize((40, 10));
    session.wait_text("too small: 40x10");
    // Keys do what they do all the same.
    session.type_keys("5");
    session.resize((80, 24));
    expect_screen(&session, "latency");
    session.resize((1, 1));
    session.resize((80, 24));
    expect_screen(&session, "latency");
    session.type_keys("q");
    session.expect_given_back(Some(0));
}

#[test]
fn the_terminal_is_given_back_after_a_signal() {
    let lab = Lab::start();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let session = lab.top((80, 24));
        session.wait_text("live");
        session.signal(signal);
        session.expect_given_back(Some(0));
    }
}

#[test]
fn a_daemon_that_goes_is_waited_for() {
    let mut lab = Lab::start();
    let session = lab.top((80, 24));
    session.wait_text("live");
    lab.daemon = None;
    session.wait_text("disconnected, retrying");
    // What was known stays there.
    session.wait_text("hit ratio");
    session.wait_text("nobody listens");
    std::fs::remove_file(lab.socket()).unwrap();
    session.wait_text("no such socket");
    lab.daemon = Some(Daemon::start(&lab.socket()));
    session.wait_text("live");
    lab.daemon = None;
    session.wait_text("disconnected, retrying");
    session.type_keys("q");
    session.expect_given_back(Some(0));
}

#[test]
fn without_a_daemon_the_terminal_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let session = Session::start(&directory.path().join("none.sock"), &["top"], (80, 24));
    session.wait_text("no daemon at");
    session.expect_given_back(Some(3));
}

#[test]
fn a_watched_command_is_drawn_anew_until_a_signal() {
    let lab = Lab::start();
    for signal in [Signal::INT, Signal::TERM] {
        let session = Session::start(&lab.socket(), &["vpc", "--watch", "0.1"], (80, 24));
        session.wait_text("every 100ms, 2");
        session.wait_text("red   1");
        // Cleared each time: there is one table.
        session.wait_anew();
        session.wait("one table", |screen| {
            session::text(screen).matches("NAME").count() == 1
        });
        session.signal(signal);
        session.expect_given_back(Some(0));
    }
}

#[test]
fn a_watched_command_outlives_the_daemon() {
    let mut lab = Lab::start();
    let mut watch = std::process::Command::new(env!("CARGO_BIN_EXE_shunt"))
        .arg("--socket")
        .arg(lab.socket())
        .args(["vpc", "red", "-o", "jsonl", "--watch", "0.1"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut lines =
        lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let first = lines.next().unwrap();
    assert!(first["time_ms"].as_u64().unwrap() > 0);
    assert_eq!(first["answer"][0]["name"], "red");
    lab.daemon = None;
    let gone = lines.find(|line| line["answer"].is_null()).unwrap();
    assert!(!gone["error"].as_str().unwrap().is_empty());
    std::fs::remove_file(lab.socket()).unwrap();
    lab.daemon = Some(Daemon::start(&lab.socket()));
    let back = lines.find(|line| !line["answer"].is_null()).unwrap();
    assert_eq!(back["answer"], first["answer"]);
    let id = rustix::process::Pid::from_raw(watch.id() as i32).unwrap();
    rustix::process::kill_process(id, Signal::INT).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}
