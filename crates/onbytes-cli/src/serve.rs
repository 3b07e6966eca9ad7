//! `onbytes serve`: listens until a signal, then stops.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use onbytes::{
    Bytes, Error, Event, KeepAlive, Limits, Listener, ListenerConfiguration, SocketOptions,
    Timeouts, WhenFull, service_fn,
};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{self, ServeArgs, ServiceName};
use crate::chat::Chat;
use crate::failure::Failure;
use crate::logging;

pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let listener = Listener::new(args.listen.clone(), configuration(args))
        .map_err(|error| Failure::from(&error).about("--listen"))?;
    let runtime = runtime(args.workers)?;
    let _log = logging::start(args.log_format)?;
    let result = runtime.block_on(serve(&listener, args));
    // Not waited for: a callback that never yields would keep the process alive.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(listener: &Listener, args: &ServeArgs) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut lost = watch_for_loss(listener);
    attach(listener, args.service);
    listener.start().await.map_err(|error| Failure::from(&error).about("--listen"))?;
    listener.local_addr().into_iter().for_each(announce);

    tokio::select! {
        () = signals.next() => {}
        Some(error) = lost.recv() => {
            listener.immediate_stop().await;
            return Err(Failure::from(&error).about("--listen").hint("start again"));
        }
    }
    tokio::select! {
        _ = listener.graceful_stop(args.shutdown_timeout) => {}
        () = signals.next() => {
            listener.immediate_stop().await;
        }
    }
    Ok(())
}

fn configuration(args: &ServeArgs) -> ListenerConfiguration {
    let limits =
        Limits::new().max_connections(args.max_connections).when_full(match args.when_full {
            args::WhenFull::Queue => WhenFull::Queue,
            args::WhenFull::Refuse => WhenFull::Refuse,
        });
    let timeouts = Timeouts::new()
        .idle(args.idle_timeout.0)
        .write(args.write_timeout.0)
        .max_lifetime(args.max_lifetime.0);
    let keep_alive = args.keep_alive.0.map(|idle| KeepAlive::new().idle(idle));
    ListenerConfiguration::new()
        .allow_half_open(args.half_open)
        .limits(limits)
        .timeouts(timeouts)
        .socket(SocketOptions::new().backlog(args.backlog).keep_alive(keep_alive))
}

/// The runtime that serves connections; with one worker that is the main thread itself.
fn runtime(workers: usize) -> Result<Runtime, Failure> {
    let built = match workers {
        1 => Builder::new_current_thread().enable_all().build(),
        _ => check_threads(workers).and_then(|()| {
            Builder::new_multi_thread().worker_threads(workers).enable_all().build()
        }),
    };
    built.map_err(|error| {
        Failure::outside(format!("--workers: cannot start {workers}: {error}")).hint("give fewer")
    })
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
fn announce(address: SocketAddr) {
    // On a thread of its own: a full pipe that nobody reads holds up this line and nothing else.
    let tell = move || {
        let mut stdout = io::stdout().lock();
        let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
    };
    if let Err(error) = thread::Builder::new().name("ready".into()).spawn(tell) {
        tracing::warn!(%error, "cannot tell on stdout that the server is ready");
    }
}

/// The signals that stop a server.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|error| Failure::outside(format!("cannot hear signals: {error}")))
        };
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
