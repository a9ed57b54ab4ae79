//! Samples as they come, from a daemon that may go and come back.

use std::time::Duration;

use shunt_api::v1::shunt_client::ShuntClient;
use shunt_api::v1::{TopSample, WatchTopRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::error::Error;

/// Events that wait to be shown.
const QUEUE: usize = 4;
/// Between two tries to reach a daemon that has gone.
const RETRY: Duration = Duration::from_secs(1);

/// How the daemon is reached, each time anew.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Reaches it.
    fn connect(&self) -> impl Future<Output = Result<ShuntClient<Channel>, Error>> + Send;
}

impl<F, A> Connect for F
where
    F: Fn() -> A + Send + Sync + 'static,
    A: Future<Output = Result<ShuntClient<Channel>, Error>> + Send,
{
    async fn connect(&self) -> Result<ShuntClient<Channel>, Error> {
        self().await
    }
}

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    Sample(Box<TopSample>),
    /// There is no daemon, or it refuses; it is tried again.
    Lost(Box<Error>),
}

/// Where events come from; ends with it.
#[derive(Debug)]
pub(super) struct Feed {
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn open(
    connect: &impl Connect,
    request: WatchTopRequest,
) -> Result<Streaming<TopSample>, Error> {
    let mut daemon = connect.connect().await?;
    Ok(daemon.watch_top(request).await?.into_inner())
}

impl Feed {
    /// Begins with a connection, or with why there is none.
    pub(super) async fn start(
        connect: impl Connect,
        request: WatchTopRequest,
    ) -> Result<Self, Error> {
        let mut samples = open(&connect, request).await?;
        let (sender, events) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            loop {
                let error = hand_on(&mut samples, &sender).await;
                if sender.send(Event::Lost(Box::new(error))).await.is_err() {
                    return;
                }
                samples = loop {
                    tokio::time::sleep(RETRY).await;
                    match open(&connect, request).await {
                        Ok(samples) => break samples,
                        Err(error) => {
                            if sender.send(Event::Lost(Box::new(error))).await.is_err() {
                                return;
                            }
                        }
                    }
                };
            }
        });
        Ok(Self { events, task })
    }

    /// The next event; may be dropped before it comes.
    pub(super) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends only with this.
            None => std::future::pending().await,
        }
    }
}

/// Until there are no more.
async fn hand_on(samples: &mut Streaming<TopSample>, to: &mpsc::Sender<Event>) -> Error {
    loop {
        match samples.message().await {
            Ok(Some(sample)) => {
                // Nobody left to read: the task is ended.
                let _ = to.send(Event::Sample(Box::new(sample))).await;
            }
            Ok(None) => return tonic::Status::new(Code::Unavailable, "it has ended").into(),
            Err(status) => return status.into(),
        }
    }
}
