//! Listing and ending connections: the request's words into the slow path's filter.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use shunt_api::v1;
use shunt_offload::FlowReading;
use shunt_p4::flow::proto::{ICMP, ICMPV6, TCP, UDP};
use shunt_p4::{FlowKey, VpcId};
use shunt_slowpath::manager::MAX_PAGE;
use shunt_slowpath::{FlowCursor, FlowFilter, FlowView, ManagerHandle, Offload, State};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert::{self, protocol, quoted, state_name};
use super::service::Listing;
use crate::config::Config;
use crate::switch::Switches;

/// Messages of a listing that wait for its reader.
const LISTING_QUEUE: usize = 256;

/// Protocols that connections are made of.
const PROTOCOLS: [u8; 4] = [TCP, UDP, ICMP, ICMPV6];

/// The VPC of that name; none for no name.
pub(super) fn vpc_named(config: &Config, name: &str) -> Result<Option<VpcId>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let vpcs = &config.vpcs;
    let found = vpcs.iter().find(|vpc| vpc.vpc.name == name);
    found.map(|vpc| Some(vpc.vpc.id)).ok_or_else(|| {
        let names: Vec<&str> = vpcs.iter().map(|vpc| vpc.vpc.name.as_str()).collect();
        Status::not_found(format!(
            "there is no VPC named {} (known: {})",
            quoted(name),
            names.join(", ")
        ))
    })
}

/// The slow path's filter; each wrong value is named with those there are.
pub(super) fn filter(config: &Config, asked: &v1::FlowFilter) -> Result<FlowFilter, Status> {
    let (mut protocol, state) = (protocol_named(&asked.protocol)?, &asked.state);
    let mut wanted_state = None;
    if !state.is_empty() {
        let (of, found) = state_named(protocol, state)?;
        protocol = protocol.or(of);
        wanted_state = Some(found);
    }
    let port = asked.port.map(|port| {
        u16::try_from(port).map_err(|_| {
            Status::invalid_argument(format!("there is no port {port}: ports are 0 to 65535"))
        })
    });
    Ok(FlowFilter {
        vpc: vpc_named(config, &asked.vpc)?,
        prefix: prefix(&asked.prefix)?,
        port: port.transpose()?,
        protocol,
        state: wanted_state,
        offloaded: asked.offloaded,
        min_age: (asked.min_age_ms > 0).then(|| Duration::from_millis(asked.min_age_ms)),
        max_idle: None,
    })
}

/// Which connections are to be ended. Nobody ends all of them by leaving something out.
pub(super) fn deleted(
    config: &Config,
    request: v1::DeleteFlowsRequest,
) -> Result<FlowFilter, Status> {
    let filter = filter(config, &request.filter.unwrap_or_default())?;
    match (filter == FlowFilter::default(), request.all) {
        (true, false) => Err(Status::invalid_argument(
            "say which connections are to be ended, by at least one of VPC, prefix, port, \
             protocol, state, offloaded and minimum age; or all",
        )),
        (false, true) => Err(Status::invalid_argument(
            "either all connections are to be ended or those of a filter, not both",
        )),
        _ => Ok(filter),
    }
}

fn protocol_named(name: &str) -> Result<Option<u8>, Status> {
    if name.is_empty() {
        return Ok(None);
    }
    let found = PROTOCOLS
        .into_iter()
        .find(|number| protocol(*number) == name);
    found.map(Some).ok_or_else(|| {
        Status::invalid_argument(format!(
            "no connection has the protocol {} (there are: {})",
            quoted(name),
            PROTOCOLS.map(protocol).join(", ")
        ))
    })
}

/// Every pair that a connection can have.
fn states() -> impl Iterator<Item = (u8, State)> {
    PROTOCOLS.into_iter().flat_map(|number| {
        let states = State::ALL.iter().copied();
        states
            .filter(move |state| state.is_tcp() == (number == TCP))
            .map(move |state| (number, state))
    })
}

