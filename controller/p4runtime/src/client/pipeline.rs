//! Which pipeline runs, and loading another (P4Runtime 7).

use tonic::Code;

use super::{Client, ClientError};
use crate::p4::config::v1::P4Info;
use crate::p4::v1 as pb;
use crate::p4::v1::forwarding_pipeline_config::Cookie;
use crate::p4::v1::get_forwarding_pipeline_config_request::ResponseType;
pub use crate::p4::v1::set_forwarding_pipeline_config_request::Action as PipelineAction;

/// How much of the pipeline to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineParts {
    /// Everything.
    All,
    /// The cookie, which says whether it is one's own.
    CookieOnly,
    /// P4Info and cookie.
    P4InfoAndCookie,
    /// The device's form and the cookie.
    DeviceConfigAndCookie,
}

/// The pipeline of a switch, or that it has none.
#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline(pub Option<pb::ForwardingPipelineConfig>);

impl Pipeline {
    /// Whether the switch has a pipeline at all.
    pub fn is_loaded(&self) -> bool {
        self.0.is_some()
    }

    /// The cookie of whoever loaded it, if they gave one.
    pub fn cookie(&self) -> Option<u64> {
        let config = self.0.as_ref()?;
        config.cookie.map(|cookie| cookie.cookie)
    }

    /// Its P4Info, where it was asked for.
    pub fn p4info(&self) -> Option<&P4Info> {
        self.0.as_ref()?.p4info.as_ref()
    }
}

impl Client {
    /// The switch's pipeline, whole or in part. Needs no primary role.
    ///
    /// # Errors
    /// [`ClientError`]; no pipeline is not an error.
    pub async fn get_pipeline(&self, parts: PipelineParts) -> Result<Pipeline, ClientError> {
        let response_type = match parts {
            PipelineParts::All => ResponseType::All,
            PipelineParts::CookieOnly => ResponseType::CookieOnly,
            PipelineParts::P4InfoAndCookie => ResponseType::P4infoAndCookie,
            PipelineParts::DeviceConfigAndCookie => ResponseType::DeviceConfigAndCookie,
        };
        let request = pb::GetForwardingPipelineConfigRequest {
            device_id: self.0.config.device_id,
            response_type: response_type.into(),
        };
        let mut stub = self.stub();
        let rpc = "GetForwardingPipelineConfig";
        let response = stub.get_forwarding_pipeline_config(request);
        match self.unary(rpc, self.0.config.rpc_timeout, response).await {
            // The specification's way of saying that there is none, and PI's.
            Ok(response) => Ok(Pipeline(response.config)),
            Err(ClientError::Refused {
                code: Code::FailedPrecondition,
                ..
            }) => Ok(Pipeline(None)),
            Err(error) => Err(error),
        }
    }

    /// Loads, checks or commits a pipeline. `device_config` is the device's own
    /// form of it (for bmv2 the JSON of its compiler); `COMMIT` takes neither,
    /// see [`Client::commit_pipeline`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the switch's words, [`ClientError::NotPrimary`],
    /// or what kept it from being asked.
    pub async fn set_pipeline(
        &self,
        action: PipelineAction,
        p4info: P4Info,
        device_config: Vec<u8>,
        cookie: u64,
    ) -> Result<(), ClientError> {
        let config = pb::ForwardingPipelineConfig {
            p4info: Some(p4info),
            p4_device_config: device_config,
            cookie: Some(Cookie { cookie }),
        };
        self.set_pipeline_config(action, Some(config)).await
    }

    /// Puts the pipeline to work that `VERIFY_AND_SAVE` left.
    ///
    /// # Errors
    /// As [`Client::set_pipeline`].
    pub async fn commit_pipeline(&self) -> Result<(), ClientError> {
        self.set_pipeline_config(PipelineAction::Commit, None).await
    }

    /// Changes to a pipeline and keeps the forwarding state, where the switch
    /// can (`RECONCILE_AND_COMMIT`), else drops the state (`VERIFY_AND_COMMIT`).
    /// True if the state was kept.
    ///
    /// # Errors
    /// As [`Client::set_pipeline`].
    pub async fn reconcile_pipeline(
        &self,
        p4info: P4Info,
        device_config: Vec<u8>,
        cookie: u64,
    ) -> Result<bool, ClientError> {
        let kept = self
            .set_pipeline(
                PipelineAction::ReconcileAndCommit,
                p4info.clone(),
                device_config.clone(),
                cookie,
            )
            .await;
        match kept {
            Err(ClientError::Refused {
                code: Code::Unimplemented,
                ..
            }) => self
                .set_pipeline(
                    PipelineAction::VerifyAndCommit,
                    p4info,
                    device_config,
                    cookie,
                )
                .await
                .map(|()| false),
            other => other.map(|()| true),
        }
    }

    async fn set_pipeline_config(
        &self,
        action: PipelineAction,
        config: Option<pb::ForwardingPipelineConfig>,
    ) -> Result<(), ClientError> {
        let request = pb::SetForwardingPipelineConfigRequest {
            device_id: self.0.config.device_id,
            role: self.role(),
            election_id: self.wire_election_id(),
            action: action.into(),
            config,
            ..Default::default()
        };
        let mut stub = self.stub();
        let rpc = "SetForwardingPipelineConfig";
        let response = stub.set_forwarding_pipeline_config(request);
        self.unary(rpc, self.0.config.pipeline_timeout, response)
            .await
            .map(drop)
    }
}
