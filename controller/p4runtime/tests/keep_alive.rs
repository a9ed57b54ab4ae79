//! A switch that falls silent is noticed, and keep-alive is what the configuration says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod scripted;

use std::time::Duration;

use p4runtime::client::{Arbitration, Client, ClientConfig};
use scripted::{DEADLINE, Switch};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Goes between a client and a switch, until it is told to stay silent.
async fn between(switch: &Switch) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (silent, is_silent) = watch::channel(false);
    let to = switch.address.clone();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let mut far = TcpStream::connect(&to).await.unwrap();
            let mut is_silent = is_silent.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    // Neither end is closed: this is what an unplugged cable looks like.
                    () = async { drop(is_silent.wait_for(|silent| *silent).await) } => {
                        std::future::pending().await
                    }
                }
            });
        }
    });
    (address, silent)
}

#[tokio::test]
async fn a_silent_connection_is_lost_where_http2_pings_are_on() {
    let switch = Switch::start().await;
    let (address, silent) = between(&switch).await;
    let mut config = ClientConfig::new(&address, 1, 1);
    config.http2_keep_alive = Some(Duration::from_millis(50));
    let client = Client::connect(config).await.unwrap();
    client.become_primary().await.unwrap();
    silent.send_replace(true);
    let mut state = client.arbitration();
    let lost = state.wait_for(|state| matches!(state, Arbitration::Lost { .. }));
    let lost = timeout(DEADLINE, lost).await.expect("in time").unwrap();
    let Arbitration::Lost { reason } = lost.clone() else {
        unreachable!()
    };
    assert!(reason.contains(&address), "{reason}");
}

/// The timer of the connection to this address, as the kernel lists it: `02` is keep-alive.
fn timer(address: &str) -> Option<String> {
    let port = address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let remote = format!("0100007F:{port:04X}");
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let mut lines = sockets.lines().map(|line| line.split_whitespace());
    lines.find_map(|mut fields| {
        let is_it = fields.nth(2) == Some(&remote);
        let timer = fields.nth(2)?.split(':').next()?;
        is_it.then(|| timer.to_owned())
    })
}

#[tokio::test]
async fn tcp_keep_alive_is_set_as_configured() {
    for (keep_alive, wanted) in [(Some(Duration::from_secs(60)), "02"), (None, "00")] {
        let switch = Switch::start().await;
        let mut config = ClientConfig::new(&switch.address, 1, 1);
        config.tcp_keep_alive = keep_alive;
        let client = Client::connect(config).await.unwrap();
        client.become_primary().await.unwrap();
        // Until nothing is on the way any more, the timer is that of a retransmission.
        let settled = async {
            while timer(&switch.address).as_deref() != Some(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = timeout(DEADLINE, settled).await;
        assert!(settled.is_ok(), "{wanted}: {:?}", timer(&switch.address));
    }
}
