//! The gateway's side in the kernel, as the daemon holds it: the taps, what is read from them,
//! and who else has to know when they become others.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::config::Config;
use crate::exception::ExceptionPath;
use crate::kernel::{KernelSetup, SetupError, TapConfig, TapInterface};

/// The taps and the exception path over them; clones share them.
#[derive(Clone, Debug)]
pub struct Taps(Arc<Mutex<Held>>);

#[derive(Debug)]
struct Held {
    setup: Option<KernelSetup>,
    exception: Option<ExceptionPath>,
}

impl Taps {
    /// Taps that nothing is read from yet.
    pub fn new(setup: KernelSetup) -> Self {
        Self(Arc::new(Mutex::new(Held {
            setup: Some(setup),
            exception: None,
        })))
    }

    /// Starts what reads from them.
    pub async fn serve(&self, start: impl FnOnce(&[crate::kernel::Tap]) -> ExceptionPath) {
        let mut held = self.0.lock().await;
        if let Some(setup) = &held.setup {
            held.exception = Some(start(setup.taps()));
        }
    }

    /// What the mirror has to know of them.
    pub async fn interfaces(&self) -> Vec<TapInterface> {
        let held = self.0.lock().await;
        let taps = held.setup.iter().flat_map(KernelSetup::taps);
        taps.map(|tap| tap.interface.clone()).collect()
    }

    /// Makes them what these say; as [`KernelSetup::become_`].
    ///
    /// # Errors
    /// [`SetupError`].
    pub async fn become_(&self, configs: &[TapConfig]) -> Result<(), SetupError> {
        let mut held = self.0.lock().await;
        let Held { setup, exception } = &mut *held;
        let Some(setup) = setup else { return Ok(()) };
        // Whose name is taken over has to be let go of first.
        let stays = |name: &str| configs.iter().any(|config| config.tap == name);
        if let Some(exception) = exception {
            let taps = setup.taps().iter();
            let kept: Vec<_> = taps
                .filter(|tap| stays(&tap.interface.tap))
                .cloned()
                .collect();
            exception.set_taps(&kept);
        }
        let done = setup.become_(configs).await;
        for warning in setup.warnings.drain(..) {
            tracing::warn!("{warning}");
        }
        if let Some(exception) = exception {
            exception.set_taps(setup.taps());
        }
        done
    }

    /// Ends what reads from them.
    pub async fn silence(&self) {
        let exception = self.0.lock().await.exception.take();
        if let Some(exception) = exception {
            exception.shutdown().await;
        }
    }

    /// Removes their rules, and the taps themselves.
    pub async fn remove(&self) {
        self.silence().await;
        let setup = self.0.lock().await.setup.take();
        if let Some(setup) = setup {
            setup.remove().await;
        }
    }
}

/// What a configuration asks of the kernel.
pub fn tap_configs(config: &Config) -> Vec<TapConfig> {
    let interfaces = config.interfaces.iter();
    interfaces
        .filter_map(|found| {
            let vpc = config.vpc(found.interface.vpc)?;
            Some(TapConfig {
                interface: found.interface.clone(),
                tap: found.tap.clone(),
                table: vpc.table,
                extra_addresses: config.nat_addresses_on(&found.interface),
            })
        })
        .collect()
}