/// A state by its name with the protocol, or (without protocol then) by its own. It has to be
/// one that connections of the wanted protocol can have.
fn state_named(wanted: Option<u8>, name: &str) -> Result<(Option<u8>, State), Status> {
    let possible = || states().filter(|(number, _)| wanted.is_none_or(|wanted| wanted == *number));
    possible()
        .find_map(|(number, state)| {
            if state_name(number, state) == name {
                return Some((Some(number), state));
            }
            (state.as_str() == name).then_some((None, state))
        })
        .ok_or_else(|| {
            let known: Vec<_> = possible().map(|(n, state)| state_name(n, state)).collect();
            let whose = wanted.map_or_else(String::new, |number| protocol(number) + " ");
            Status::invalid_argument(format!(
                "no {whose}connection has the state {} (there are: {})",
                quoted(name),
                known.join(", ")
            ))
        })
}

/// A prefix; an address is itself.
pub(super) fn prefix(text: &str) -> Result<Option<IpNet>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text.parse::<IpAddr>().map(IpNet::from);
    let parsed = address.or_else(|_| text.parse());
    parsed.map(Some).map_err(|_| {
        Status::invalid_argument(format!(
            "{} is no prefix: write 10.0.0.0/8, 2001:db8::/32 or a single address",
            quoted(text)
        ))
    })
}

