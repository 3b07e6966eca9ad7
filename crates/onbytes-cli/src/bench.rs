//! `onbytes bench`: puts a load on a server, and reports how many messages it took and how long each was
//! under way.
//!
//! `args` and `plan`: what was asked for. `content`: the messages. `schedule`, `pace` and `alarm`: when they
//! are due. `course` and `load`: connections and threads. `tally`, `latency` and `usage`: what is counted. `live`,
//! `report` and `plot`: how it is told.

mod alarm;
mod args;
mod content;
mod course;
mod latency;
mod live;
mod load;
mod pace;
mod plan;
mod plot;
mod report;
mod schedule;
mod tally;
mod usage;

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use onbytes::{Error, ErrorKind};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use args::BenchArgs;

use crate::args::LogFormat;
use crate::connect::INTERRUPTED;
use crate::failure::Failure;
use crate::framing::print;
use crate::logging;
use crate::tls::ClientTls;
use args::OutputArgs;
use live::Live;
use load::{Load, Outcome, StartError};
use plan::Plan;
use report::Report;

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode, Failure> {
    let plan = Arc::new(Plan::of(args)?);
    plan.raise_limit_of_files()?;
    // Warnings of TLS, such as a certificate that has expired, go to stderr.
    let _log = logging::start(LogFormat::Text)?;
    let cannot = |error| Failure::outside(format!("cannot start: {error}"));
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    let picture = &args.output.plot;
    match runtime.block_on(measure(Arc::clone(&plan), picture.as_deref()))? {
        Some((outcome, picture)) => tell(&Report::new(&plan, &outcome), &args.output, picture),
        None => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// Runs the load; `None` where it was interrupted before there was a connection. The file of the picture is
/// opened before, so that nobody waits for a run whose picture cannot be written.
async fn measure(
    plan: Arc<Plan>,
    picture: Option<&Path>,
) -> Result<Option<(Outcome, Option<File>)>, Failure> {
    let cannot = |error| Failure::outside(format!("cannot hear signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let load = tokio::select! {
        load = Load::start(plan) => load.map_err(not_started)?,
        _ = interrupt.recv() => return Ok(None),
    };
    let picture = picture.map(open).transpose()?;
    let live = Live::start(load.tallies());
    let outcome = load.finish(&mut interrupt).await;
    live.end();
    Ok(Some((outcome, picture)))
}

fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Connection(error) => not_connected(&error),
        StartError::Other(failure) => failure,
    }
}

fn not_connected(error: &Error) -> Failure {
    let failure = ClientTls::told(error);
    let is_of_handshake = error.to_string().starts_with("the TLS handshake");
    match error.kind() {
        // Values that cannot be were found before; what is left are files.
        ErrorKind::Configuration => failure.of_a_file(),
        ErrorKind::Tls if error.to_string().contains("does not speak TLS") => {
            failure.hint("leave --tls out, or give the port of TLS")
        }
        ErrorKind::Tls => failure,
        ErrorKind::Timeout if is_of_handshake => {
            failure.hint("does the server speak TLS? --handshake-timeout sets how long it may take")
        }
        ErrorKind::Timeout => failure.hint("--timeout sets how long it may take"),
        _ => failure.hint("does a server listen there?"),
    }
}

/// Opens the file of the picture; what is in it stays until there is another.
fn open(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(|error| {
        let path = crate::failure::shown(&path.display().to_string());
        Failure::outside(format!("--plot: cannot write \"{path}\": {error}"))
            .hint("give a file that can be written to")
    })
}

fn tell(
    report: &Report<'_>,
    output: &OutputArgs,
    picture: Option<File>,
) -> Result<ExitCode, Failure> {
    let draws = output.text_plot || (io::stdout().is_terminal() && !output.no_plot);
    let text = match output.json {
        true => report.json(),
        false => report.text(draws),
    };
    print(&text)?;
    if let Some(file) = picture {
        write_over(file, &report.picture())
            .map_err(|error| Failure::outside(format!("--plot: cannot write the file: {error}")))?;
    }
    Ok(match report.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    })
}

fn write_over(mut file: File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}
