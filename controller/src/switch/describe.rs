//! Table entries in words, for logs and errors.

use shunt_p4::tables::AnyEntry;

/// Table and key: `route4 (vpc 1, 10.0.0.0/24)`.
pub(crate) fn entry(entry: &AnyEntry) -> String {
    let table = entry.table();
    match entry {
        AnyEntry::ClassifyPort(e) => {
            let tag = |vid: Option<_>| {
                vid.map_or_else(|| "-".to_owned(), |v: shunt_p4::VlanId| v.to_string())
            };
            format!(
                "{table} (port {}, tags {} {})",
                e.key.port,
                tag(e.key.outer_vid),
                tag(e.key.inner_vid)
            )
        }
        AnyEntry::ClassifyVxlan(e) => format!(
            "{table} (vpc {}, end point {}, VNI {})",
            e.key.vpc, e.key.underlay_dst, e.key.vni
        ),
        AnyEntry::Route4(e) => format!("{table} (vpc {}, {})", e.key.vpc, e.key.dst),
        AnyEntry::Route6(e) => format!("{table} (vpc {}, {})", e.key.vpc, e.key.dst),
        AnyEntry::Ecmp(e) => format!("{table} (group {}, {} paths)", e.key.group, e.members.len()),
        AnyEntry::NexthopEntry(e) => format!("{table} ({})", e.key.nexthop),
        AnyEntry::Neighbor4(e) => {
            format!("{table} (interface {}, {})", e.key.interface, e.key.address)
        }
        AnyEntry::Neighbor6(e) => {
            format!("{table} (interface {}, {})", e.key.interface, e.key.address)
        }
        AnyEntry::EgressInterface(e) => format!("{table} (interface {})", e.key.interface),
        AnyEntry::Punt(e) => format!(
            "{table} (reason {}, interface {})",
            e.key.reason.as_str(),
            e.key
                .interface
                .map_or_else(|| "any".to_owned(), |i| i.to_string())
        ),
        AnyEntry::Flow4(e) => format!("{table} ({:?})", e.key),
        AnyEntry::Flow6(e) => format!("{table} ({:?})", e.key),
    }
}
