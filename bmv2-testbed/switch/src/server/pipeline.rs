//! Setting and getting the forwarding pipeline.

use std::sync::Arc;

use p4runtime::p4::v1 as pb;
use pb::get_forwarding_pipeline_config_request::ResponseType;
use pb::set_forwarding_pipeline_config_request::Action;

use super::core::Core;
use super::fault::Fault;
use crate::state::lock;
use crate::switch::Loaded;

/// A pipeline that was verified and saved, waiting for its commit.
pub(crate) struct Saved {
    loaded: Loaded,
    config: pb::ForwardingPipelineConfig,
}

fn compile(config: Option<pb::ForwardingPipelineConfig>) -> Result<Saved, Fault> {
    let config = config.ok_or_else(|| Fault::invalid("the config is missing"))?;
    let p4info = config.p4info.clone();
    let p4info = p4info.ok_or_else(|| Fault::invalid("the config has no p4info"))?;
    let loaded = Loaded::new(&config.p4_device_config, p4info)
        .map_err(|e| Fault::invalid(format!("the pipeline was refused: {e}")))?;
    Ok(Saved { loaded, config })
}

impl Core {
    /// Executes a `SetForwardingPipelineConfig`. Blocks while the program is compiled.
    pub(crate) fn set_pipeline(
        &self,
        request: pb::SetForwardingPipelineConfigRequest,
    ) -> Result<(), Fault> {
        self.check_primary(
            request.device_id,
            &request.role,
            request.election_id.as_ref(),
        )?;
        match Action::try_from(request.action).unwrap_or(Action::Unspecified) {
            Action::Unspecified => Err(Fault::invalid("the action is not specified")),
            Action::Verify => compile(request.config).map(drop),
            Action::VerifyAndSave => {
                let saved = compile(request.config)?;
                self.control().saved = Some(saved);
                Ok(())
            }
            Action::VerifyAndCommit => {
                let saved = compile(request.config)?;
                self.commit(saved);
                Ok(())
            }
            Action::Commit => {
                if request.config.is_some() {
                    return Err(Fault::invalid("COMMIT takes no config"));
                }
                let saved = self.control().saved.take();
                let saved =
                    saved.ok_or_else(|| Fault::precondition("no pipeline was saved before"))?;
                self.commit(saved);
                Ok(())
            }
            Action::ReconcileAndCommit => Err(Fault::unimplemented("RECONCILE_AND_COMMIT")),
        }
    }

    fn commit(&self, saved: Saved) {
        let _writing = lock(&self.writing);
        let mut control = self.control();
        self.switch.loaded.store(Some(Arc::new(saved.loaded)));
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
        let config = self.control().config.clone();
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
