//! What a switch refuses misleads no packet: cases that did.

use shunt_p4::MacAddr;
use shunt_p4::tables::{
    ClassifyPort, ClassifyPortAction, ClassifyPortKey, EgressInterface, EgressInterfaceAction,
    EgressInterfaceKey, Neighbor4, Neighbor4Action, Neighbor4Key,
};

use super::ways::{End, Ways};
use super::*;

const PORT: u16 = 7;

/// The interface of every next hop, and two stations on its link.
fn link() -> Vec<AnyEntry> {
    let interface = InterfaceId::MIN;
    let mut entries = vec![AnyEntry::from(EgressInterface {
        key: EgressInterfaceKey { interface },
        action: EgressInterfaceAction::Untagged {
            port: SwitchPort::MIN,
            mac: MacAddr([2; 6]),
            mtu: 1500,
        },
    })];
    entries.extend([1, 2, 3].map(|n| {
        AnyEntry::from(Neighbor4 {
            key: Neighbor4Key {
                interface,
                address: [10, 0, 0, n].into(),
            },
            action: Neighbor4Action::SetNeighbor {
                mac: MacAddr([2, n, 0, 0, 0, 0]),
            },
        })
    }));
    entries
}

fn port() -> AnyEntry {
    AnyEntry::from(ClassifyPort {
        key: ClassifyPortKey {
            port: SwitchPort::new(PORT).unwrap(),
            outer_vid: None,
            inner_vid: None,
        },
        action: ClassifyPortAction::SetInterface {
            interface: InterfaceId::new(PORT).unwrap(),
            vpc: VpcId::MIN,
            mac: MacAddr([2; 6]),
            stateless: true,
        },
    })
}

struct Lab {
    model: Model,
    ledger: Ledger,
    now: Instant,
}

impl Lab {
    /// A switch that holds some entries where others are wanted.
    fn new(held: &[AnyEntry], wanted: &[AnyEntry]) -> Self {
        let mut model = Model::default();
        for entry in link().iter().chain(held) {
            let key = key_of(&entry.key_entry());
            model.entries.insert(key, entry.to_entry());
        }
        let mut ledger = Ledger::default();
        let wanted = link().into_iter().chain(wanted.iter().cloned());
        ledger.want(wanted.map(Change::Set));
        ledger.read_back(reading(model.read()));
        Self {
            model,
            ledger,
            now: Instant::now(),
        }
    }

    /// Writes all that is due, and says after each update where the packets are that come in
    /// by [`PORT`] to an address.
    fn flush(&mut self, to: [u8; 4], refuse: impl Fn(&str) -> bool) -> Vec<End> {
        let mut seen = vec![self.end(to)];
        while let Some(updates) = self.ledger.next_phase(self.now) {
            let mut errors = Vec::new();
            for update in updates {
                let text = shown(&update);
                errors.extend(self.model.write(&[update], &mut || refuse(&text)));
                seen.push(self.end(to));
            }
            self.ledger.answered(Some(&errors), self.now);
        }
        seen.dedup();
        seen
    }

    fn end(&self, to: [u8; 4]) -> End {
        let entries = self.model.entries.values();
        let ways = Ways::of(entries.map(|entry| AnyEntry::from_entry(entry).unwrap()));
        ways.ends(PORT, to.into()).into_iter().next().unwrap()
    }

    /// Once nothing is refused any more, everything is as wanted.
    fn recover(&mut self, to: [u8; 4]) -> Vec<End> {
        self.now += RETRY_LONGEST;
        let seen = self.flush(to, |_| false);
        assert_equal(&self.ledger, &self.model);
        seen
    }
}

fn station(n: u8) -> End {
    End::Out {
        port: SwitchPort::MIN.get(),
        station: [n, 0, 0],
    }
}

/// Regression: the port's entry was made while the switch refused to change the route, and new
/// traffic followed the old one.
#[test]
fn a_port_waits_for_a_route_that_the_switch_does_not_change() {
    let hops = [via(1, 1), via(2, 2)];
    let held = [&hops[..], &[route("10.0.0.0/8", 1)]].concat();
    let wanted = [&hops[..], &[route("10.0.0.0/8", 2), port()]].concat();
    let to = [10, 9, 9, 9];
    // It lets the route be parked.
    let mut lab = Lab::new(&held, &wanted);
    let seen = lab.flush(to, |update| update.contains("to_nexthop"));
    assert_eq!(seen, [End::NoInterface, End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(2)]);
    // It does not: the port leads to the slow path.
    let mut lab = Lab::new(&held, &wanted);
    let seen = lab.flush(to, |update| update.contains("route4"));
    assert_eq!(seen, [End::NoInterface, End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(2)]);
}

/// Regression: a next hop got another meaning while the switch refused a longer prefix within
/// a route to it, and the longer one's packets went where nobody wanted them.
#[test]
fn a_next_hop_stays_what_it_is_while_it_takes_the_packets_of_a_missing_prefix() {
    let held = [via(1, 1), route("10.0.0.0/8", 1), port()];
    let wanted = [
        via(1, 2),
        via(3, 3),
        route("10.0.0.0/8", 1),
        route("10.1.0.0/16", 3),
        port(),
    ];
    let to = [10, 1, 9, 9];
    let mut lab = Lab::new(&held, &wanted);
    assert_eq!(lab.flush(to, |_| false), [station(1), station(3)]);
    let mut lab = Lab::new(&held, &wanted);
    let seen = lab.flush(to, |update| update.contains("10.1.0.0/16"));
    assert_eq!(seen, [station(1), End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(3)]);
}

/// Regression: what the switch refused to change or to remove stayed as it was, and packets
/// went on by ways that nobody wanted any more.
#[test]
fn what_the_switch_refuses_sends_packets_to_the_slow_path() {
    let to = [10, 1, 9, 9];
    let hops = [via(1, 1), via(2, 2)];
    let (shorter, longer) = (route("10.0.0.0/8", 1), route("10.1.0.0/16", 2));
    // A route that is not removed.
    let held = [&hops[..], &[shorter.clone(), longer.clone(), port()]].concat();
    let wanted = [&hops[..], &[shorter.clone(), port()]].concat();
    let mut lab = Lab::new(&held, &wanted);
    let seen = lab.flush(to, |update| update.starts_with("Delete"));
    assert_eq!(seen, [station(2), End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(1)]);
    // One that does not fit.
    let mut lab = Lab::new(&wanted, &held);
    let seen = lab.flush(to, |update| update.starts_with("Insert"));
    assert_eq!(seen, [station(1), End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(2)]);
    // A next hop that stays as it is, whatever is tried.
    let held = [via(1, 1), shorter.clone(), port()];
    let wanted = [via(1, 2), shorter, port()];
    let mut lab = Lab::new(&held, &wanted);
    let seen = lab.flush(to, |update| update.contains(" nexthop "));
    assert_eq!(seen, [station(1), End::SlowPath]);
    assert_eq!(lab.recover(to), [End::SlowPath, station(2)]);
}
