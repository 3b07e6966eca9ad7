//! `cargo run --example modbus_slave`: a Modbus/TCP slave with 100 holding registers, on port 5020 or the
//! one given.
//!
//! Try it with `mbpoll -p 5020 -0 -r 10 127.0.0.1 7 8 9`, which writes three registers. A frame is
//! delivered with its header of 7 bytes (transaction, protocol, length, unit), which begins the answer,
//! too; the framing fills in the length.

use std::sync::{Arc, Mutex, PoisonError};

use onbytes::{
    Bytes, Caller, ConnectionService, Event, Framing, Listener, ListenerConfiguration, Result,
    Service,
};

/// The registers, which all masters share.
#[derive(Clone)]
struct Slave {
    registers: Arc<Mutex<[u16; 100]>>,
}

/// Why a request is not done: the exceptions, by the numbers that the master is told.
#[derive(Clone, Copy)]
enum Illegal {
    Function = 1,
    Address = 2,
    Value = 3,
}

impl Service for Slave {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(self.clone())
    }
}

impl ConnectionService for Slave {
    async fn on_bytes(&mut self, frame: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        let Some((header, &[function, ref data @ ..])) = frame.split_at_checked(7) else {
            return Err("a frame ends before its function".into());
        };
        if header[2..4] != [0, 0] {
            // Another protocol than Modbus, for which no answer is known.
            return Ok(None);
        }
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match answer(&mut registers[..], function, data) {
            Ok(data) => [header, &[function], &data].concat(),
            Err(illegal) => [header, &[function | 0x80, illegal as u8]].concat(),
        };
        Ok(Some(answer.into()))
    }
}

/// Does what is asked; returns what stands behind the function in the answer.
fn answer(registers: &mut [u16], function: u8, data: &[u8]) -> Result<Vec<u8>, Illegal> {
    match (function, data) {
        (3, &[a0, a1, n0, n1]) => read(registers, word(a0, a1), word(n0, n1)),
        (6, &[a0, a1, v0, v1]) => {
            range(registers, word(a0, a1), 1)?[0] = word(v0, v1);
            Ok(data.to_vec())
        }
        (16, &[a0, a1, n0, n1, len, ref values @ ..]) if values.len() == usize::from(len) => {
            write(registers, word(a0, a1), word(n0, n1), values)?;
            Ok(data[..4].to_vec())
        }
        (3 | 6 | 16, _) => Err(Illegal::Value),
        _ => Err(Illegal::Function),
    }
}

fn word(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

fn range(registers: &mut [u16], start: u16, count: u16) -> Result<&mut [u16], Illegal> {
    let (start, count) = (usize::from(start), usize::from(count));
    registers.get_mut(start..start + count).ok_or(Illegal::Address)
}

fn read(registers: &mut [u16], start: u16, count: u16) -> Result<Vec<u8>, Illegal> {
    if !(1..=125).contains(&count) {
        return Err(Illegal::Value);
    }
    let mut answer = vec![2 * count as u8];
    for register in range(registers, start, count)? {
        answer.extend_from_slice(&register.to_be_bytes());
    }
    Ok(answer)
}

fn write(registers: &mut [u16], start: u16, count: u16, data: &[u8]) -> Result<(), Illegal> {
    if !(1..=123).contains(&count) || data.len() != 2 * usize::from(count) {
        return Err(Illegal::Value);
    }
    for (register, value) in range(registers, start, count)?.iter_mut().zip(data.chunks_exact(2)) {
        *register = word(value[0], value[1]);
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(5020, |port| port.parse().expect("a port"));
    let config = ListenerConfiguration::new().framing(Framing::modbus_tcp());
    let listener = Listener::new(("127.0.0.1", port), config)?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    listener.serve(Slave { registers: Arc::new(Mutex::new([0; 100])) }).await?;
    Ok(())
}
