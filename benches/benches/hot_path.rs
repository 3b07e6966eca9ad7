//! The hot path in one process and on one thread, as time and allocations of each round trip, and the finding
//! and making of frames by itself.
//!
//! `cargo bench -p onbytes-benches --bench hot_path`
//!
//! A client, which is no more than a socket that does not block, and a listener share a runtime: nobody is woken,
//! and no other core takes part. What the kernel does for both sides is in the times; `system_calls_alone` is
//! what is left without any server. One allocation of 64 bytes in each round trip is the runtime's, which it
//! makes each time it is entered.

use divan::counter::{BytesCount, ItemsCount};
use divan::{AllocProfiler, Bencher};
use onbytes::{Bytes, FrameDecoder, Framing, Listener, ListenerConfiguration, Service};
use onbytes_benches::echo::{Returned, Written};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Sizes of a message.
const SIZES: [usize; 2] = [64, 16 << 10];
/// Bytes in the message of a frame.
const MESSAGE: usize = 64;
/// Frames that come in one read.
const TOGETHER: usize = 100;
const FORMS: [&str; 8] =
    ["lines", "delim:0d0a", "len:u16be", "len:varint", "mllp", "netstring", "cobs", "slip"];

fn main() {
    divan::main();
}

/// A listener and a client of it.
struct Site {
    runtime: Runtime,
    /// Stops when it is dropped.
    _listener: Listener,
    client: TcpStream,
    received: Vec<u8>,
}

impl Site {
    fn new(service: impl Service, config: ListenerConfiguration) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
        listener.attach(service);
        runtime.block_on(listener.start()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_nonblocking(true).unwrap();
        Self { runtime, _listener: listener, client, received: Vec::new() }
    }

    /// Sends a message and lets the listener go on until all of it is back.
    fn exchange(&mut self, message: &[u8]) {
        assert_eq!(self.client.write(message).unwrap(), message.len());
        self.received.resize(message.len(), 0);
        let (client, received) = (&mut self.client, &mut self.received);
        self.runtime.block_on(async {
            let mut filled = 0;
            while filled < received.len() {
                match client.read(&mut received[filled..]) {
                    Ok(0) => panic!("the listener ended the connection"),
                    Ok(length) => filled += length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        tokio::task::yield_now().await;
                    }
                    Err(error) => panic!("receiving: {error}"),
                }
            }
        });
        assert!(self.received == message, "the listener sent other bytes");
    }
}

/// Measures the exchange of a message, in which there are so many for the service.
fn measure(bencher: Bencher<'_, '_>, mut site: Site, message: &[u8], items: usize) {
    site.exchange(message);
    bencher
        .counter(BytesCount::new(message.len()))
        .counter(ItemsCount::new(items))
        .bench_local(|| site.exchange(message));
}

mod round_trip {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn system_calls_alone(bencher: Bencher<'_, '_>, size: usize) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let mut message = vec![7; size];
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            client.write_all(&message).unwrap();
            server.read_exact(&mut message).unwrap();
            server.write_all(&message).unwrap();
            client.read_exact(&mut message).unwrap();
        });
    }

    #[divan::bench(args = SIZES)]
    fn returned(bencher: Bencher<'_, '_>, size: usize) {
        let site = Site::new(Returned, ListenerConfiguration::new());
        measure(bencher, site, &vec![7; size], 1);
    }

    #[divan::bench(args = SIZES)]
    fn written_in_the_callback(bencher: Bencher<'_, '_>, size: usize) {
        let site = Site::new(Written, ListenerConfiguration::new());
        measure(bencher, site, &vec![7; size], 1);
    }

    #[divan::bench(args = [1, TOGETHER])]
    fn lines_returned(bencher: Bencher<'_, '_>, count: usize) {
        let config = ListenerConfiguration::new().framing(Framing::lines());
        measure(bencher, Site::new(Returned, config), &wire("lines", count), count);
    }

    #[divan::bench(args = [1, TOGETHER])]
    fn lines_written_in_the_callback(bencher: Bencher<'_, '_>, count: usize) {
        let config = ListenerConfiguration::new().framing(Framing::lines());
        measure(bencher, Site::new(Written, config), &wire("lines", count), count);
    }
}

mod frames {
    use super::*;

    /// Frames that came in one read, taken apart.
    #[divan::bench(args = FORMS)]
    fn decode(bencher: Bencher<'_, '_>, form: &str) {
        let mut decoder = FrameDecoder::new(&framing(form)).unwrap();
        let read = Bytes::from(wire(form, TOGETHER));
        bencher.counter(ItemsCount::new(TOGETHER)).bench_local(|| {
            decoder.push(read.clone());
            let mut count = 0;
            while let Some(frame) = decoder.next_frame().unwrap() {
                divan::black_box(frame);
                count += 1;
            }
            assert_eq!(count, TOGETHER);
        });
    }

    #[divan::bench(args = FORMS)]
    fn encode(bencher: Bencher<'_, '_>, form: &str) {
        let framing = framing(form);
        bencher.bench_local(|| framing.encode(divan::black_box(&[b'x'; MESSAGE])).unwrap());
    }
}

fn framing(form: &str) -> Framing {
    form.parse().expect("the form is known")
}

/// So many frames of one form, each with the same message.
fn wire(form: &str, count: usize) -> Vec<u8> {
    framing(form).encode(&[b'x'; MESSAGE]).unwrap().repeat(count)
}
