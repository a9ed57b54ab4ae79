//! One RPC, from its start to its end: what is traced and what is counted of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Code, Status};
use tracing::{Instrument as _, Span, field};

use super::metrics::Metrics;
use super::{ClientConfig, ClientError, code_name};

/// An RPC that runs. Whoever drops it before its end has given it up.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) rpc: &'static str,
    span: Span,
    metrics: Arc<Metrics>,
    start: Instant,
    code: Code,
}

impl Call {
    pub(super) fn new(rpc: &'static str, config: &ClientConfig, metrics: &Arc<Metrics>) -> Self {
        Self {
            rpc,
            span: tracing::debug_span!(
                "p4runtime",
                rpc,
                address = %config.address,
                device = config.device_id,
                updates = field::Empty,
                code = field::Empty,
            ),
            metrics: Arc::clone(metrics),
            start: Instant::now(),
            code: Code::Cancelled,
        }
    }

    /// How many updates it carries.
    pub(super) fn with_updates(self, count: usize) -> Self {
        self.span.record("updates", count);
        self
    }

    /// Awaits a part of it, for at most `timeout`.
    pub(super) async fn within<T>(
        &mut self,
        config: &ClientConfig,
        timeout: Duration,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, ClientError> {
        let work = tokio::time::timeout(timeout, work);
        let answer = work.instrument(self.span.clone()).await;
        self.code = match &answer {
            Err(_) => Code::DeadlineExceeded,
            Ok(Err(status)) => status.code(),
            // Not over, where the answer is a stream: see `end`.
            Ok(Ok(_)) => Code::Cancelled,
        };
        answer.map_err(|_| ClientError::Timeout {
            rpc: self.rpc,
            address: config.address.clone(),
            timeout,
        })
    }

    /// Its answer is complete.
    pub(super) fn end(mut self) {
        self.code = Code::Ok;
    }

    /// It ended with this status.
    pub(super) fn failed(mut self, code: Code) {
        self.code = code;
    }

    /// What happens within it is traced in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.span.record("code", code_name(self.code));
        self.metrics.rpc(self.rpc, self.code, self.start.elapsed());
    }
}
