//! A kernel with a mirror of it.

use std::time::Duration;

use shunt_controller::kernel::{
    Batch, KernelSetup, Mirror, MirrorConfig, MirrorHandle, TapConfig, setup,
};
use tokio::sync::mpsc;

use super::model::{Model, kernel_macs, kernel_ways};
use super::{eventually, ip, tap};

pub fn taps() -> Vec<TapConfig> {
    vec![
        tap(1, "red", 1, 101, &["10.0.0.1/24", "fd00:a::1/64"], &[]),
        tap(2, "blue", 2, 102, &["10.0.0.1/24"], &[]),
        tap(
            3,
            "wan",
            3,
            254,
            &["203.0.113.1/24", "fd00:c::1/64"],
            &["203.0.113.10"],
        ),
    ]
}

/// A mirror of three taps, and a model that applies its batches.
pub struct Bench {
    pub taps: Vec<TapConfig>,
    pub setup: KernelSetup,
    pub mirror: MirrorHandle,
    batches: mpsc::Receiver<Batch>,
    pub model: Model,
    /// Where batches go on to.
    pub next: Option<mpsc::UnboundedSender<Batch>>,
}

impl Bench {
    pub async fn start(receive_buffer: usize, resync_interval: Duration) -> Self {
        ip("link set lo up");
        ip("link add other type veth peer name other-peer");
        ip("link set other up");
        ip("link set other-peer up");
        ip("addr add 192.168.77.1/24 dev other");
        let taps = taps();
        let setup = KernelSetup::create(&taps).await.unwrap();
        assert_eq!(setup.warnings, Vec::<String>::new());
        let config = MirrorConfig {
            interfaces: setup
                .taps()
                .iter()
                .map(|tap| tap.interface.clone())
                .collect(),
            tables: setup::tables(&taps),
            receive_buffer,
            resync_interval,
        };
        let (ops, batches) = mpsc::channel(4);
        let mirror = Mirror::start(config, ops).await.unwrap();
        Self {
            taps,
            setup,
            mirror,
            batches,
            model: Model::default(),
            next: None,
        }
    }

    /// Waits until the consumer holds what the kernel has.
    pub async fn agree(&mut self, what: &str) {
        let Self {
            taps,
            batches,
            model,
            next,
            ..
        } = self;
        eventually(what, || {
            while let Ok(batch) = batches.try_recv() {
                if let Some(next) = next {
                    let _ = next.send(batch.clone());
                }
                model.apply(batch);
            }
            if !model.complete {
                return Err("the first load has not ended".into());
            }
            let (want, have) = (kernel_ways(taps), model.ways());
            for (key, way) in &want {
                if have.get(key) != Some(way) {
                    return Err(format!("{key:?}: want {way:?}, have {:?}", have.get(key)));
                }
            }
            if let Some(extra) = have.iter().find(|(key, _)| !want.contains_key(key)) {
                return Err(format!("not in the kernel: {extra:?}"));
            }
            let (want, have) = (kernel_macs(taps), &model.macs);
            if want != *have {
                return Err(format!("neighbours: want {want:?}, have {have:?}"));
            }
            Ok(())
        })
        .await;
    }
}
