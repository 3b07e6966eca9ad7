//! `cargo run --example admin`: an echo service on port 3000, or the one given, and a second listener
//! through which it is looked at and controlled while it runs.
//!
//! Try it with `nc 127.0.0.1 3000` in one terminal and `nc 127.0.0.1 3001` in another; there type
//! `stats`, `list`, `kick ID`, `limit N`, `pause` or `go`.

use onbytes::{
    Bytes, Caller, ConnectionId, ConnectionService, Error, Event, Listener, ListenerConfiguration,
    Result, Service, service_fn,
};

/// Gives every caller the same listener to look at.
struct Admin {
    of: Listener,
}

/// One conversation: the part of a line that has arrived.
struct Console {
    of: Listener,
    line: Vec<u8>,
}

impl Service for Admin {
    type Connection = Console;

    async fn on_connect(&self, _: &Caller) -> Result<Console> {
        Ok(Console { of: self.of.clone(), line: Vec::new() })
    }
}

impl ConnectionService for Console {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        let mut answers = String::new();
        self.line.extend_from_slice(&data);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(self.line.drain(..=end).collect())?;
            match answer(&self.of, line.trim()) {
                Ok(text) => answers.push_str(&text),
                Err(error) => answers.push_str(&format!("error: {error}\n")),
            }
        }
        if self.line.len() > 1024 {
            return Err(Error::new("this line is too long"));
        }
        Ok(Some(answers.into()))
    }
}

fn answer(listener: &Listener, command: &str) -> Result<String> {
    let (word, rest) = command.split_once(' ').unwrap_or((command, ""));
    match word {
        "stats" => {
            let stats = listener.stats();
            let (live, queued) = (stats.active, stats.queued_bytes);
            return Ok(format!(
                "{live} live, {} accepted, {queued} bytes queued\n",
                stats.accepted
            ));
        }
        "list" => {
            let line = |it: onbytes::ConnectionInfo| {
                format!("{} {} {} for {:.0?}\n", it.id, it.remote_addr, it.state, it.stats.age)
            };
            return Ok(listener.connections().into_iter().map(line).collect());
        }
        "kick" if listener.close_connection(rest.parse::<ConnectionId>()?) => {}
        "kick" => return Err(Error::new("there is no such connection")),
        "limit" => {
            let count: usize = rest.parse().map_err(|_| Error::new("give a number"))?;
            listener.set_limits(listener.limits().max_connections(count))?;
        }
        "pause" => listener.suspend(),
        "go" => listener.resume(),
        _ => return Err(Error::new("give stats, list, kick ID, limit N, pause or go")),
    }
    Ok("done\n".to_owned())
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    let admin_port = if port == 0 { 0 } else { port + 1 };

    let echo = Listener::new(("127.0.0.1", port), ListenerConfiguration::new())?;
    echo.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    let admin = Listener::new(("127.0.0.1", admin_port), ListenerConfiguration::new())?;
    admin.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("admin on {local_addr}");
        }
    });
    admin.attach(Admin { of: echo.clone() });
    admin.start().await?;

    let service = service_fn(|_caller| async { Ok(|data: Bytes| async { Ok(Some(data)) }) });
    echo.serve(service).await?;
    Ok(())
}
