//! Getting our pipeline onto the switch.

use p4runtime::client::{Client, ClientError, PipelineAction, PipelineParts};
use p4runtime::p4::config::v1::P4Info;
use p4runtime::p4info::parse_p4info_text;

use super::error::SwitchError;
use crate::config::Switch;

/// What was found and done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loaded {
    /// It was there, with its entries.
    Kept,
    /// It has been pushed; the tables are empty.
    Pushed,
    /// The switch takes no pipelines, and has one of the same P4Info.
    Fixed,
}

/// Compares the cookie and pushes ours if it is another.
///
/// # Errors
/// [`SwitchError::Refused`] and [`SwitchError::Pipeline`].
pub(crate) async fn load(client: &Client, switch: &Switch) -> Result<Loaded, SwitchError> {
    let refused = |source: ClientError| SwitchError::Refused {
        name: switch.name.clone(),
        address: switch.address.clone(),
        source,
    };
    let cookie = client
        .get_pipeline(PipelineParts::CookieOnly)
        .await
        .map_err(refused)?
        .cookie();
    if cookie == Some(shunt_p4::pipeline_cookie()) {
        return Ok(Loaded::Kept);
    }
    let ours = parse_p4info_text(shunt_p4::P4INFO)
        .map_err(|error| SwitchError::OwnP4Info(error.to_string()))?;
    let pushed = client
        .set_pipeline(
            PipelineAction::VerifyAndCommit,
            ours.clone(),
            shunt_p4::PIPELINE_JSON.to_vec(),
            shunt_p4::pipeline_cookie(),
        )
        .await;
    match pushed {
        Ok(()) => Ok(Loaded::Pushed),
        Err(source @ ClientError::Refused { .. }) => {
            let theirs = client.get_pipeline(PipelineParts::P4InfoAndCookie).await;
            let difference = match theirs.as_ref().map(|pipeline| pipeline.p4info()) {
                Ok(Some(theirs)) => match difference(&ours, theirs) {
                    None => return Ok(Loaded::Fixed),
                    Some(difference) => difference,
                },
                _ => "It has no pipeline at all".to_owned(),
            };
            Err(SwitchError::Pipeline {
                name: switch.name.clone(),
                address: switch.address.clone(),
                source,
                difference,
            })
        }
        Err(source) => Err(refused(source)),
    }
}

/// The first difference that matters, in words.
fn difference(ours: &P4Info, theirs: &P4Info) -> Option<String> {
    for table in &ours.tables {
        let Some(preamble) = &table.preamble else {
            continue;
        };
        let same_name = theirs.tables.iter().find(|other| {
            other
                .preamble
                .as_ref()
                .is_some_and(|p| p.name == preamble.name)
        });
        match same_name {
            None => return Some(format!("Its P4Info has no table {}", preamble.name)),
            Some(other) if other != table => {
                return Some(format!("Its P4Info has another table {}", preamble.name));
            }
            Some(_) => {}
        }
    }
    for action in &ours.actions {
        if !theirs.actions.contains(action) {
            let name = action.preamble.as_ref().map_or("", |p| p.name.as_str());
            return Some(format!("Its P4Info has no such action as {name}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let ours = parse_p4info_text(shunt_p4::P4INFO).unwrap();
        assert_eq!(difference(&ours, &ours), None);
        let mut theirs = ours.clone();
        theirs
            .tables
            .retain(|table| table.preamble.as_ref().unwrap().alias != "route4");
        assert_eq!(
            difference(&ours, &theirs).unwrap(),
            "Its P4Info has no table ShuntIngress.route.route4"
        );
        let mut theirs = ours.clone();
        theirs.tables[0].size += 1;
        assert!(
            difference(&ours, &theirs)
                .unwrap()
                .contains("another table")
        );
        theirs = ours.clone();
        theirs.actions.pop();
        assert!(
            difference(&ours, &theirs)
                .unwrap()
                .contains("no such action")
        );
    }
}
