//! `onbytes serve`: listens until a signal, then stops.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use onbytes::{
    Bytes, Error, ErrorKind, Event, Listener, ListenerConfiguration, Workers, service_fn,
};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{ServeArgs, ServiceName, WorkerModel};
use crate::chat::Chat;
use crate::failure::Failure;
use crate::logging;
use crate::tls::ServerTls;

pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let configuration = configuration(args)?;
    let (runtime, workers) = runtime(args)?;
    let listener = Listener::new(args.listen.clone(), configuration.workers(workers))
        .map_err(|error| ServerTls::told(&error))?;
    let _log = logging::start(args.log_format)?;
    let result = runtime.block_on(serve(&listener, args));
    // Not waited for: a callback that never yields would keep the process alive.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(listener: &Listener, args: &ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut lost = watch_for_loss(listener);
    let is_secured = args.tls.record()?.is_some();
    let mut hang_ups = HangUps::new(is_secured)?;
    attach(listener, args.service);
    listener.start().await.map_err(|error| match error.kind() {
        // Impossible values were told before; now it is a file.
        ErrorKind::Configuration => ServerTls::told(&error).of_a_file(),
        ErrorKind::State => Failure::from(&error).about("--workers"),
        _ => Failure::from(&error).about("--listen"),
    })?;
    listener.local_addr().into_iter().for_each(|address| announce(address, is_secured));

    loop {
        tokio::select! {
            () = signals.next() => break,
            // How it went is logged; a bad file is no reason to end.
            () = hang_ups.next() => drop(listener.reload_tls().await),
            Some(error) = lost.recv() => {
                listener.immediate_stop().await;
                return Err(Failure::from(&error).about("--listen").hint("start again"));
            }
        }
    }
    tokio::select! {
        _ = listener.graceful_stop(args.timeouts.shutdown_timeout) => {}
        () = signals.next() => {
            listener.immediate_stop().await;
        }
    }
    Ok(())
}

fn configuration(args: &ServeArgs) -> Result<ListenerConfiguration, Failure> {
    if args.framing.is_some() && matches!(args.service, ServiceName::Chat) {
        let line = "--framing: chat has lines of its own and takes no framing";
        return Err(Failure::usage(line).hint("leave it out, or serve echo or discard"));
    }
    let secure_socket = args.tls.record()?;
    Ok(ListenerConfiguration::new()
        .framing(args.framing.clone())
        .allow_half_open(args.half_open)
        .limits(args.limits.record(secure_socket.is_some())?)
        .secure_socket(secure_socket)
        .timeouts(args.timeouts.record()?)
        .socket(args.socket.record()?.backlog(args.backlog)))
}

/// The runtime of the main thread, and where connections run.
fn runtime(args: &ServeArgs) -> Result<(Runtime, Workers), Failure> {
    let (built, workers) = match (args.workers, args.worker_model) {
        (1, _) => (Builder::new_current_thread().enable_all().build(), Workers::Current),
        (count, WorkerModel::Own) => {
            (Builder::new_current_thread().enable_all().build(), Workers::Threads(count))
        }
        (count, WorkerModel::Shared) => (shared(count), Workers::Current),
    };
    let cannot = |error| {
        Failure::outside(format!("--workers: cannot start {}: {error}", args.workers))
            .hint("give fewer")
    };
    built.map(|runtime| (runtime, workers)).map_err(cannot)
}

/// One runtime for so many threads.
fn shared(threads: usize) -> io::Result<Runtime> {
    check_threads(threads)?;
    Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

/// Whether so many threads can be had. Tokio panics where they cannot, and then waits for ever.
fn check_threads(count: usize) -> io::Result<()> {
    let start = |_| thread::Builder::new().spawn(thread::park);
    let (started, failed): (Vec<_>, Vec<_>) = (0..count).map(start).partition(io::Result::is_ok);
    for thread in started.into_iter().flatten() {
        thread.thread().unpark();
        let _ = thread.join();
    }
    failed.into_iter().next().map_or(Ok(()), |failed| failed.map(drop))
}

fn attach(listener: &Listener, service: ServiceName) {
    match service {
        ServiceName::Echo => {
            listener.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }))
        }
        ServiceName::Discard => {
            listener.attach(service_fn(|_| async { Ok(|_: Bytes| async { Ok(None) }) }))
        }
        ServiceName::Chat => listener.attach(Chat::default()),
    };
}

/// Hears of the one event that ends a server which nobody stopped.
fn watch_for_loss(listener: &Listener) -> mpsc::UnboundedReceiver<Error> {
    let (tell, lost) = mpsc::unbounded_channel();
    listener.on_event(move |event| {
        if let Event::Lost { error, .. } = event {
            let _ = tell.send((*error).clone());
        }
    });
    lost
}

/// Tells that the server is ready, as the first line of stdout.
fn announce(address: SocketAddr, is_secured: bool) {
    let how = if is_secured { " (TLS)" } else { "" };
    // On a thread of its own: a full pipe that nobody reads holds up this line and nothing else.
    let tell = move || {
        let mut stdout = io::stdout().lock();
        let _ = writeln!(stdout, "listening on {address}{how}").and_then(|()| stdout.flush());
    };
    if let Err(error) = thread::Builder::new().name("ready".into()).spawn(tell) {
        tracing::warn!(%error, "cannot tell on stdout that the server is ready");
    }
}

fn hear(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::outside(format!("cannot hear signals: {error}")))
}

/// The signal that makes a server read its files again. One that has none is ended by it, as any
/// program is whose terminal goes away.
struct HangUps(Option<Signal>);

impl HangUps {
    fn new(is_secured: bool) -> Result<Self, Failure> {
        Ok(Self(is_secured.then(|| hear(SignalKind::hangup())).transpose()?))
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// The signals that stop a server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
