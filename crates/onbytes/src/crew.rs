//! The threads of a listener's own, each with a runtime.

use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::run::Run;
use crate::{Error, ErrorKind, Result, Workers};

/// Where the accept loops of a listener run, and with each the connections that it accepts. Its threads, if
/// it has any, end with it.
pub(crate) struct Crew {
    /// Where the listener is stopped and its bounds are watched.
    office: Handle,
    runtimes: Vec<Handle>,
    is_over: watch::Sender<bool>,
}

impl Crew {
    /// Starts what threads `workers` asks for.
    pub(crate) async fn start(workers: Workers, run: &Arc<Run>) -> Result<Self> {
        let office = Handle::current();
        let mut crew = Self { office, runtimes: Vec::new(), is_over: watch::Sender::new(false) };
        match workers {
            Workers::Current => crew.runtimes.push(Handle::current()),
            Workers::AcceptLoops(count) => crew.runtimes.resize(count, Handle::current()),
            Workers::Threads(count) => {
                // One more, because a callback may hold up any of the others, and the runtime of the caller
                // may end before the listener does.
                crew.office = start(0, Arc::clone(run), crew.is_over.subscribe()).await?;
                for number in 1..=count {
                    let runtime = start(number, Arc::clone(run), crew.is_over.subscribe());
                    crew.runtimes.push(runtime.await?);
                }
            }
        }
        Ok(crew)
    }

    /// The runtime that stops the listener and watches its bounds.
    pub(crate) fn office(&self) -> &Handle {
        &self.office
    }

    /// The runtime of each accept loop.
    pub(crate) fn runtimes(&self) -> &[Handle] {
        &self.runtimes
    }

    /// Lets the threads end, as soon as no connection is left.
    pub(crate) fn dismiss(&self) {
        self.is_over.send_replace(true);
    }
}

/// Starts one thread.
async fn start(number: usize, run: Arc<Run>, is_over: watch::Receiver<bool>) -> Result<Handle> {
    let cannot = |error| {
        let line = format!("cannot start thread {number} of the workers; give fewer");
        Error::caused(ErrorKind::State, line, error)
    };
    let (tell, told) = oneshot::channel();
    let work = move || {
        let built = Builder::new_current_thread().enable_all().build();
        match built {
            Ok(runtime) => {
                if tell.send(Ok(runtime.handle().clone())).is_ok() {
                    runtime.block_on(serve(run, is_over));
                }
                // Nobody waits for what callbacks have left to blocking threads.
                runtime.shutdown_background();
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    };
    thread::Builder::new().name(format!("onbytes-{number}")).spawn(work).map_err(cannot)?;
    let built = told.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()));
    built.map_err(cannot)
}

/// Runs the connections of a thread until the listener has stopped.
async fn serve(run: Arc<Run>, mut is_over: watch::Receiver<bool>) {
    // An error is the end of the crew.
    let _ = is_over.wait_for(|is_over| *is_over).await;
    // What a stop has given up may still come to its end.
    let _ = timeout(run.time_to_cut_off(), run.emptied()).await;
}
