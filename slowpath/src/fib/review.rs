//! Which changes of the tables may contradict connections that were made before them.
//!
//! A connection is made by rules and by the VPCs that routes lead to. So the policy's rules and
//! the VPCs concern all of them; a route only when what it covers leaves through another VPC than
//! before. A route that goes and comes again the same contradicts nothing, however often.

use std::collections::{HashMap, VecDeque};

use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;
use shunt_p4::VpcId;

/// Changes that are remembered; a worker that has not seen the oldest looks at everything.
pub const MAX_REMEMBERED: usize = 64;

/// Prefixes without a route whose last egress VPC is remembered. Once there were more, every new
/// route counts as one that leads elsewhere.
pub const MAX_WITHDRAWN: usize = 65_536;

/// Connections that a change may contradict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those with packets that are routed in the VPC to a destination in the prefix.
    Routed(VpcId, IpNet),
}

impl Scope {
    /// Whether packets to that destination are meant.
    pub fn has(&self, vpc: VpcId, dst: std::net::IpAddr) -> bool {
        match self {
            Scope::All => true,
            Scope::Routed(of, prefix) => *of == vpc && prefix.contains(&dst),
        }
    }
}

/// The VPC that packets leave through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// They do not.
    No,
    /// All through one.
    By(VpcId),
    /// Through one of several.
    Several,
}

/// What changed lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Reviews {
    /// Of the changes that are not published yet.
    noted: Vec<Scope>,
    /// By generation, the oldest first.
    published: VecDeque<(u64, Scope)>,
    /// The last generation of which something was forgotten.
    forgotten: u64,
    /// How the packets left whose routes have gone.
    withdrawn: HashMap<VpcId, JointPrefixMap<IpNet, Leaves>, ahash::RandomState>,
    withdrawn_count: usize,
    /// More were withdrawn than are remembered.
    withdrawn_more: bool,
}

impl Reviews {
    /// A change that concerns everything.
    pub(super) fn all(&mut self) {
        self.note(Scope::All);
    }

    fn note(&mut self, scope: Scope) {
        if self.noted.contains(&Scope::All) {
            return;
        }
        if scope == Scope::All || self.noted.len() >= MAX_REMEMBERED {
            self.noted.clear();
            self.noted.push(Scope::All);
        } else {
            self.noted.push(scope);
        }
    }

    /// What a prefix covers left one way before, and another now.
    pub(super) fn route(&mut self, vpc: VpcId, prefix: IpNet, before: Leaves, now: Leaves) {
        let moved = match (before, now) {
            // Its connections stay: a route that comes back finds them.
            (_, Leaves::No) => {
                self.withdraw(vpc, prefix, before);
                false
            }
            (Leaves::No, _) => self.was_otherwise(vpc, &prefix, now),
            // Of several, which one is not known.
            _ => before != now || now == Leaves::Several,
        };
        if moved {
            self.note(Scope::Routed(vpc, prefix));
        }
    }

    fn withdraw(&mut self, vpc: VpcId, prefix: IpNet, before: Leaves) {
        if before == Leaves::No {
            return;
        }
        if self.withdrawn_count >= MAX_WITHDRAWN {
            self.withdrawn_more = true;
            return;
        }
        let of = self.withdrawn.entry(vpc).or_default();
        if of.insert(prefix, before).is_none() {
            self.withdrawn_count += 1;
        }
    }

    /// A prefix has a route again: whether packets left otherwise when they last did.
    fn was_otherwise(&mut self, vpc: VpcId, prefix: &IpNet, now: Leaves) -> bool {
        let Some(of) = self.withdrawn.get_mut(&vpc) else {
            return self.withdrawn_more;
        };
        let within: Vec<Leaves> = of.children(prefix).map(|(_, leaves)| *leaves).collect();
        let covering = of.get_lpm(prefix).map(|(_, leaves)| *leaves);
        let differs = |before: &Leaves| *before != now || now == Leaves::Several;
        let moved = within.iter().chain(&covering).any(differs);
        of.remove_children(prefix);
        self.withdrawn_count -= within.len();
        moved || self.withdrawn_more
    }

    /// What was noted belongs to that generation.
    pub(super) fn publish(&mut self, generation: u64) {
        for scope in self.noted.drain(..) {
            if self.published.len() >= MAX_REMEMBERED
                && let Some((of, _)) = self.published.pop_front()
            {
                self.forgotten = of;
            }
            self.published.push_back((generation, scope));
        }
    }

