//! `shunt nat`.

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{ListNatRequest, ListNatRulesRequest, NatPool};
use tonic::transport::Channel;

use crate::error::Error;
use crate::output::Output;
use crate::watch::Watch;

/// Pools, or rules; each option narrows.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Also each address that has leases.
    #[arg(long)]
    addresses: bool,
    /// Only of the masquerade of this name.
    #[arg(long)]
    rule: Option<String>,
    /// Only from or to this VPC.
    #[arg(long)]
    vpc: Option<String>,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The rules: masquerades, static addresses, port forwards.
    Rules(Rules),
}

/// Each option narrows.
#[derive(Debug, clap::Args)]
struct Rules {
    /// Only of this kind: masquerade, static, nptv6 or port_forward.
    #[arg(long)]
    kind: Option<String>,
    /// Only from or to this VPC.
    #[arg(long)]
    vpc: Option<String>,
    #[command(flatten)]
    watch: Watch,
}

impl Arguments {
    pub(crate) fn watch(&self) -> Watch {
        match &self.verb {
            Some(Verb::Rules(which)) => which.watch,
            None => self.watch,
        }
    }
}

pub(crate) async fn run(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    what: &Arguments,
) -> Result<(), Error> {
    match &what.verb {
        Some(Verb::Rules(which)) => rules(daemon, out, which).await,
        None => pools(daemon, out, what).await,
    }
}

async fn pools(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    what: &Arguments,
) -> Result<(), Error> {
    let request = ListNatRequest {
        rule: what.rule.clone().unwrap_or_default(),
        vpc: what.vpc.clone().unwrap_or_default(),
    };
    let pools = daemon.list_nat(request).await?.into_inner().pools;
    if !out.is_text() {
        return out.list(&pools, &[], |_| Vec::new());
    }
    let header = [
        "rule", "vpc", "to", "address", "protocol", "leased", "capacity", "use", "refused",
    ];
    let rows = pools.iter().flat_map(|pool| {
        let total = row(pool, &pool.addresses, pool.leased, pool.capacity, true);
        let each = pool.used.iter().filter(|_| what.addresses);
        let each = each.map(|one| row(pool, &one.address, one.leased, one.capacity, false));
        std::iter::once(total).chain(each)
    });
    out.text(&out.table(&header, rows))
}

fn row(pool: &NatPool, address: &str, leased: u64, capacity: u64, whole: bool) -> Vec<String> {
    // Refusals are the whole pool's.
    let refused = if whole {
        pool.refused.to_string()
    } else {
        String::new()
    };
    vec![
        pool.rule.clone(),
        pool.vpc.clone(),
        pool.to.clone(),
        address.to_owned(),
        pool.protocol.clone(),
        leased.to_string(),
        capacity.to_string(),
        percent(leased, capacity),
        refused,
    ]
}

/// Rounded down: 100 % is full.
fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(per_mille) => format!("{}.{} %", per_mille / 10, per_mille % 10),
        None => "-".to_owned(),
    }
}

async fn rules(
    daemon: &mut ShuntClient<Channel>,
    out: &Output,
    which: &Rules,
) -> Result<(), Error> {
    let request = ListNatRulesRequest {
        vpc: which.vpc.clone().unwrap_or_default(),
        kind: which.kind.clone().unwrap_or_default(),
    };
    let rules = daemon.list_nat_rules(request).await?.into_inner().rules;
    let header = ["name", "kind", "vpc", "to", "original", "translated"];
    out.list(&rules, &header, |rule| {
        vec![
            rule.name.clone(),
            rule.kind.clone(),
            rule.vpc.clone(),
            rule.to.clone(),
            rule.original.clone(),
            rule.translated.clone(),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_down() {
        assert_eq!(percent(999, 1000), "99.9 %");
        assert_eq!(percent(9999, 10_000), "99.9 %");
        assert_eq!(percent(4, 4), "100.0 %");
        assert_eq!(percent(0, 0), "-");
    }
}