/// Streams the connections that the filter wants, at most `limit` (0: all), page by page: the
/// whole table is never held in memory.
pub(super) fn listing(
    config: Arc<Config>,
    slow_path: ManagerHandle,
    switches: Switches,
    filter: FlowFilter,
    limit: u64,
) -> Listing<v1::Flow> {
    let (sender, receiver) = mpsc::channel(LISTING_QUEUE);
    tokio::spawn(async move {
        let mut left = if limit == 0 { u64::MAX } else { limit };
        let mut cursor = Some(FlowCursor::default());
        while let Some(from) = cursor
            && left > 0
        {
            let room = usize::try_from(left).map_or(MAX_PAGE, |left| left.min(MAX_PAGE));
            let page = match slow_path.list_flows(filter.clone(), from, room).await {
                Ok(page) => page,
                Err(error) => {
                    let error = Status::unavailable(error.to_string());
                    // Nobody may be left to read it.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            let hardware = in_hardware(&switches, &page.flows).await;
            for (view, now) in page.flows.iter().zip(hardware) {
                let flow = convert::flow(&config, view, &now);
                if sender.send(Ok(flow)).await.is_err() {
                    return;
                }
            }
            left = left.saturating_sub(page.flows.len() as u64);
            cursor = page.next;
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// What the switches count now of each connection that is in one of them.
async fn in_hardware(switches: &Switches, flows: &[FlowView]) -> Vec<[Option<FlowReading>; 2]> {
    let is_on = |view: &FlowView, place: usize| {
        view.offload == Offload::Installed && view.switch.place() == place
    };
    let asked = switches
        .iter()
        .enumerate()
        .map(|(place, member)| async move {
            let of_switch = flows.iter().filter(|view| is_on(view, place));
            let keys: Vec<FlowKey> = of_switch
                .flat_map(|view| {
                    [view.forward, view.reply].map(|side| FlowKey {
                        vpc: side.vpc,
                        tuple: side.tuple,
                    })
                })
                .collect();
            // An engine that has ended is in the status; its flows are listed all the same.
            let found = match &member.engine {
                Some(engine) if !keys.is_empty() => engine.read(&keys).await.unwrap_or_default(),
                _ => Vec::new(),
            };
            found.into_iter()
        });
    let mut found = futures::future::join_all(asked).await;
    let of = |view: &FlowView| match found.get_mut(view.switch.place()) {
        Some(found) if view.offload == Offload::Installed => {
            [found.next().flatten(), found.next().flatten()]
        }
        _ => [None; 2],
    };
    flows.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text = shunt_testbed::topology::configuration(Path::new("/tmp/s.sock"));
        crate::config::validate(&crate::config::document_of(&text).unwrap()).unwrap()
    }

    fn asked(change: impl FnOnce(&mut v1::FlowFilter)) -> Result<FlowFilter, String> {
        let mut asked = v1::FlowFilter::default();
        change(&mut asked);
        filter(&config(), &asked).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn every_field_narrows() {
        assert_eq!(asked(|_| ()), Ok(FlowFilter::default()));
        let found = asked(|asked| {
            asked.vpc = "red".into();
            asked.prefix = "10.0.0.0/24".into();
            asked.port = Some(80);
            asked.protocol = "tcp".into();
            asked.state = "established".into();
            asked.offloaded = Some(true);
            asked.min_age_ms = 1500;
        });
        let wanted = FlowFilter {
            vpc: config()
                .vpcs
                .iter()
                .find(|vpc| vpc.vpc.name == "red")
                .map(|vpc| vpc.vpc.id),
            prefix: Some("10.0.0.0/24".parse().unwrap()),
            port: Some(80),
            protocol: Some(TCP),
            state: Some(State::Established),
            offloaded: Some(true),
            min_age: Some(Duration::from_millis(1500)),
            max_idle: None,
        };
        assert!(wanted.vpc.is_some());
        assert_eq!(found, Ok(wanted));
    }

    #[test]
    fn a_state_brings_its_protocol() {
        let found = asked(|asked| asked.state = "udp_replied".into()).unwrap();
        assert_eq!(
            (found.protocol, found.state),
            (Some(UDP), Some(State::Replied))
        );
        let found = asked(|asked| asked.state = "replied".into()).unwrap();
        assert_eq!((found.protocol, found.state), (None, Some(State::Replied)));
        for (number, state) in states() {
            let found = asked(|asked| asked.state = state_name(number, state)).unwrap();
            assert_eq!((found.protocol, found.state), (Some(number), Some(state)));
        }
    }

    #[test]
    fn an_address_is_a_prefix() {
        let found = asked(|asked| asked.prefix = "2001:db8::1".into()).unwrap();
        assert_eq!(found.prefix, Some("2001:db8::1/128".parse().unwrap()));
    }

    #[test]
    fn wrong_values_are_named_with_the_known_ones() {
        type Change = fn(&mut v1::FlowFilter);
        let cases: [(Change, &[&str]); 7] = [
            (
                |asked| asked.vpc = "redd".into(),
                &["\"redd\"", "red", "wan"],
            ),
            (|asked| asked.prefix = "10.0.0.0/33".into(), &["10.0.0.0/8"]),
            (|asked| asked.port = Some(65_536), &["65535"]),
            (
                |asked| asked.protocol = "sctp".into(),
                &["tcp, udp, icmp, icmpv6"],
            ),
            (
                |asked| asked.state = "open".into(),
                &["tcp_established", "udp_replied"],
            ),
            (
                |asked| asked.state = "udp_established".into(),
                &["udp_replied"],
            ),
            (
                |asked| {
                    asked.protocol = "udp".into();
                    asked.state = "tcp_established".into();
                },
                &["no udp connection", "udp_new, udp_replied)"],
            ),
        ];
        for (change, words) in cases {
            let said = asked(change).unwrap_err();
            for word in words {
                assert!(said.contains(word), "{word}: {said}");
            }
        }
    }

    #[test]
    fn all_is_deleted_only_when_asked_for() {
        let delete = |filter: Option<v1::FlowFilter>, all| {
            deleted(&config(), v1::DeleteFlowsRequest { filter, all })
        };
        let red = v1::FlowFilter {
            vpc: "red".into(),
            ..Default::default()
        };
        assert_eq!(
            delete(None, false).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
        assert_eq!(
            delete(Some(v1::FlowFilter::default()), false)
                .unwrap_err()
                .code(),
            tonic::Code::InvalidArgument
        );
        assert_eq!(
            delete(Some(red.clone()), true).unwrap_err().code(),
            tonic::Code::InvalidArgument
        );
        assert_eq!(delete(None, true).unwrap(), FlowFilter::default());
        assert!(delete(Some(red), false).unwrap().vpc.is_some());
    }
}
