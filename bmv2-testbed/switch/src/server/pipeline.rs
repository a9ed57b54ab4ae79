//! Setting and getting the forwarding pipeline.

use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::get_forwarding_pipeline_config_request::ResponseType;
use pb::set_forwarding_pipeline_config_request::Action;

use tonic::Code;

use super::core::Core;
use super::fault::Fault;
use crate::state::write;
use crate::switch::Loaded;

/// A pipeline that was verified and saved, waiting for its commit.
pub(crate) struct Saved {
    pub(crate) loaded: Arc<Loaded>,
    config: pb::ForwardingPipelineConfig,
}

fn compile(config: Option<pb::ForwardingPipelineConfig>) -> Result<Saved, Fault> {
    let refused = |why: String| Fault::invalid(why).pi(Code::Unknown);
    let config = config.ok_or_else(|| refused("the config is missing".into()))?;
    let p4info = config.p4info.clone();
    let p4info = p4info.ok_or_else(|| refused("the config has no p4info".into()))?;
    let loaded = Loaded::new(&config.p4_device_config, p4info)
        .map_err(|e| refused(format!("the pipeline was refused: {e}")))?;
    Ok(Saved {
        loaded: Arc::new(loaded),
        config,
    })
}

impl Core {
    /// Executes a `SetForwardingPipelineConfig`. Blocks while the program is compiled.
    pub(crate) fn set_pipeline(
        &self,
        mut request: pb::SetForwardingPipelineConfigRequest,
    ) -> Result<(), Fault> {
        let action = Action::try_from(request.action).unwrap_or(Action::Unspecified);
        let config = request.config.take();
        let check = || {
            let id = request.election_id.as_ref();
            self.check_primary(request.device_id, &request.role, id)
        };
        check()?;
        let saved = match action {
            Action::Unspecified => return Err(Fault::invalid("the action is not specified")),
            Action::Commit if config.is_some() => {
                return Err(Fault::invalid("COMMIT takes no config"));
            }
            Action::Commit => None,
            // PI looks at the P4Info only.
            Action::Verify if self.deviations().pi => return Ok(()),
            Action::Verify => return compile(config).map(drop),
            _ => Some(compile(config)?),
        };
        let _writing = write(&self.writing);
        // Another client may have become primary meanwhile.
        check()?;
        match (action, saved) {
            (Action::VerifyAndSave, Some(saved)) => {
                self.control().saved = Some(saved);
                return Ok(());
            }
            (Action::ReconcileAndCommit, Some(saved)) => {
                self.reconcile(&saved.loaded)?;
                self.commit(saved);
            }
            (_, Some(saved)) => self.commit(saved),
            (_, None) => {
                let saved = self.control().saved.take();
                let fault = || {
                    let fault = "no pipeline is saved; VERIFY_AND_SAVE comes first";
                    Fault::not_found(fault).pi(Code::Unknown)
                };
                self.commit(saved.ok_or_else(fault)?);
            }
        }
        Ok(())
    }

    /// Makes the pipeline the one that runs. With `writing` held.
    fn commit(&self, saved: Saved) {
        let mut control = self.control();
        self.switch.install(saved.loaded);
        control.config = Some(saved.config);
        control.saved = None;
    }

    /// Notes the pipeline that the switch was started with.
    pub(crate) fn adopt(&self, config: pb::ForwardingPipelineConfig) {
        self.control().config = Some(config);
    }

    /// Executes a `GetForwardingPipelineConfig`.
    pub(crate) fn get_pipeline(
        &self,
        request: &pb::GetForwardingPipelineConfigRequest,
    ) -> Result<pb::GetForwardingPipelineConfigResponse, Fault> {
        self.check_device(request.device_id)?;
        let kind = ResponseType::try_from(request.response_type)
            .map_err(|_| Fault::invalid("unknown response type"))?;
        let config = {
            let control = self.control();
            let saved = control.saved.as_ref().map(|s| &s.config);
            saved.or(control.config.as_ref()).cloned()
        };
        if config.is_none() && self.deviations().pi {
            let why = "No forwarding pipeline config set for this device";
            return Err(Fault::precondition(why));
        }
        let config = config.map(|config| match kind {
            ResponseType::All => config,
            ResponseType::CookieOnly => pb::ForwardingPipelineConfig {
                cookie: config.cookie,
                ..pb::ForwardingPipelineConfig::default()
            },
            ResponseType::P4infoAndCookie => pb::ForwardingPipelineConfig {
                p4_device_config: Vec::new(),
                ..config
            },
            ResponseType::DeviceConfigAndCookie => pb::ForwardingPipelineConfig {
                p4info: None,
                ..config
            },
        });
        Ok(pb::GetForwardingPipelineConfigResponse { config })
    }
}
