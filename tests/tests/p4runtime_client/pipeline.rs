//! Which program runs.

use p4runtime::client::{ClientError, PipelineAction, PipelineParts};
use shunt_testbed::Result;
use tonic::Code;

use crate::switch::{COOKIE, Kind, Program, Switch, connect, primary};

pub(crate) async fn a_pipeline_is_pushed_and_its_cookie_comes_back(switch: Switch) -> Result<()> {
    let shunt = Program::shunt();
    let client = connect(10).await;
    let none = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert!(!none.unwrap().is_loaded());
    client.become_primary().await.unwrap();

    shunt.push(&client).await;
    let pushed = client.get_pipeline(PipelineParts::All).await.unwrap();
    assert_eq!(pushed.cookie(), Some(COOKIE));
    assert_eq!(pushed.p4info(), Some(shunt.index.p4info()));
    let version = client.capabilities().await.unwrap().p4runtime_api_version;
    assert_eq!(
        version.starts_with("1.3."),
        switch.kind.is_pi(),
        "{version}"
    );

    let p4info = shunt.index.p4info().clone();
    let action = PipelineAction::VerifyAndCommit;
    let refused = client.set_pipeline(action, p4info, b"{ not JSON".to_vec(), 1);
    let error = refused.await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { .. }), "{error:?}");
    // bmv2 1.15 is left in the middle of an update, and takes no pipeline before a restart.
    if switch.kind != Kind::Bmv2 {
        let kept = client.get_pipeline(PipelineParts::CookieOnly).await;
        assert_eq!(kept.unwrap().cookie(), Some(COOKIE));
        shunt.push(&client).await;
    }
    Ok(())
}

/// What is saved counts from the commit on, and there is no commit without it.
pub(crate) async fn a_saved_pipeline_is_committed(switch: Switch) -> Result<()> {
    let forward = Program::named("forward");
    let client = connect(10).await;
    client.become_primary().await.unwrap();
    // PI takes a commit of nothing for one.
    if !switch.kind.is_pi() {
        let error = client.commit_pipeline().await.unwrap_err();
        let ClientError::Refused { code, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(code, Code::NotFound);
    }
    let info = forward.index.p4info().clone();
    let action = PipelineAction::VerifyAndSave;
    let saving = client.set_pipeline(action, info, forward.json.clone(), 7);
    saving.await.unwrap();
    client.commit_pipeline().await.unwrap();
    let now = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert_eq!(now.unwrap().cookie(), Some(7));
    let line = "route dst=10.0.0.0/8 do drop";
    client.write([forward.insert(line)]).await.unwrap();
    Ok(())
}

/// Entries outlive a pipeline where the switch offers that, and it is said where not.
pub(crate) async fn a_pipeline_is_reconciled_where_that_is_offered(switch: Switch) -> Result<()> {
    let shunt = Program::shunt();
    let client = primary(&shunt).await;
    let line = "route4 vpc=1 dst=10.0.0.0/8 do to_nexthop nexthop=3";
    client.write([shunt.insert(line)]).await.unwrap();
    let info = shunt.index.p4info().clone();
    let kept = client.reconcile_pipeline(info, shunt.json.clone(), 8);
    let kept = kept.await;
    // bmv2 1.15 tries to insert the counters that it has read, and says that it could not.
    if switch.kind == Kind::Bmv2 {
        let said = kept.unwrap_err().to_string();
        assert!(said.contains("Error when reconciling config"), "{said}");
        return Ok(());
    }
    let kept = kept.unwrap();
    let left = shunt.read(&client, "route4").await;
    assert_eq!(left.len(), usize::from(kept), "{left:?}");
    let now = client.get_pipeline(PipelineParts::CookieOnly).await;
    assert_eq!(now.unwrap().cookie(), Some(8));
    Ok(())
}
