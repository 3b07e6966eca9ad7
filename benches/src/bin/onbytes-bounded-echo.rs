//! `onbytes-echo` with every bound on that is off by default, none of which is ever reached: what they
//! cost.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-bounded-echo -- 127.0.0.1:0`

use onbytes::{KeepAlive, Limits, ListenerConfiguration, MinArrival, PerSource};
use onbytes::{Prefix, Result, SocketOptions, Timeouts};
use onbytes_benches::{cli, echo};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    echo::serve(cli::listen_address()?, configuration()?).await
}

fn configuration() -> Result<ListenerConfiguration> {
    // As many as a list that is kept by hand may have.
    let deny: Result<Vec<Prefix>> = (0..1000)
        .map(|number| format!("10.{}.{}.0/24", number / 256, number % 256).parse())
        .collect();
    let per_source = PerSource::new().max_connections(1 << 20).accept_rate(1e6);
    let limits = Limits::new()
        .per_source(per_source)
        .deny(deny?)
        .max_queued_bytes_total(1 << 30)
        .max_memory(1 << 30);
    let timeouts =
        Timeouts::new().idle(HOUR).min_arrival(MinArrival::new(1, HOUR)).max_lifetime(24 * HOUR);
    let socket = SocketOptions::new().keep_alive(KeepAlive::lan());
    Ok(ListenerConfiguration::new().limits(limits).timeouts(timeouts).socket(socket))
}