    /// What changed after a generation.
    pub(super) fn since(&self, generation: u64) -> Vec<Scope> {
        if generation < self.forgotten {
            return vec![Scope::All];
        }
        let after = self.published.iter().filter(|(of, _)| *of > generation);
        let scopes: Vec<Scope> = after.map(|(_, scope)| scope.clone()).collect();
        if scopes.contains(&Scope::All) {
            return vec![Scope::All];
        }
        scopes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vpc(n: u16) -> VpcId {
        VpcId::new(n).unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    /// The scopes of one published change.
    fn seen(reviews: &mut Reviews, generation: u64) -> Vec<Scope> {
        reviews.publish(generation);
        reviews.since(generation - 1)
    }

    #[test]
    fn a_route_that_flaps_concerns_nobody() {
        let red = vpc(1);
        for egress in [red, vpc(9)] {
            let mut reviews = Reviews::default();
            let (by, prefix) = (Leaves::By(egress), net("10.0.0.0/8"));
            for generation in 1..100 {
                reviews.route(red, prefix, Leaves::No, by);
                reviews.route(red, prefix, by, Leaves::No);
                assert_eq!(seen(&mut reviews, generation), []);
            }
        }
    }

    /// While it is away, a shorter one leads what it covered elsewhere.
    #[test]
    fn a_shorter_route_takes_what_a_withdrawn_one_had() {
        let mut reviews = Reviews::default();
        let (red, wan) = (vpc(1), vpc(9));
        reviews.route(red, net("10.0.0.0/8"), Leaves::By(red), Leaves::No);
        let default = net("0.0.0.0/0");
        reviews.route(red, default, Leaves::No, Leaves::By(wan));
        assert_eq!(seen(&mut reviews, 1), [Scope::Routed(red, default)]);
    }

    #[test]
    fn a_route_that_moves_to_another_vpc_concerns_what_it_covers() {
        let mut reviews = Reviews::default();
        let (red, wan, blue) = (vpc(1), vpc(9), vpc(2));
        let prefix = net("192.0.2.0/24");
        reviews.route(red, prefix, Leaves::By(wan), Leaves::By(blue));
        let expected = vec![Scope::Routed(red, prefix)];
        assert_eq!(seen(&mut reviews, 5), expected);
        assert_eq!(reviews.since(5), []);
        assert!(expected[0].has(red, "192.0.2.7".parse().unwrap()));
        assert!(!expected[0].has(wan, "192.0.2.7".parse().unwrap()));
        assert!(!expected[0].has(red, "192.0.3.7".parse().unwrap()));
    }

    /// Withdrawn from one VPC, then announced, in part, through another.
    #[test]
    fn a_withdrawn_route_is_remembered_until_another_takes_its_place() {
        let mut reviews = Reviews::default();
        let (red, wan) = (vpc(1), vpc(9));
        reviews.route(red, net("0.0.0.0/0"), Leaves::By(wan), Leaves::No);
        assert_eq!(seen(&mut reviews, 1), []);
        let (one, two) = (net("10.1.0.0/16"), net("10.2.0.0/16"));
        reviews.route(red, one, Leaves::No, Leaves::By(red));
        assert_eq!(seen(&mut reviews, 2), [Scope::Routed(red, one)]);
        reviews.route(red, two, Leaves::No, Leaves::By(red));
        assert_eq!(seen(&mut reviews, 3), [Scope::Routed(red, two)]);
        reviews.route(red, net("0.0.0.0/0"), Leaves::No, Leaves::By(wan));
        assert_eq!(seen(&mut reviews, 4), []);
        reviews.route(red, net("10.3.0.0/16"), Leaves::No, Leaves::By(red));
        assert_eq!(seen(&mut reviews, 5), []);
    }

    #[test]
    fn what_is_forgotten_concerns_all() {
        let mut reviews = Reviews::default();
        let (red, wan) = (vpc(1), vpc(9));
        for generation in 1..=MAX_REMEMBERED as u64 + 1 {
            let prefix = net("192.0.2.0/24");
            reviews.route(red, prefix, Leaves::By(red), Leaves::By(wan));
            reviews.publish(generation);
        }
        assert_eq!(reviews.since(0), [Scope::All]);
        assert_eq!(reviews.since(1).len(), MAX_REMEMBERED);
        for _ in 0..=MAX_REMEMBERED {
            reviews.route(red, net("192.0.2.0/24"), Leaves::By(red), Leaves::By(wan));
        }
        assert_eq!(seen(&mut reviews, 100), [Scope::All]);
    }

    #[test]
    fn more_withdrawn_routes_than_are_remembered_make_every_new_one_count() {
        let mut reviews = Reviews::default();
        let (red, wan) = (vpc(1), vpc(9));
        for n in 0..=MAX_WITHDRAWN as u32 {
            let host = IpNet::from(std::net::IpAddr::from((0x0a00_0000 + n).to_be_bytes()));
            reviews.route(red, host, Leaves::By(wan), Leaves::No);
        }
        let elsewhere = net("198.51.100.0/24");
        reviews.route(red, elsewhere, Leaves::No, Leaves::By(red));
        assert_eq!(seen(&mut reviews, 1), [Scope::Routed(red, elsewhere)]);
    }
}
